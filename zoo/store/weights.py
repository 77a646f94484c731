"""Files of weights in the safetensors format. The header is checked before a tensor is read."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, BinaryIO, TypeAlias

from zoo.config import brief, parse_json
from zoo.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from torch import Tensor

MAX_WEIGHTS = 2**30
"""Largest size of a file of weights in bytes; larger files are refused unread."""

MAX_HEADER, MAX_TENSORS, MAX_DIMENSIONS = 2**19, 5_000, 16

Layout: TypeAlias = dict[str, tuple[str, tuple[int, ...]]]
"""The dtype and the shape of each tensor by name."""

_ITEM = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
_DTYPE = {"I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool", "F64": "float64"}
_FLOATS = ("F32", "F16", "BF16")  # interchangeable: half-precision files load as float32


def read_header(file: BinaryIO, where: str) -> Layout:
    """Reads the header of a safetensors file, and checks that the file holds these tensors and nothing else.

    Args:
        file: The file, at its beginning.
        where: Beginning of the error message, such as the name of the file.

    Returns:
        The dtype and the shape of each tensor by name, with dtypes as safetensors names them, such as "F32".

    Raises:
        CheckpointError: The file is not a safetensors file, is truncated, or is larger than any model of the zoo.
    """
    size = os.fstat(file.fileno()).st_size
    if size > MAX_WEIGHTS:
        raise CheckpointError(f"{where}: expected at most {MAX_WEIGHTS} bytes, found {size}")
    length = int.from_bytes(start, "little") if len(start := file.read(8)) == 8 else 0
    if not 2 <= length <= min(MAX_HEADER, size - 8):
        expected = f"a safetensors header of at most {MAX_HEADER} bytes"
        raise CheckpointError(f"{where}: expected {expected}, found a length of {length} in a file of {size} bytes")
    try:
        entries = parse_json(file.read(length), f"{where}: header")
    except ConfigError as exc:
        raise CheckpointError(f"{exc}; the file is damaged or not a safetensors file, fetch it again") from None
    metadata = entries.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise CheckpointError(f"{where}: header: expected __metadata__ to map names to text, found {brief(metadata)}")
    if len(entries) > MAX_TENSORS:
        raise CheckpointError(f"{where}: expected at most {MAX_TENSORS} tensors, found {len(entries)}")
    tensors, spans = {}, []
    for name, entry in entries.items():
        match entry:
            case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [begin, end], **rest} if not rest:
                is_sound = (
                    len(shape) <= MAX_DIMENSIONS
                    and all(type(number) is int and number >= 0 for number in (*shape, begin, end))
                    and dtype in _ITEM
                )
            case _:
                is_sound = False
        if not is_sound or math.prod(shape) * _ITEM[dtype] != end - begin:
            raise CheckpointError(
                f"{where}: header: expected type, shape and position of {brief(name)} to agree, found {brief(entry)}"
            )
        tensors[name] = (dtype, tuple(shape))
        spans.append((begin, end))
    position = 0
    for begin, end in sorted(spans):
        if begin != position:
            raise CheckpointError(f"{where}: header: expected a tensor from byte {position}, found {begin}")
        position = end
    if 8 + length + position != size:
        raise CheckpointError(
            f"{where}: expected {8 + length + position} bytes, found {size}; it is truncated or damaged, fetch it again"
        )
    return tensors


def compare(where: str, header: Layout, model: Layout) -> None:
    """Checks that a file holds exactly the tensors of a model.

    Args:
        where: Beginning of the error message, such as the name of the file.
        header: Tensors of the file, with dtypes as safetensors names them, such as "F32".
        model: Tensors of the model, with dtypes as torch names them, such as "float32".

    Raises:
        CheckpointError: A tensor is missing, is superfluous, or has the wrong dtype or shape.
    """
    for kind, names in ("no tensor", model.keys() - header.keys()), ("no use for tensor", header.keys() - model.keys()):
        if names:
            first, more = brief(min(names)), f" and {len(names) - 1} more" if len(names) > 1 else ""
            owner = "the file has" if kind == "no tensor" else "the model has"
            raise CheckpointError(f"{where}: {owner} {kind} {first}{more}; the two do not belong together")
    for name, (dtype, shape) in header.items():
        expected_dtype, expected_shape = model[name]
        is_same = dtype in _FLOATS if expected_dtype == "float32" else _DTYPE.get(dtype) == expected_dtype
        if shape != expected_shape or not is_same:
            expected = f"{expected_dtype} {list(expected_shape)}"
            raise CheckpointError(f"{where}: {name} must be {expected}, found {dtype} {brief(list(shape))}")


def exported(name: str, tensor: Tensor, dtype: str) -> Tensor:
    """Copies a tensor to the CPU in the type in which a file stores it.

    Args:
        name: Name of the tensor, for messages.
        tensor: The tensor.
        dtype: Type of floating-point tensors in the file, "float32" or "float16"; float64 tensors keep their type.

    Raises:
        CheckpointError: A value is NaN, or too large for `dtype`.
    """
    import torch

    tensor = tensor.detach().cpu()
    if tensor.is_floating_point() and tensor.isnan().any():
        raise CheckpointError(f"save: {name} has NaN values; train it again with a smaller learning rate")
    if tensor.is_floating_point() and tensor.dtype != torch.float64:
        copy = tensor.to(getattr(torch, dtype), copy=True).contiguous()
        if not torch.equal(copy.isfinite(), tensor.isfinite()):
            raise CheckpointError(f"save: {name} has values that {dtype} cannot hold; save it as float32")
        return copy
    return tensor.contiguous().clone()
