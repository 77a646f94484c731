"""A checkpoint folder to do harm to, and tables of the harm.

A row is a function under `@table.row(error, words...)`. It prepares something bad in the `World` and returns the call
that must raise just this error, with all the words in a message of one line, and leave every file as it was.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load_file, save_file

from zoo import Zoo
from zoo.errors import ZooError
from zoo.store import registry as records
from zoo.store import release
from zoo.store.checkpoint import sha256
from zoo.vae.vae import VAE

Action = Callable[[], object]


_FILES: dict[Path, bytes] = {}  # of a world without harm


class World:
    """A folder to do harm in, with one registered checkpoint `vae-digits`."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.plugins: tuple[str, ...] = ()
        self.patch = monkeypatch
        self.shipped = root / "checkpoints"
        self.folder = self.shipped / "vae-digits"
        self.weights = self.folder / "model.safetensors"
        self.config = self.folder / "config.json"
        self.model = VAE(event_shape=[1, 8, 8], latent_dim=3, channels=8, hidden=8, likelihood="discretized-logistic")
        monkeypatch.setattr(records, "SHIPPED", self.shipped)
        monkeypatch.setattr(records, "REGISTRY", root / "registry.json")
        if not _FILES:  # the first: all are alike
            Zoo.save(self.model, self.folder, recipe={"data": {"class": "Digits"}})
            records.write_registry(release.entries())
            _FILES.update({path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()})
        self.folder.mkdir(parents=True, exist_ok=True)
        for name, content in _FILES.items():
            (root / name).write_bytes(content)

    def load(self) -> object:
        return Zoo.load(f"local-dir:{self.folder}", plugins=self.plugins)

    def save(self, **options: Any) -> Action:
        return lambda: Zoo.save(self.model, options.pop("folder", self.root / "new"), **options)

    def seal(self) -> None:
        """Makes metrics.json agree with the files, as whoever forged them would."""
        path = self.folder / "metrics.json"
        record = json.loads(path.read_text())
        record["config_sha256"] = sha256(self.config.read_bytes())
        record["weights_sha256"] = sha256(self.weights.read_bytes())
        path.write_text(json.dumps(record))

    def replace(self, model: Any) -> None:
        """Another model in the folder."""
        Zoo.save(model, self.folder, overwrite=True)

    def configure(self, **changes: Any) -> Action:
        """Forges `config.json`; `arguments` are added to those that stand there."""
        content = json.loads(self.config.read_text())
        changes["arguments"] = {**content["arguments"], **changes.get("arguments", {})}
        self.config.write_text(json.dumps({**content, **changes}))
        self.seal()
        return self.load

    def forge(self, header: bytes, body: bytes = b"") -> Action:
        """Forges a safetensors file."""
        self.weights.write_bytes(struct.pack("<Q", len(header)) + header + body)
        self.seal()
        return self.load

    def change_tensors(self, change: Callable[[dict[str, torch.Tensor]], object]) -> Action:
        tensors = load_file(self.weights)
        change(tensors)
        save_file(tensors, self.weights)
        self.seal()
        return self.load


Case = Callable[[World], Action]


class Row(NamedTuple):
    case: Case
    error: type[ZooError]
    words: tuple[str, ...]


class Table(list[Row]):
    """Rows, in the order in which they are written."""

    def row(self, error: type[ZooError], *words: str) -> Callable[[Case], Case]:
        def add(case: Case) -> Case:
            self.append(Row(case, error, words))
            return case

        return add

    def parametrize(self) -> pytest.MarkDecorator:
        return pytest.mark.parametrize("row", self, ids=lambda row: row.case.__name__)


def refuse(row: Row, action: Action) -> str:
    """The message with which `action` fails, which must be that of the row."""
    with pytest.raises(ZooError) as caught:
        action()
    message = str(caught.value)
    assert type(caught.value) is row.error, message
    assert "\n" not in message and own_length(message) <= 300, message
    assert all(word in message for word in row.words), message
    return message


def own_length(message: str) -> int:
    """Number of characters of a message without the folders of the absolute paths in it."""
    return len(re.sub(r"(/[^ :;,/']+)+/", "/", message))


def tree(root: Path) -> dict[str, object]:
    """Everything below a folder: contents of files (of large ones the size), None for folders and what is no file."""
    found: dict[str, object] = {}
    for path in root.rglob("*"):
        size = path.stat().st_size if path.is_file() else None
        found[str(path.relative_to(root))] = path.read_bytes() if size is not None and size < 2**20 else size
    return found
