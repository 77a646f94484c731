"""Networks whose features represent images in FID, KID, precision and recall; the inception score uses their logits.

Two numbers are comparable only if they come from the same extractor. So the details of a measurement hold the name of
its extractor, its weights and how it resizes images.
"""

from __future__ import annotations

import hashlib
import io
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zoo.capabilities import Classifier
from zoo.config import reason
from zoo.data.base import DataModule
from zoo.data.files import Published, data_root, read
from zoo.errors import ConfigError, DataError
from zoo.files import expand
from zoo.store.checkpoint import Checkpoint
from zoo.store.registry import registry
from zoo.store.source import checkpoint as resolve

INCEPTION = Published(
    "inception/weights-inception-2015-12-05-6726825d.pth",
    "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
)
"""InceptionV3 of the TensorFlow graph of 2015-12-05, converted by torch-fidelity (Apache License 2.0)."""


class Extractor(nn.Module, ABC):
    """A frozen network of images, as torchmetrics takes it for `feature=`; its `InceptionScore` takes `logits`.

    Attributes:
        name: Name in the details of a measurement.
        sha256: sha256 of the weights.
        resize: How images are resized before they enter the network.
        num_features: Width of the features.
        batch_size: Number of images that pass through the network at once in well under 1 GiB.
    """

    name: str
    sha256: str
    resize: str
    num_features: int
    batch_size: int

    @abstractmethod
    def features_and_logits(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """[B, C, H, W], uint8 or float in [0, 1] -> [B, num_features] and [B, number of classes]."""

    def forward(self, images: Tensor) -> Tensor:
        """[B, C, H, W], uint8 or float in [0, 1] -> [B, num_features]."""
        return self.features_and_logits(images)[0]

    @property
    def logits(self) -> nn.Module:
        """The network that gives logits in place of features: [B, C, H, W] -> [B, number of classes]."""
        return _Logits(self)

    def details(self) -> dict[str, Any]:
        """What a measurement says of the extractor."""
        return {
            "extractor": self.name,
            "extractor_sha256": self.sha256,
            "num_features": self.num_features,
            "resize": self.resize,
        }


class _Logits(nn.Module):
    def __init__(self, extractor: Extractor) -> None:
        super().__init__()
        self.extractor = extractor

    def forward(self, images: Tensor) -> Tensor:
        return self.extractor.features_and_logits(images)[1]


class ClassifierFeatures(Extractor):
    """A classifier of the zoo, such as `lenet-mnist`; images must have its shape.

    Args:
        classifier: The model; it is frozen.
        name: Name of its checkpoint.
        sha256: sha256 of its weights file; by default, of the tensors in memory.
        data: Name of the data set whose classes it knows, if that is known.
        classes: Names of its classes in the order of the labels, if they are known.
    """

    resize = "none"
    batch_size = 500

    def __init__(
        self,
        classifier: Classifier,
        name: str,
        sha256: str | None = None,
        data: str | None = None,
        classes: list[str] | None = None,
    ) -> None:
        super().__init__()
        self.name, self.data, self.classes = name, data, classes
        self.classifier = classifier.to(memory_format=torch.channels_last)  # twice as fast on the CPU
        self.num_features = classifier.num_features
        self.sha256 = sha256 or _digest(classifier)
        self.requires_grad_(False)
        self.eval()

    def features_and_logits(self, images: Tensor) -> tuple[Tensor, Tensor]:
        if tuple(images.shape[1:]) != tuple(self.classifier.event_shape):
            raise DataError(
                f"{self.name}: expected images of shape {tuple(self.classifier.event_shape)}, "
                f"found {tuple(images.shape[1:])}; use another extractor"
            )
        return self.classifier.features_and_logits(images.float() / 255 if images.dtype == torch.uint8 else images)


class Inception(Extractor):
    """InceptionV3 as in published FIDs: 2048 pooled features, and logits without their bias.

    Grey images are repeated to three channels. Images are resized to 299x299 by the bilinear resizing of TensorFlow 1,
    without antialiasing.

    Args:
        weights: File of torch-fidelity's weights; by default, the published one, which is downloaded once to the root
            of all data (`$ZOO_DATA`, or else the user's cache folder).

    Raises:
        ConfigError: torch-fidelity is not installed.
        DownloadError: The weights are absent and cannot be downloaded.
        DataError: The file does not hold these weights.
    """

    name = "inception-v3"
    kind = "inception"
    resize = "bilinear to 299x299 of TensorFlow 1, antialias=False"
    num_features = 2048
    batch_size = 25  # an image has about 20 MB of activations

    def __init__(self, weights: str | Path | None = None) -> None:
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
        except Exception as error:  # torchvision, which it imports, may fail in its own way
            raise ConfigError(
                f"inception: expected the package torch-fidelity, which cannot be imported ({reason(error)}); pip "
                "install torch-fidelity, with torch and torchvision of one build"
            ) from None
        super().__init__()
        path = expand(weights) if weights is not None else data_root() / INCEPTION.path
        try:
            content = path.read_bytes() if weights is not None else read(data_root(), INCEPTION)
        except OSError as error:
            raise DataError(f"{path}: expected the weights of InceptionV3, cannot be read: {error.strerror}") from error
        self.sha256 = hashlib.sha256(content).hexdigest()
        plain = io.BytesIO()
        try:  # the library unpickles what it is given, so it gets only what torch's restricted reader let through
            torch.save(torch.load(io.BytesIO(content), map_location="cpu", weights_only=True), plain)
            plain.seek(0)
            self.network = FeatureExtractorInceptionV3(self.name, ["2048", "logits_unbiased"], plain)
        except Exception as error:
            raise DataError(
                f"{path}: expected torch-fidelity's weights of InceptionV3, found {reason(error)}"
            ) from error
        self.requires_grad_(False)
        self.eval()

    def features_and_logits(self, images: Tensor) -> tuple[Tensor, Tensor]:
        colour = images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images
        return self.network(to_bytes(colour))


def to_bytes(images: Tensor) -> Tensor:
    """Converts images in [0, 1] to uint8 by clamping and rounding; uint8 images are returned as they are.

    `(255 x).byte()` would truncate, and wrap values outside of [0, 1]; both change an FID.

    Raises:
        DataError: A pixel is not finite.
    """
    if images.dtype == torch.uint8:
        return images
    if not images.isfinite().all():
        raise DataError(f"expected finite pixels in [0, 1], found {images[~images.isfinite()][0].item()} in an image")
    return (images * 255).round().clamp(0, 255).to(torch.uint8)


def _digest(module: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def default_extractor(data: DataModule) -> str | None:
    """Name of the pretrained classifier of a data set; of MNIST's for other images of 28x28 grey or binary pixels.

    Returns:
        The name; None if no classifier knows such images.
    """
    entries = sorted(registry().items())
    own = [name for name, entry in entries if "Classifier" in entry.capabilities and entry.data == data.name]
    is_like_mnist = tuple(data.event_shape) == (1, 28, 28) and data.levels in (2, 256)
    return next(iter(own), "lenet-mnist" if is_like_mnist else None)


def load_extractor(name: str, device: torch.device | str = "cpu") -> Extractor:
    """Loads an extractor by name.

    Args:
        name: A classifier, as `Zoo.load` takes it; `inception`; or `inception:FILE`.
        device: Where to put it.

    Raises:
        ConfigError: The name is that of a model that is no classifier.
        ZooError: As `Zoo.load` and `Inception`.
    """
    kind, _, file = name.partition(":")
    if kind == Inception.kind:
        return Inception(file or None).to(device)
    return extractor_of(resolve(name), device)


def extractor_of(checkpoint: Checkpoint, device: torch.device | str = "cpu") -> ClassifierFeatures:
    """Makes an extractor of the checkpoint of a classifier.

    Raises:
        ConfigError: The model is no classifier.
        ZooError: As `Checkpoint.load`.
    """
    model = checkpoint.load(device=str(device))
    if not isinstance(model, Classifier):
        raise ConfigError(
            f"{checkpoint.source}: expected a classifier as extractor, found {type(model).__name__}; use 'lenet-mnist'"
        )
    title = checkpoint.source if checkpoint.entry or checkpoint.root != checkpoint.folder else checkpoint.name
    return ClassifierFeatures(model, title, checkpoint.weights_sha256, checkpoint.data_name, checkpoint.classes)
