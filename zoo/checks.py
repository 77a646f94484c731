"""What models are given, checked once per call; and densities of half precision, computed in single precision.

`guard` puts both around the methods of a model class, so that model files hold the mathematics alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from zoo.config import brief
from zoo.errors import DataError
from zoo.given import check_images

CHECKED = ("log_prob", "elbo", "log_weights", "energy", "encode", "squared_error", "forward", "features_and_logits")
"""Methods that check x, their first argument."""

SINGLE = ("log_prob", "energy", "to_latent", "from_latent")
"""Methods that compute in single precision at least, whatever the precision of the weights."""

_IS_ON: ContextVar[bool] = ContextVar("checks", default=True)
_HALF = (torch.float16, torch.bfloat16)
_TOLERANCE = 1e-3  # of pixels, well below the distance of two grey levels


@contextmanager
def unchecked() -> Iterator[None]:
    """Leaves out the checks of values and shapes, in inner loops over data that are known to be right.

    On a GPU each check waits for the computations before it.
    """
    token = _IS_ON.set(False)
    try:
        yield
    finally:
        _IS_ON.reset(token)


def guard(cls: type) -> None:
    """Wraps the methods that a class itself defines, and that are named in `CHECKED` or `SINGLE`."""
    for names, wrapper in ((SINGLE, _in_single), (CHECKED, _checked)):
        for name in names:
            method = vars(cls).get(name)
            if callable(method) and not getattr(method, "__isabstractmethod__", False):
                setattr(cls, name, wrapper(method))


def check_values(model: Any, x: Any, where: str, *, is_real: bool = False) -> None:
    """Checks the shape of examples and the range of their values.

    Args:
        model: A model with `event_shape` and perhaps `levels`.
        x: Examples, [B, *event_shape]: 0 or 1 if `levels` is 2, in [0, 1] for other levels and for all images but
            those of a density of real numbers.
        where: Beginning of the message.
        is_real: Whether any real numbers are welcome.

    Raises:
        DataError: x is not of this kind.
    """
    if not isinstance(x, Tensor):
        raise DataError(f"{where}: expected a tensor, found {brief(x)}; use torch.as_tensor")
    check_images(model, x, where)
    levels = getattr(model, "levels", None)
    is_of_reals = levels is None and (x.ndim != 4 or hasattr(model, "log_prob"))
    if is_real or is_of_reals or not x.numel() or x.dtype == torch.bool or x.is_meta:
        return
    try:
        if levels == 2:
            _check_binary(x.detach(), where)
        else:
            _check_range(x.detach(), where)
    except RuntimeError as error:
        if "vmap" not in str(error):  # inside of torch.vmap, values cannot be read
            raise


def _check_binary(x: Tensor, where: str) -> None:
    if x.dtype == torch.uint8 and x.max().item() <= 1:
        return
    flat = x.flatten().to(torch.promote_types(x.dtype, torch.float32))
    if torch.dot(flat, flat).item() == flat.sum().item():  # x^2 = x of 0 and 1 alone; two sums are quicker than `==`
        return
    wrong = x[(x != 0) & (x != 1)]
    if len(wrong):  # none if there are so many ones that the sums were rounded
        raise DataError(
            f"{where}: expected binary pixels, 0 or 1, found {wrong[0].item():.4g}; binarise the images first, for "
            "example (x > 0.5).float()"
        )


def _check_range(x: Tensor, where: str) -> None:
    least, most = torch.stack(torch.aminmax(x)).tolist()
    if not (least >= -_TOLERANCE and most <= 1 + _TOLERANCE):
        raise DataError(
            f"{where}: expected pixels in [0, 1], found values from {least:.4g} to {most:.4g}; scale the images first, "
            "for example x / 255"
        )


def _checked(method: Callable[..., Any]) -> Callable[..., Any]:
    name = method.__name__

    @wraps(method)
    def checking(model: Any, x: Tensor, *args: Any, **given: Any) -> Any:
        if torch.compiler.is_compiling() or not _IS_ON.get():
            return method(model, x, *args, **given)
        check_values(model, x, f"{type(model).__name__}.{name}", is_real=name in model.real)
        with unchecked():  # what it calls gets the same x
            return method(model, x, *args, **given)

    return checking


def _in_single(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def computing(model: Any, x: Tensor, *args: Any, **given: Any) -> Any:
        dtype = model.dtype
        if dtype in _HALF:
            tensors = chain(model.named_parameters(), model.named_buffers())
            single = {f"model.{name}": tensor.float() for name, tensor in tensors if tensor.dtype in _HALF}
            return functional_call(_Call(model), single, (method, x.float(), *args), given)
        return method(model, x.to(torch.promote_types(x.dtype, dtype)), *args, **given)

    return computing


class _Call(nn.Module):
    """A method of a model as a module, since `functional_call` replaces the weights of modules."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, method: Callable[..., Any], *args: Any, **given: Any) -> Any:
        return method(self.model, *args, **given)
