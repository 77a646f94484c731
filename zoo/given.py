"""What a call may be given besides data and noise: labels, a sampler, a mask. Each is checked once, here."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import torch
from torch import Tensor

from zoo.config import brief
from zoo.errors import ConfigError, DataError
from zoo.samplers.base import Sampler

if TYPE_CHECKING:
    from zoo.capabilities import GenerativeModel

Labels: TypeAlias = Tensor | Sequence[int] | int | None
Given: TypeAlias = dict[str, Any]
"""Keyword arguments of `draw`: a tensor holds one value for each example, anything else holds for all of them."""


def check_given(model: GenerativeModel, given: Given, num: int) -> Given:
    """Checks what `sample` was given for `num` examples.

    Returns:
        The values that are not None, as `draw` takes them: labels as a tensor [num] on the CPU, a sampler as it is.

    Raises:
        ConfigError: The model does not take such a value, or the value is not one of those it takes.
    """
    checked = {}
    for name, value in given.items():
        if value is None:
            continue
        if name not in model.takes():
            raise ConfigError(f"{name}: {type(model).__name__} does not take any; leave it out")
        checked[name] = model.takes()[name](model, value, num)
    return checked


def rows_of(given: Given, rows: Tensor, device: torch.device) -> Given:
    """The part of checked values that belongs to some of the examples, on a device."""
    return {name: value[rows].to(device) if isinstance(value, Tensor) else value for name, value in given.items()}


def check_labels(model: Any, labels: Labels, num: int) -> Tensor:
    """Checks the labels of `num` examples.

    Args:
        model: A model with `num_classes`.
        labels: One label for all examples, or one for each.
        num: Number of examples.

    Returns:
        [num], int64, on the CPU.

    Raises:
        ConfigError: There are no labels, or more or fewer than examples, or one is not a class of the model.
    """
    if labels is None:
        raise ConfigError(
            f"labels: {type(model).__name__} is Conditional: expected one label, or one for each example, found none"
        )
    if torch.compiler.is_compiling():  # a graph cannot read values
        return cast(Tensor, labels)
    expected = f"labels: expected one whole number or {num} of them"
    try:
        found = torch.as_tensor(labels).cpu()
    except (TypeError, ValueError, RuntimeError):  # words, lists of several lengths, numbers beyond 64 bits
        raise ConfigError(f"{expected}, found {brief(labels)}") from None
    if len(found.shape) == 1 and not len(found):
        found = found.long()  # an empty list has no type
    is_whole = not (found.is_floating_point() or found.is_complex() or found.dtype == torch.bool)
    if not is_whole or found.shape not in ((), (num,)):
        raise ConfigError(f"{expected}, found {str(found.dtype).removeprefix('torch.')} {list(found.shape)}")
    found = found.long().expand(num)
    if num and not 0 <= found.min() <= found.max() < model.num_classes:
        wrong = next(int(label) for label in found if not 0 <= label < model.num_classes)
        raise ConfigError(f"labels: expected classes from 0 to {model.num_classes - 1}, found {wrong}")
    return found


def check_sampler(model: Any, sampler: Any, num: int) -> Sampler:
    """Checks that a sampler can draw from the model, which names those that can in `samplers`.

    Raises:
        ConfigError: It is not one of them.
    """
    del num
    if not isinstance(sampler, model.samplers):
        names = ", ".join(kind.__name__ for kind in model.samplers)
        raise ConfigError(f"sampler: {type(model).__name__} is drawn from by {names}, found {brief(sampler)}")
    return cast(Sampler, sampler)


def check_num(name: str, value: Any, least: int) -> None:
    """Raises ConfigError unless `value` is a whole number of at least `least`."""
    if not isinstance(value, Integral) or int(value) < least:
        raise ConfigError(f"{name}: expected a whole number, at least {least}, found {brief(value)}")


def check_images(model: Any, x: Tensor, where: str) -> None:
    """Raises DataError, whose message begins with `where`, unless x is [B, *event_shape]."""
    shape = tuple(model.event_shape)
    if not x.ndim or tuple(x.shape[1:]) != shape:
        kind, expected = "images" if len(shape) == 3 else "examples", ", ".join(map(str, ("B", *shape)))
        raise DataError(f"{where}: expected {kind} of shape [{expected}], found {list(x.shape)}")


def check_mask(model: GenerativeModel, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Checks images to complete, and the mask that says which of their pixels are known.

    Args:
        model: The model that will complete them.
        x: Images, [B, *event_shape]; unknown pixels may have any value.
        mask: bool, [*event_shape] or [B, *event_shape], True where a pixel is known.

    Returns:
        x with zeros in the unknown pixels, and the mask, both [B, *event_shape] on the model's device.

    Raises:
        ConfigError: The mask is not boolean, or its shape is neither that of x nor that of one example.
        DataError: x has another shape than examples of the model, or a known pixel is not finite or not one of the
            model's grey levels.
    """
    check_images(model, x, "complete")
    if tuple(mask.shape) not in (model.event_shape, tuple(x.shape)) or mask.dtype != torch.bool:
        raise ConfigError(
            f"complete: expected a bool mask of shape {list(model.event_shape)} or {list(x.shape)}, "
            f"found {str(mask.dtype).removeprefix('torch.')} {list(mask.shape)}"
        )
    known = mask.to(model.device).expand_as(x)
    x = x.to(model.device, model.dtype).where(known, 0)
    if not x.isfinite().all():
        raise DataError("complete: expected numbers in the known pixels, found NaN or infinity")
    if (levels := model.levels) is None:
        return x, known
    number = x * (levels - 1)
    if not ((number >= 0) & (number < levels) & ((number - number.round()).abs() < 1e-3)).all():
        kind, advice = f"pixels of {levels} grey levels from 0 to 1", "scale the images first, for example x / 255"
        if levels == 2:
            kind, advice = "binary pixels", "binarise the images first, for example (x > 0.5).float()"
        raise DataError(f"complete: {type(model).__name__} is a model of {kind}, but a known one is none; {advice}")
    return x, known
