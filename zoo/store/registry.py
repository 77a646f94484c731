"""The registry of the pretrained checkpoints. `zoo list` reads it without importing torch."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from zoo.config import check, load_json
from zoo.errors import CheckpointError
from zoo.files import write_atomically

FORMAT = 2
LICENCE = "mit"
"""The licence of the checkpoints that come with the zoo."""

_PACKAGE = Path(__file__).resolve().parents[1]
REGISTRY = Path(__file__).resolve().with_name("registry.json")
SHIPPED = root if (root := _PACKAGE / "checkpoints").is_dir() else _PACKAGE.parent / "checkpoints"
"""The folder of the shipped checkpoints: `zoo/checkpoints` when installed, `checkpoints` in a source checkout."""


@dataclass(frozen=True)
class Entry:
    """The entry of a checkpoint in the registry.

    Attributes:
        class_name: Class of the model, such as `vae.VAE`.
        capabilities: Names of its capabilities, the most specific first.
        data: Name of the data set that it was trained on.
        size: Size of the weights in bytes.
        weights_sha256: Hash of the weights, wherever they come from.
        config_sha256: Hash of the configuration, wherever it comes from.
        repo: Repository on the Hub; None if it is not there.
        revision: Commit in that repository.
    """

    class_name: str
    capabilities: list[str]
    data: str
    size: int
    weights_sha256: str
    config_sha256: str
    repo: str | None = None
    revision: str | None = None

    @property
    def family(self) -> str:
        """The family of the zoo that exports the class, such as `vae` for `vae.VAE`."""
        return re.split("[.:]", self.class_name)[0]


def registry() -> dict[str, Entry]:
    """Returns the entries of the pretrained checkpoints by name."""
    if not REGISTRY.exists():
        return {}
    hints = {"format_version": int, "checkpoints": dict[str, dict[str, object]]}
    content = check(load_json(REGISTRY), hints, str(REGISTRY))
    return {name: Entry(**fields) for name, fields in content["checkpoints"].items()}


def render(entries: dict[str, Entry]) -> str:
    """Returns the content of `registry.json`."""
    plain: dict[str, Any] = {name: asdict(entry) for name, entry in sorted(entries.items())}
    return json.dumps({"format_version": FORMAT, "checkpoints": plain}, indent=1) + "\n"


def write_registry(entries: dict[str, Entry]) -> None:
    """Writes `registry.json` atomically.

    Raises:
        CheckpointError: The file cannot be written.
    """
    try:
        write_atomically(REGISTRY, render(entries).encode())
    except OSError as exc:
        raise CheckpointError(
            f"{REGISTRY}: cannot be written: {exc.strerror}; use a copy of the zoo that you may write to"
        ) from exc
