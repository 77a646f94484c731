"""Networks whose features stand for images in FID, KID, precision/recall, and whose logits do in the inception score.

A number is comparable with another only if both come from the same extractor, so that each names itself, its weights
and its resizing, and `details` of a measurement repeats them.
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
from zoo.data.files import Published, data_root, read
from zoo.errors import ConfigError, DataError

INCEPTION = Published(
    "inception/weights-inception-2015-12-05-6726825d.pth",
    "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
)
"""InceptionV3 of the TensorFlow graph of 2015-12-05, converted by torch-fidelity (Apache License 2.0)."""


class Extractor(nn.Module, ABC):
    """A frozen network of images, as torchmetrics takes it for `feature=`.

    Attributes:
        name: what stands in the details of a measurement.
        sha256: of the weights.
        resize: what happens to the images before the network.
        num_features: width of the features.
        batch_size: images that fit through the network at once in well under 1 GiB.
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

    def details(self) -> dict[str, Any]:
        return {
            "extractor": self.name,
            "extractor_sha256": self.sha256,
            "num_features": self.num_features,
            "resize": self.resize,
        }


class ClassifierFeatures(Extractor):
    """A classifier of the zoo (such as `lenet-mnist`), fed with images of its own shape.

    Args:
        classifier: the loaded model.
        name: of its checkpoint.
        sha256: of its weights file; by default of the tensors in memory.
    """

    resize = "none"
    batch_size = 500

    def __init__(self, classifier: Classifier, name: str, sha256: str | None = None) -> None:
        super().__init__()
        self.name = name
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
        x = _to_float(images)
        return self.classifier.features_and_logits(x)


class Inception(Extractor):
    """InceptionV3 as in the published FIDs: 2048 pooled features, logits without their bias.

    Grey images are repeated to three channels; the resizing to 299x299 is TensorFlow 1's bilinear one, without
    antialiasing.

    Args:
        weights: file of torch-fidelity's weights; by default the published one, downloaded once below the root of all
            data (`$ZOO_DATA`, else the user's cache folder).

    Raises:
        ConfigError: torch-fidelity is not installed.
        DownloadError: the weights are absent and cannot be fetched.
        DataError: the file is not one of these weights.
    """

    name = "inception-v3"
    kind = "inception"
    resize = "bilinear to 299x299 of TensorFlow 1, antialias=False"
    num_features = 2048
    batch_size = 25  # about 20 MB of activations an image

    def __init__(self, weights: str | Path | None = None) -> None:
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
        except Exception as error:  # also of torchvision, which it imports
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise ConfigError(
                f"inception: expected the package torch-fidelity, which cannot be imported ({reason}); pip install "
                "torch-fidelity, with torch and torchvision of one build"
            ) from None
        super().__init__()
        path = Path(weights) if weights is not None else data_root() / INCEPTION.path
        try:
            content = path.read_bytes() if weights is not None else read(data_root(), INCEPTION)
        except OSError as error:
            raise DataError(f"{path}: expected the weights of InceptionV3, cannot be read: {error.strerror}") from error
        self.sha256 = hashlib.sha256(content).hexdigest()
        plain = io.BytesIO()
        try:  # the library unpickles whatever it is given: it gets what torch's restricted reader let through
            torch.save(torch.load(io.BytesIO(content), map_location="cpu", weights_only=True), plain)
            plain.seek(0)
            self.network = FeatureExtractorInceptionV3(self.name, ["2048", "logits_unbiased"], plain)
        except Exception as error:
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise DataError(f"{path}: expected torch-fidelity's weights of InceptionV3, found {reason}") from error
        self.requires_grad_(False)
        self.eval()

    def features_and_logits(self, images: Tensor) -> tuple[Tensor, Tensor]:
        colour = images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images
        return self.network(to_bytes(colour))


def to_bytes(images: Tensor) -> Tensor:
    """Images in [0, 1] -> uint8, clamped and rounded; uint8 stays.

    Rounding and not truncating, clamping and not wrapping: both errors of `(255 x).byte()` move an FID.

    Raises:
        DataError: a pixel is not finite.
    """
    if images.dtype == torch.uint8:
        return images
    if not images.isfinite().all():
        raise DataError(f"expected finite pixels in [0, 1], found {images[~images.isfinite()][0].item()} in an image")
    return (images * 255).round().clamp(0, 255).to(torch.uint8)


def _to_float(images: Tensor) -> Tensor:
    return images.float() / 255 if images.dtype == torch.uint8 else images


def _digest(module: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def default_extractor(data: str) -> str:
    """Name of the classifier of the zoo that was trained on a data set, or that of MNIST where there is none."""
    from zoo.store.registry import registry
    from zoo.store.zoo import Zoo

    classifiers = Zoo.list(capability="Classifier")
    return next((name for name in classifiers if registry()[name].data == data), "lenet-mnist")


def load_extractor(name: str, device: torch.device | str = "cpu") -> Extractor:
    """An extractor by name: a classifier of the zoo (whatever `Zoo.load` takes), `inception`, or `inception:FILE`.

    Raises:
        ConfigError: the name is that of a model without labels.
        ZooError: as `Zoo.load` and `Inception` do.
    """
    from zoo.store.checkpoint import read_metrics
    from zoo.store.zoo import LOCAL, Zoo, locate

    kind, _, file = name.partition(":")
    if kind == Inception.kind:
        return Inception(file or None).to(device)
    model = Zoo.load(name, device=str(device))
    if not isinstance(model, Classifier):
        raise ConfigError(
            f"{name}: expected a classifier as extractor, found {type(model).__name__}; use 'lenet-mnist'"
        )
    place = locate(name)
    title = place.folder.resolve().name if name.startswith(LOCAL) else name
    return ClassifierFeatures(model, title, read_metrics(place.folder, place.inside).weights_sha256)
