"""A cache of tensors that take long to compute, in files.

The files lie in `statistics` below `$ZOO_CACHE`, or else below the user's cache folder, and may be removed at any time.
The header of a file holds the key of the tensors and their sha256. If either differs, the tensors are computed again.
If the file cannot be written, nothing is cached.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from zoo.distributed import gather, size
from zoo.files import expand, write_atomically

FORMAT = 1
Tensors = dict[str, Tensor]


def cache_root() -> Path:
    """`$ZOO_CACHE`, or else a folder in the user's cache."""
    if chosen := os.environ.get("ZOO_CACHE"):
        return expand(chosen)
    return expand(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "zoo"


def remembered(name: str, key: Mapping[str, Any], compute: Callable[[], Tensors]) -> Tensors:
    """Returns the tensors that an earlier call with the same key computed, or else computes them.

    In a process group, every process must call it. They compute together unless each of them finds the file.

    Args:
        name: Beginning of the file's name, for people.
        key: Everything that the tensors depend on, JSON-plain.
        compute: Computes the tensors.
    """
    text = json.dumps({"format": FORMAT, **key}, sort_keys=True)
    title = re.sub(r"[^\w.-]+", "_", name)[:100]
    path = cache_root() / "statistics" / f"{title}-{hashlib.sha256(text.encode()).hexdigest()[:12]}.safetensors"
    found = _read(path, text)
    if gather(torch.tensor([found is not None]), size()).all():
        assert found is not None
        return found
    tensors = {title: tensor.contiguous() for title, tensor in compute().items()}
    if found is None:
        with suppress(OSError):  # a cache that cannot be written does no harm
            write_atomically(path, save(tensors, {"key": text, "sha256": _digest(tensors)}))
    return tensors


def _read(path: Path, key: str) -> Tensors | None:
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
            if header.get("key") != key:
                return None
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (OSError, SafetensorError, ValueError):
        return None
    return tensors if _digest(tensors) == header.get("sha256") else None


def _digest(tensors: Tensors) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()
