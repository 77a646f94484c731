"""Inverses of functions that have no closed form."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

MAX_STEPS = 80


def invert(function: Callable[[Tensor], tuple[Tensor, Tensor]], y: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Solves f(x) = y for an increasing f, element by element.

    Uses Newton's method inside a shrinking interval. Where a step leaves the interval, or is not half as long as the
    one before, bisection takes over. An element stops once its step is near the rounding error, so that its result does
    not depend on the others.

    Args:
        function: Function that returns f(x) and f'(x) > 0, both with the shape of x.
        y: Values of f, any shape.
        low, high: Ends of the interval in which x lies, with the shape of y.

    Returns:
        x, with the shape of y.
    """
    x, step = (low + high) / 2, high - low
    is_done = torch.zeros_like(y, dtype=torch.bool)
    for _ in range(MAX_STEPS):
        value, slope = function(x)
        error = value - y
        low, high = torch.where(error < 0, x, low), torch.where(error < 0, high, x)
        newton = x - error / slope
        is_good = (newton >= low) & (newton <= high) & (2 * error.abs() <= step.abs() * slope)
        moved = torch.where(is_good, newton, (low + high) / 2)
        step = moved - x
        x = torch.where(is_done, x, moved)
        is_done |= step.abs() <= 16 * torch.finfo(x.dtype).eps * (1 + x.abs())
        if is_done.all():
            break
    return x
