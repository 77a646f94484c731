"""Tensors that take long to compute and are wanted again: kept in files that say what they are of.

A file lies in `statistics` below `$ZOO_CACHE`, else below a cache folder of the user's, and may be removed at any time.
It is used only if the key in its header is the one that is asked for and its tensors have the sha256 that stands beside
it: a damaged or foreign file is computed anew. Where nothing can be written, nothing is kept.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from zoo.distributed import gather, size
from zoo.files import expand

FORMAT = 1
Tensors = dict[str, Tensor]


def cache_root() -> Path:
    """$ZOO_CACHE, else a cache folder of the user's, beside that of the data."""
    if chosen := os.environ.get("ZOO_CACHE"):
        return expand(chosen)
    return expand(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "zoo"


def remembered(name: str, key: Mapping[str, Any], compute: Callable[[], Tensors]) -> Tensors:
    """What `compute` gives, from the file of an earlier call with the same key where there is one.

    In a process group, every process must call it; they compute together unless each finds a file.

    Args:
        name: for people, the beginning of the file's name.
        key: JSON-plain; everything that the tensors depend on.
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
            _write(path, save(tensors, {"key": text, "sha256": _digest(tensors)}))
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


def _write(path: Path, content: bytes) -> None:
    """Puts a whole file in its place, in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
