"""Networks from an example to one number, its potential U(x). They begin at zero everywhere."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Potential(nn.Module):
    """U(x): a multilayer perceptron for points, a convolutional network for images; smooth, with SiLU.

    The features of images are averaged over places: with one weight for each place, the network learns images by heart.

    Args:
        event_shape: Shape of one example, [D] or [C, H, W].
        channels: Width of the layers of points; channels of the first layer of images, and half of those of the others.
        hidden: Width of the last hidden layer of images.
    """

    def __init__(self, event_shape: Sequence[int], channels: int, hidden: int) -> None:
        super().__init__()
        act = nn.SiLU
        if len(event_shape) == 1:
            layers: list[nn.Module] = [nn.Linear(event_shape[0], channels), act()]
            layers += [nn.Linear(channels, channels), act(), nn.Linear(channels, channels), act()]
            width = channels
        else:
            wide = 2 * channels
            layers = [nn.Conv2d(event_shape[0], channels, 5, 2, 2), act(), nn.Conv2d(channels, wide, 3, 2, 1), act()]
            layers += [nn.Conv2d(wide, wide, 3, 1, 1), act(), nn.Conv2d(wide, wide, 3, 1, 1), act()]
            layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(wide, hidden), act()]
            width = hidden
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(width, 1, bias=False)  # a constant would change log Z alone
        with torch.no_grad():
            self.head.weight.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """[B, *event_shape] -> [B]."""
        return self.head(self.body(x))[:, 0]
