"""Fast versions of functions that the models define in plain code: one file per model or kernel.

The model's own file has the plain version. `faster` replaces it by a function of this package:

    @faster(fast.from_uniforms)
    def from_uniforms(self, uniforms):
        return pixel_by_pixel(self.logits, uniforms)

Both give the same result. Tests compare them: `inspect.unwrap(function)` is the plain one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")


def faster(fast: Callable[..., R | None]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Replaces a plain function by a faster one with the same arguments.

    Args:
        fast: Function that returns the same result, or None where it does not apply; then the plain function is called.
            A graph is traced through the plain one.
    """

    def decorate(plain: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(plain)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            found = None if torch.compiler.is_compiling() else fast(*args, **kwargs)
            return plain(*args, **kwargs) if found is None else found

        return call

    return decorate
