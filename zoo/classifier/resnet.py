"""ResNet, a residual convolutional network (He et al. 2016, https://arxiv.org/abs/1512.03385), small and fast to train.

    p(label | x) = softmax(W f(x) + b)
    f(x) = mean over positions of the last stage;    each stage: y = act(norm(pool(conv(x)))),  y + act(norm(conv(y)))

Differs from the paper: max-pooling halves the sides where the paper strides; a residual branch has one convolution and
ends with its non-linearity; activations are GELUs. The first layer is a fixed discrete cosine transform of 2x2 patches,
which nearly decorrelates the pixels of photographs, so that its batch norm whitens them (as in Jordan 2024,
https://arxiv.org/abs/2404.00498, whose whitening filters come from the data). It learns by Muon with a warm-up and a
rate that falls linearly, of mirrored and shifted images and smoothed labels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.batch import Batch
from zoo.capabilities import Classifier
from zoo.config import Fraction, ImageShape, Shift, Size
from zoo.errors import ConfigError
from zoo.objectives import Classification, Losses
from zoo.random import Streams, rand


class _Cosines(nn.Module):
    """Discrete cosine transform of all 2x2 patches, with both signs: [B, C, H, W] -> [B, 8 C, H - 1, W - 1]."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        colours, pairs = _dct(inputs), _dct(2)
        filters = torch.einsum("ac,bh,dw->abdchw", colours, pairs, pairs).reshape(4 * inputs, inputs, 2, 2)
        self.register_buffer("filters", torch.cat([filters, -filters]), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.get_buffer("filters"))


def _dct(size: int) -> Tensor:
    """The orthonormal discrete cosine transform (DCT-II), [size, size]; of RGB: grey, red - blue, magenta - green."""
    position = torch.arange(size)
    rows = torch.cos(math.pi / size * (position + 0.5) * position[:, None])
    return rows / rows.norm(dim=1, keepdim=True)


def _convolution(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)  # the norm that follows has the bias


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(_convolution(channels, channels), nn.BatchNorm2d(channels), nn.GELU())

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


class _Augmented(Classification):
    """Minimises the cross entropy of shifted images with smoothed labels."""

    def training_step(self, model: ResNet, batch: Batch) -> Losses:
        assert batch.labels is not None, "a classifier needs labelled data"
        logits = model(_shifted(batch.x, model.max_shift, model.streams(batch)))
        return {"loss": F.cross_entropy(logits, batch.labels, label_smoothing=model.label_smoothing)}


class ResNet(Classifier):
    """Classifier of images whose pooled last stage serves as features for FID, KID and precision/recall.

    Training shifts the images and smooths the labels; evaluation is deterministic for each image.

    Args:
        event_shape: (C, H, W); H and W over 2^n for n stages, and over `max_shift`.
        num_classes: Number of labels.
        channels: Channels of each stage; every stage halves the sides. The last number is that of the features.
        max_shift: Largest shift of a training image along each axis, in pixels; its border is mirrored.
        label_smoothing: Probability that the targets of training spread over all labels.

    Raises:
        ConfigError: The images are too small for the number of stages, or for the shifts.
    """

    objective = _Augmented()

    def __init__(
        self,
        event_shape: ImageShape = (3, 32, 32),
        num_classes: Size = 10,
        channels: Sequence[Size] = (64, 192, 192),
        max_shift: Shift = 2,
        label_smoothing: Fraction = 0.1,
    ) -> None:
        super().__init__()
        _check_sides(event_shape, len(channels), max_shift)
        self.save_hyperparameters()
        self.event_shape = tuple(event_shape)
        self.num_classes = num_classes
        self.num_features = channels[-1]
        self.max_shift = max_shift
        self.label_smoothing = label_smoothing
        widths = [8 * event_shape[0], *channels]
        layers: list[nn.Module] = [_Cosines(event_shape[0]), nn.BatchNorm2d(widths[0]), nn.GELU()]
        for before, width in pairwise(widths):
            layers += [_convolution(before, width), nn.MaxPool2d(2), nn.BatchNorm2d(width), nn.GELU(), _Residual(width)]
        self.body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(self.num_features, num_classes)

    def features(self, x: Tensor) -> Tensor:
        return self.body(x.to(self.dtype))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))

    def features_and_logits(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.features(x)
        return features, self.head(features)


def _check_sides(event_shape: Sequence[int], num_stages: int, max_shift: int) -> None:
    """Raises ConfigError unless a position is left after the last stage, and the border is as wide as the shifts."""
    _, height, width = event_shape
    least = 1 + max(2**num_stages, max_shift)
    if not num_stages:
        raise ConfigError("channels: expected at least one stage, found none")
    if min(height, width) < least:
        raise ConfigError(
            f"event_shape: expected sides of at least {least} for {num_stages} stages and shifts of up to {max_shift}, "
            f"found {height}x{width}; use fewer channels or a smaller max_shift"
        )


def _shifted(x: Tensor, max_shift: int, streams: Streams) -> Tensor:
    """Shifts each image by up to `max_shift` pixels along each axis; x [B, C, H, W], its border mirrored."""
    if not max_shift:
        return x
    start = (rand((len(x), 2), streams, x.device) * (2 * max_shift + 1)).long()
    rows, columns = (torch.arange(size, device=x.device) for size in x.shape[-2:])
    rows, columns = rows + start[:, :1], columns + start[:, 1:]  # [B, H], [B, W]
    image = torch.arange(len(x), device=x.device)[:, None, None]
    padded = F.pad(x, [max_shift] * 4, mode="reflect")
    # [B, H, W, C], as indices with a slice between them come first
    return padded[image, :, rows[:, :, None], columns[:, None, :]].movedim(-1, 1)
