"""Inverses that have no formula."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

MAX_STEPS = 80


def invert(function: Callable[[Tensor], tuple[Tensor, Tensor]], y: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Solves f(x) = y for an increasing f, element by element.

    Newton's method, inside an interval that shrinks; where a step leaves the interval, or steps do not shrink by half,
    bisection takes over. An element rests once its step is near rounding errors: its x does not depend on the others.

    Args:
        function: Gives f(x) and f'(x) > 0, both as x.
        y: Values of f, any shape.
        low, high: Interval in which x lies, as y.

    Returns:
        x, as y.
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
