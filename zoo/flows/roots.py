"""Inverses that have no formula."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

NUM_HALVINGS, NUM_NEWTON = 30, 3


def invert(function: Callable[[Tensor], tuple[Tensor, Tensor]], y: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The x with f(x) = y of an increasing f, element by element.

    Bisection comes near it from anywhere in the interval, and a few steps of Newton's method make it exact. Each
    element takes the same number of steps, so that the result does not depend on the others.

    Args:
        function: f(x) and f'(x) > 0, both as x.
        y: Values of f, any shape.
        low, high: Interval of x, as y.

    Returns:
        x, as y.
    """
    for _ in range(NUM_HALVINGS):
        middle = (low + high) / 2
        is_below = function(middle)[0] < y
        low, high = torch.where(is_below, middle, low), torch.where(is_below, high, middle)
    x = (low + high) / 2
    for _ in range(NUM_NEWTON):
        value, slope = function(x)
        x = x - ((value - y) / slope).clamp(-1e-3, 1e-3)
    return x
