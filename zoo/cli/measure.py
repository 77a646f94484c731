"""Measure: numbers of checkpoints, published tables, and the likelihood of own images."""

from __future__ import annotations

import argparse
import io
import json
import math
import os
from dataclasses import replace
from typing import TYPE_CHECKING

from zoo.cli.command import command, option
from zoo.cli.options import (
    DEVICE,
    JSON,
    LABELS,
    NAME,
    SEED,
    SHARED,
    arguments_of_sampler,
    checkpoint_of,
    labels_of,
    name,
    num,
    number,
    one_of,
    own_data,
    own_data_of,
    sampler_of,
    sampling,
    whole,
)
from zoo.cli.output import check_place, out, write
from zoo.errors import ConfigError, ZooError
from zoo.files import check_exists, check_outside, encoded, expand
from zoo.metrics.names import GROUPS, TABLES

if TYPE_CHECKING:
    from torch import Tensor

    from zoo.capabilities import GenerativeModel
    from zoo.measurement import Measurement
    from zoo.metrics.score import Comparison, Scores
    from zoo.store.checkpoint import Checkpoint

MANY = 10**9
SLICE = option("--slice", action="store_true", help="Use a few seeded examples only: a check in seconds")


# ------------------------------------------------------------------------------------------------------------ evaluate


@command(
    "Measure",
    NAME,
    option(
        "--only",
        nargs="+",
        type=one_of("group of numbers", GROUPS),
        metavar="GROUP",
        help=f"Groups of numbers to measure: {', '.join(GROUPS)}",
    ),
    option("--k", type=whole(1, MANY), help="Number of importance samples (default: as in the recipe)"),
    option("--num", type=whole(1, MANY), help="Number of images for sample quality (default: as in the recipe)"),
    option("--sampling-seeds", type=whole(1, MANY), metavar="N", help="Number of sampling seeds, averaged by the FID"),
    sampling,
    SLICE,
    option("--write", action="store_true", help="Record the numbers and a picture of samples in the folder"),
    DEVICE,
    JSON,
    SHARED,
)
def evaluate(options: argparse.Namespace) -> None:
    """Recompute the numbers of a checkpoint and check its record.

    The exit status is 1 if a number differs.
    """
    if options.write and options.slice:
        raise ConfigError("--write: a slice is a check, not a number to record; leave out --slice")
    checkpoint = checkpoint_of(options)
    if options.write:
        _check_own(checkpoint)
        _ = checkpoint.weights_sha256  # read now: the numbers will be those of these weights
    sampler = sampler_of(options, checkpoint.model_class())

    from zoo.distributed import on_leader
    from zoo.metrics.evaluate import evaluate_checkpoint

    found = evaluate_checkpoint(
        checkpoint,
        k=options.k,
        num=options.num,
        sampling_seeds=options.sampling_seeds,
        only=options.only,
        sampler=sampler,
        on_slice=options.slice,
        device=options.device,
    )

    def report() -> None:
        differences = _print_numbers(checkpoint, found, options)
        if options.write:
            _record(checkpoint, found, options)
        elif differences:
            raise ZooError(
                f"{checkpoint.source}: {len(differences)} of {len(found)} numbers differ from its record: "
                f"{'; '.join(differences)}"
            )

    on_leader(report)


def _check_own(checkpoint: Checkpoint) -> None:
    """ConfigError if numbers cannot be recorded in the folder of the checkpoint."""
    if checkpoint.root != checkpoint.folder:
        raise ConfigError(
            f"--write: expected a checkpoint of your own, found {checkpoint.source}, which is only a copy from the Hub"
        )
    if not os.access(checkpoint.folder, os.W_OK):
        raise ConfigError(f"--write: {checkpoint.folder} is not yours to write; copy the folder, and evaluate the copy")


def _print_numbers(checkpoint: Checkpoint, found: list[Measurement], options: argparse.Namespace) -> list[str]:
    """Prints numbers and how they compare with the record; returns the recorded ones that differ."""
    from zoo.measurement import compare, recorded_value

    recorded = checkpoint.numbers
    differences = compare(recorded, found)
    different = [str(difference) for difference in differences if difference.recorded is not None]
    compared = sum(recorded_value(recorded, measurement) is not None for measurement in found)
    if options.json:
        numbers = [measurement.to_dict() for measurement in found]
        page = {"measurements": numbers, "compared": compared, "differences": [str(d) for d in differences]}
        print(json.dumps(page, indent=2))
        return different
    print("\n".join(map(str, found)) or "this model has no such numbers on these data")
    if found and not options.write and not different:
        verdict = "nothing was compared: no number is recorded with these settings"
        if compared:
            verdict = (
                f"no number differs from those recorded with the same settings ({compared} of {len(found)} compared)"
            )
        new = f"; {len(differences)} are not on record, and --write puts them there" if differences else ""
        print(verdict + new)
    return different


def _record(checkpoint: Checkpoint, found: list[Measurement], options: argparse.Namespace) -> None:
    """Records numbers in place of those of the same name, and draws the samples."""
    from zoo.capabilities import GenerativeModel
    from zoo.measurement import Measurement
    from zoo.pictures import grid
    from zoo.plots import has_plot, plot
    from zoo.store.checkpoint import SAMPLES
    from zoo.store.zoo import Zoo

    files = {}
    model = replace(checkpoint).load(device=options.device)  # of the files as they are now
    if isinstance(model, GenerativeModel) and len(model.event_shape) == 3:
        picture = io.BytesIO()
        grid(_portrait(model)).save(picture, "PNG")
        files[SAMPLES] = picture.getvalue()
    elif isinstance(model, GenerativeModel) and has_plot(model):
        files[SAMPLES] = plot(model)
    now = replace(checkpoint)  # its files are read again, since another process may have recorded numbers meanwhile
    if now.weights_sha256 != checkpoint.weights_sha256:
        raise ZooError(
            f"{checkpoint.source}: its weights were replaced meanwhile; nothing was written, evaluate it again"
        )
    rows = {Measurement.from_dict(row).key: row for row in now.records}  # a number that is replaced keeps its place
    repeat = _repeat(checkpoint, options)
    rows |= {measurement.key: {**measurement.to_dict(), "command": repeat} for measurement in found}
    Zoo.update(now, rows.values(), files)


def _repeat(checkpoint: Checkpoint, options: argparse.Namespace) -> str:
    """The command that finds these numbers again."""
    from zoo.store.source import LOCAL

    prefix = LOCAL if checkpoint.source.startswith(LOCAL) else ""
    words = ["zoo evaluate", prefix + checkpoint.folder.resolve().name]
    settings = {"--k": options.k, "--num": options.num, "--sampling-seeds": options.sampling_seeds}
    settings |= {f"--{name}": value for name, value in arguments_of_sampler(options).items()}
    words += [f"{flag} {value}" for flag, value in settings.items() if value is not None]
    words += ["--only", *options.only] if options.only else []
    return " ".join(words)


def _portrait(model: GenerativeModel) -> Tensor:
    """The card's 64 samples, or 32 of large images; of a decoder with pixel noise, half are E[x | z] instead."""
    import torch

    from zoo import latents
    from zoo.capabilities import Conditional

    num = 64 if model.event_shape[-1] <= 32 else 32
    labels = torch.arange(num) % model.num_classes if isinstance(model, Conditional) else None
    samples = model.sample(num, generator=torch.Generator().manual_seed(0), labels=labels)
    if not latents.has_pixel_noise(model):
        return samples
    half = num // 2
    codes = latents.prior_codes(model, half, torch.Generator().manual_seed(0))
    expected = latents.decode(model, codes, labels=None if labels is None else labels[:half])
    return torch.cat([expected, samples[:half]])


# ----------------------------------------------------------------------------------------------------------- reproduce


@command(
    "Measure",
    option(
        "table",
        metavar="TABLE",
        type=one_of("table", TABLES),
        help=f"{', '.join(TABLES[:-1])} or {TABLES[-1]}",
    ),
    option("--k", type=whole(1, MANY), help="Number of importance samples per image (default: what takes minutes)"),
    option("--recorded", action="store_true", help="Show the recorded numbers without recomputing them"),
    SLICE,
    DEVICE,
    JSON,
    SHARED,
)
def reproduce(options: argparse.Namespace) -> None:
    """Recompute a table of the literature from the checkpoints."""
    from zoo.distributed import is_leader
    from zoo.metrics.tables import reproduce

    table = reproduce(
        options.table, recompute=not options.recorded, k=options.k, on_slice=options.slice, device=options.device
    )
    if is_leader():
        print(json.dumps(table.to_dict(), indent=2) if options.json else table)


# --------------------------------------------------------------------------------------------------------------- score


@command(
    "Measure",
    name("Checkpoint, as elsewhere; leave it out to compare --new with --data", nargs="?"),
    own_data,
    option("--new", metavar="PATH", type=expand, help="Images to compare with those of --data, which are good ones"),
    option("--size", type=whole(8, 128), help="With --new: height and width to bring images to (default: as they are)"),
    num(64, "images on the sheet"),
    option("--k", type=whole(1, MANY), default=100, help="Number of importance samples (default %(default)s)"),
    SEED,
    out("scores.csv", "table"),
    option("--sheet", metavar="FILE", type=expand, help="File to write the sheet to (default: beside the table)"),
    DEVICE,
)
def score(options: argparse.Namespace) -> None:
    """Rank your own images, the least likely first.

    `zoo score NAME --data images` ranks images by their likelihood under a checkpoint. `zoo score --data good --new
    images` finds those that are unlike good ones: it fits quick densities to the good images, and says which of the new
    ones are less likely than 99 % of good ones. Both write a table, and a sheet that shows the first and the last ones.
    """
    sheet = options.sheet or options.out.parent / f"{options.out.stem}.png"
    if sheet.resolve() == options.out.resolve():
        raise ConfigError(f"--out: {sheet} is where the sheet goes; name the table .csv, or the sheet with --sheet")
    check_place(sheet, options.overwrite, "sheet")
    for place in (options.out, sheet):
        for folder in filter(None, (options.data, options.new)):
            check_outside(place, folder)
    scores = _compared(options) if options.name is None else _scored(options)
    picture = encoded(scores.sheet(options.num), sheet, "sheet") if scores.is_visible else None
    table = scores.to_csv().encode(errors="surrogateescape")  # names of files as they are, text or not
    write(options.out, table, options.overwrite, "table")
    if picture is not None:
        write(sheet, picture, options.overwrite, "sheet")


def _scored(options: argparse.Namespace) -> Scores:
    if options.new is not None:
        raise ConfigError("--new: is compared with --data without a checkpoint; leave out NAME, or --new")
    checkpoint, data = checkpoint_of(options), own_data_of(options)

    from zoo.metrics.score import score

    return score(
        checkpoint,
        data,
        resize=options.resize,
        binarize=options.binarize,
        skip_corrupt=options.skip_corrupt,
        k=options.k,
        seed=options.seed,
        device=options.device,
    )


def _compared(options: argparse.Namespace) -> Comparison:
    if options.new is None:
        raise ConfigError(
            "score: expected the NAME of a checkpoint, or --new with images to compare with those of --data"
        )
    for flag in ("resize", "binarize"):
        if getattr(options, flag):
            raise ConfigError(f"--{flag}: is for a checkpoint; leave it out, and bring images to one size with --size")

    data = own_data_of(options)
    check_exists(options.new, "a folder of images, or a .npy or .npz file")

    from zoo.metrics.score import compare

    found = compare(
        data,
        options.new,
        size=options.size,
        skip_corrupt=options.skip_corrupt,
        seed=options.seed,
    )
    print(
        f"{found.num_odd} of {len(found.files)} images are less likely than 99 % of good ones, of which "
        f"{found.novelty.num_good} were given"
    )
    return found


# --------------------------------------------------------------------------------------------------- classify, encode


@command(
    "Measure",
    NAME,
    own_data,
    option("--least", type=number, metavar="NATS", help="Reject images whose log-likelihood is smaller"),
    option("--k", type=whole(1, MANY), default=50, help="Number of importance samples (default %(default)s)"),
    SEED,
    out("classes.csv", "table"),
    DEVICE,
)
def classify(options: argparse.Namespace) -> None:
    """Find the classes of your own images.

    The model is a classifier, or a conditional density or bound, which becomes one by Bayes' rule: classes are equally
    likely, and an image belongs to the class under which it is most likely. If the names of folders are classes, the
    command says how many images it finds in theirs.
    """
    check_outside(options.out, options.data)
    checkpoint, data = checkpoint_of(options), own_data_of(options)

    from zoo.metrics.classes import classify
    from zoo.metrics.own import own_examples

    model = checkpoint.load(device=options.device)
    how = {"resize": options.resize, "binarize": options.binarize, "skip_corrupt": options.skip_corrupt}
    own = own_examples(checkpoint, model, data, **how)
    least = -math.inf if options.least is None else options.least
    found = classify(checkpoint, model, own, least=least, k=options.k, seed=options.seed)
    write(options.out, found.to_csv().encode(errors="surrogateescape"), options.overwrite, "table")
    print(found)


@command("Measure", NAME, own_data, LABELS, out("codes.npz", "file"), DEVICE)
def encode(options: argparse.Namespace) -> None:
    """Write the codes of your own images, for use in other programs.

    numpy.load reads the file: `codes` [N, ...], the `files` that they belong to, and `labels`, names of their folders.
    A conditional model takes these names for classes, unless --label is given.
    """
    check_outside(options.out, options.data)
    checkpoint, data = checkpoint_of(options), own_data_of(options)

    from zoo.capabilities import Conditional
    from zoo.cli.images import check_images
    from zoo.metrics.classes import codes_of, labels_of_folders
    from zoo.metrics.own import own_examples

    model = check_images(checkpoint.load(device=options.device), options)
    how = {"resize": options.resize, "binarize": options.binarize, "skip_corrupt": options.skip_corrupt}
    own = own_examples(checkpoint, model, data, **how)
    labels = None
    if options.labels is not None:
        labels = labels_of(options, model, len(own.files))["labels"]
    elif isinstance(model, Conditional):
        labels = labels_of_folders(checkpoint, model, own)
    write(options.out, codes_of(model, own, labels), options.overwrite, "file")
