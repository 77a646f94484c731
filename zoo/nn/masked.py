"""Linear layers without some of their connections, which hold the weights of the others alone."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F


def scattered(weight: Tensor, places: Tensor, shape: tuple[int, int]) -> Tensor:
    """A matrix that is zero but for some entries.

    Args:
        weight: The entries, [1, N].
        places: Position of each entry in the flattened matrix, [1, N].
        shape: Shape of the matrix.
    """
    return weight.new_zeros(1, math.prod(shape)).scatter_(1, places, weight).view(shape)


class MaskedLinear(nn.Module):
    """A linear layer in which each output sees the inputs whose degree is not above its own.

    Args:
        before: Degree of each input, [inputs].
        after: Degree of each output, [outputs].

    Attributes:
        weight: Weights of the connections, row by row, [1, N]: two dimensions, since weights decay and biases do not.
    """

    places: Tensor

    def __init__(self, before: npt.NDArray[np.int64], after: npt.NDArray[np.int64]) -> None:
        super().__init__()
        self.shape = (len(after), len(before))
        number = int(np.searchsorted(np.sort(before), after, "right").sum())
        self.weight = nn.Parameter(torch.empty(1, number))
        self.bias = nn.Parameter(torch.empty(len(after)))
        for parameter in (self.weight, self.bias):  # as `nn.Linear` does
            nn.init.uniform_(parameter, -(len(before) ** -0.5), len(before) ** -0.5)
        if self.weight.is_meta:  # a model that is built without memory
            places = torch.empty(1, number, dtype=torch.int64)
        else:
            places = torch.from_numpy(np.flatnonzero(after[:, None] >= before))[None]
        self.register_buffer("places", places, persistent=False)

    def matrix(self) -> Tensor:
        """The weights of all connections, zero where there is none, [outputs, inputs]."""
        return scattered(self.weight, self.places, self.shape)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.matrix(), self.bias)
