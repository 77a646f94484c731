"""The bounds of model M2, and training images without labels."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from test_metrics import Given
from torch import Tensor

from zoo import Zoo
from zoo.batch import Batch
from zoo.data import MNIST
from zoo.errors import ConfigError
from zoo.metrics import accuracy
from zoo.metrics.classes import classify
from zoo.metrics.own import own_examples
from zoo.random import Streams, randn
from zoo.vae.semi_supervised_vae import SemiSupervisedVAE

SIZES = {"event_shape": [1, 4, 8], "latent_dim": 3, "channels": 4, "hidden": 8}


@pytest.fixture
def model() -> SemiSupervisedVAE:
    torch.manual_seed(0)
    model = SemiSupervisedVAE(classification_weight=7.0, num_classes=4, **SIZES)
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn(parameter.shape)
    return model.double().eval()


@pytest.fixture
def x() -> Tensor:
    return (torch.rand(5, 1, 4, 8, generator=torch.Generator().manual_seed(1)) < 0.5).double()


def streams() -> Streams:
    return Streams(3, torch.arange(5))


def test_bounds_of_classes_are_those_of_the_conditional_vae(model: SemiSupervisedVAE, x: Tensor) -> None:
    epsilon = randn((5, 3), streams(), model.device).double()
    bounds = model.class_bounds(x, epsilon)
    for label in range(4):
        expected = model.log_weights_at(x, epsilon[None], labels=torch.full((5,), label))[0] - math.log(4)
        torch.testing.assert_close(bounds[:, label], expected)


def test_images_with_a_label_and_without_follow_equations_6_and_7(model: SemiSupervisedVAE, x: Tensor) -> None:
    labels = torch.tensor([2, -1, 0, -1, 3])
    bounds = model.class_bounds(x, randn((5, 3), streams(), model.device).double())
    q = model.label_logits(x).softmax(1)
    found = model.training_bound(x, streams(), labels=labels)
    for i, label in enumerate(labels.tolist()):
        if label < 0:
            expected = sum(q[i, y] * (bounds[i, y] - q[i, y].log()) for y in range(4))
        else:
            expected = bounds[i, label] + 7 * q[i, label].log()
        torch.testing.assert_close(found[i], torch.as_tensor(expected))


def test_the_bound_of_an_unlabelled_image_is_tight_where_q_is_the_posterior(
    model: SemiSupervisedVAE, x: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    bounds = model.class_bounds(x, randn((5, 3), streams(), model.device).double())
    unknown = torch.full((5,), -1)
    assert (model.training_bound(x, streams(), labels=unknown) < bounds.logsumexp(1)).all()
    monkeypatch.setattr(model, "label_logits", lambda x: bounds)
    torch.testing.assert_close(model.training_bound(x, streams(), labels=unknown), bounds.logsumexp(1))


def test_unlabelled_images_alone_teach_the_recognizer(model: SemiSupervisedVAE, x: Tensor) -> None:
    batch = Batch(x, torch.full((5,), -1), torch.arange(5))
    model.training_step(batch, 0)["loss"].backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.recognizer.parameters())


def test_labels_of_training_images_are_hidden(real_data: str) -> None:
    data, whole = MNIST(labelled=100), MNIST()
    split, known = data.split("train"), whole.split("train").labels
    assert known is not None and split.labels is not None
    assert split.labels[:50_000].eq(-1).all() and torch.equal(split.x[:50_000], whole.split("train").x)
    assert len(split) == 62_500
    assert split.labels[50_000:].bincount().tolist() == [1250] * 10
    keys = torch.rand(784, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    code = {
        float(key): int(label)
        for key, label in zip(whole.split("train").x.flatten(1).double() @ keys, known, strict=True)
    }
    found = (split.x[50_000:].flatten(1).double() @ keys).tolist()
    assert [code[key] for key in found] == split.labels[50_000:].tolist() and len(set(found)) == 100
    assert torch.equal(data.split("valid").labels, whole.split("valid").labels)
    assert not torch.equal(MNIST(labelled=100, seed=1).split("train").x[50_000:], split.x[50_000:])
    with pytest.raises(ConfigError, match="labelled: expected a multiple of 10"):
        MNIST(labelled=15)


def test_accuracy_is_that_of_the_inferred_labels(model: SemiSupervisedVAE, x: Tensor) -> None:
    labels = model.label_logits(x).argmax(1)
    labels[0] = (labels[0] + 1) % 4
    data = Given(x.float().repeat(2, 1, 1, 1), labels.repeat(2), levels=2)  # the second half is the test split
    (found,) = accuracy(model.float(), data, progress=False)
    assert (found.name, found.value, found.n) == ("accuracy", 80.0, 5)


def test_own_images_are_classified_by_the_inferred_labels(model: SemiSupervisedVAE, x: Tensor, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", x.numpy().astype(bool))
    checkpoint = Zoo.info(f"local-dir:{Zoo.save(model.float(), tmp_path / 'model')}")
    own = own_examples(checkpoint, model, tmp_path / "x.npy")
    found = classify(checkpoint, model, own, k=3, progress=False)
    torch.testing.assert_close(found.probabilities, model.label_logits(x.float()).double().softmax(1))
    assert found.nats is not None and found.nats.isfinite().all()
