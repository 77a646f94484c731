"""The classes of own images, by a classifier or by Bayes' rule, and their codes."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo import latents
from zoo.capabilities import Classifier, Conditional, GenerativeModel, InfersLabels, ZooModule
from zoo.config import brief
from zoo.errors import ConfigError
from zoo.metrics.examples import measuring
from zoo.metrics.likelihood import class_log_likelihoods
from zoo.metrics.own import Own
from zoo.store.checkpoint import Checkpoint


@dataclass(frozen=True)
class Classes:
    """Examples and their most probable classes, in the order of the files.

    Attributes:
        own: The examples.
        names: Names of the classes.
        probabilities: p(c | x), [N, C], float64; classes are equally likely before.
        nats: log p(x), [N], float64, or None for a classifier.
        is_rejected: Whether an example is too unlikely for any class, bool [N].
    """

    own: Own
    names: list[str]
    probabilities: Tensor
    nats: Tensor | None
    is_rejected: Tensor

    def to_csv(self) -> str:
        """One line per example: file, label, class, probability, nats, rejected; empty if not known."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["file", "label", "class", "probability", "nats", "rejected"])
        best = self.probabilities.max(1)
        for i, file in enumerate(self.own.files):
            label = "" if self.own.labels is None else self.own.labels[i]
            nats = "" if self.nats is None else f"{self.nats[i]:.6f}"
            found = [self.names[int(best.indices[i])], f"{best.values[i]:.6f}"]
            writer.writerow([file, label, *found, nats, "yes" if self.is_rejected[i] else "no"])
        return text.getvalue()

    def __str__(self) -> str:
        """What was found, in one line; with the share that is right if all labels are names of classes."""
        total, rejected = len(self.own.files), int(self.is_rejected.sum())
        line = f"{total} examples, {rejected} of them rejected" if rejected else f"{total} examples"
        labels = self.own.labels
        if labels is None or not set(labels) <= set(self.names):
            return line
        found = [self.names[i] for i in self.probabilities.argmax(1).tolist()]
        kept = [not rejected for rejected in self.is_rejected.tolist()]
        right = sum(a == b for a, b, is_kept in zip(found, labels, kept, strict=True) if is_kept)
        return f"{line}; the class of {right} of {sum(kept)} is that of their folder"


def classify(
    checkpoint: Checkpoint,
    model: ZooModule,
    own: Own,
    *,
    least: float = -math.inf,
    k: int = 50,
    draws: int = 10,
    seed: int = 0,
    batch_size: int = 500,
    progress: bool = True,
) -> Classes:
    """Finds the classes of own examples, by a classifier or by Bayes' rule from a conditional density or bound.

    Args:
        checkpoint, model: The checkpoint, whose classes have names or numbers, and its model.
        own: The examples.
        least: Log-likelihood log p(x) in nats below which an example is rejected.
        k, draws, seed: See `Effort`.
        batch_size: Number of rows that pass through the network at once.
        progress: Whether to show a progress bar.

    Raises:
        ConfigError: The model is neither a classifier nor a conditional density or bound.
    """
    nats = None
    if isinstance(model, Classifier):
        if least > -math.inf:
            raise ConfigError(f"least: {checkpoint.source} has no likelihood, as classifiers; leave it out")
        with measuring(model):
            parts = own.images().split(batch_size)
            logits = torch.cat([model(x.to(model.device)).cpu().double() for x in parts])
    elif isinstance(model, Conditional):
        logits = class_log_likelihoods(
            model, own.data, batch_size=batch_size, progress=progress, k=k, draws=draws, seed=seed
        )
        nats = logits.logsumexp(1) - math.log(model.num_classes)
        if isinstance(model, InfersLabels):
            with measuring(model):
                parts = own.images().split(batch_size)
                logits = torch.cat([model.label_logits(x.to(model.device)).cpu().double() for x in parts])
    else:
        raise ConfigError(
            f"{checkpoint.source}: expected a classifier or a model of classes, found {type(model).__name__}; "
            "`zoo list --capability Conditional` shows candidates"
        )
    names = names_of(checkpoint, logits.shape[1])
    is_rejected = torch.zeros(len(logits), dtype=torch.bool) if nats is None else nats < least
    return Classes(own, names, logits.softmax(1), nats, is_rejected)


def names_of(checkpoint: Checkpoint, num_classes: int) -> list[str]:
    """The names of the classes of a checkpoint, or their numbers."""
    return [str(name) for name in checkpoint.classes or range(num_classes)]


def labels_of_folders(checkpoint: Checkpoint, model: Conditional, own: Own) -> Tensor:
    """The labels of own examples, [N], from the names of their folders.

    Raises:
        ConfigError: There are no folders, or one of them is not named after a class.
    """
    names = names_of(checkpoint, model.num_classes)
    found = own.labels or ["none"]
    if unknown := sorted(set(found) - set(names)):
        raise ConfigError(
            f"{checkpoint.source}: expected images in folders that are named after its classes, {', '.join(names)}, "
            f"found {brief(unknown[0])}; or give their class with --label"
        )
    return torch.tensor([names.index(label) for label in found])


def codes_of(model: GenerativeModel, own: Own, labels: Tensor | None = None, batch_size: int = 500) -> bytes:
    """The codes of own examples as the content of an .npz file: `codes`, `files` and, if known, `labels`."""
    x, parts = own.images(), []
    for rows in torch.arange(len(x)).split(batch_size):
        given = None if labels is None else labels[rows]
        parts.append(latents.encode(model, x[rows], labels=given).float().cpu())
    arrays: dict[str, Any] = {"codes": torch.cat(parts).numpy(), "files": np.array(own.files)}
    if own.labels is not None:
        arrays["labels"] = np.array(own.labels)
    content = io.BytesIO()
    np.savez(content, **arrays)
    return content.getvalue()
