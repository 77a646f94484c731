"""The registry: what `zoo list` needs to know of the pretrained checkpoints, without importing torch."""

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
    """What the registry holds of one checkpoint.

    Attributes:
        class_name: Class of the model, such as `vae.VAE`.
        capabilities: Names of its capabilities, the most specific first.
        data: Name of the data set that it was trained on.
        size: Size of the weights in bytes.
        weights_sha256, config_sha256: What the two files must be, wherever they come from.
        repo, revision: Its repository on the Hub and the commit there; None if it is not there.
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
        """The part of the zoo that exports the class: `vae` of `vae.VAE`."""
        return re.split("[.:]", self.class_name)[0]


def registry() -> dict[str, Entry]:
    """The pretrained checkpoints by name."""
    if not REGISTRY.exists():
        return {}
    hints = {"format_version": int, "checkpoints": dict[str, dict[str, object]]}
    content = check(load_json(REGISTRY), hints, str(REGISTRY))
    return {name: Entry(**fields) for name, fields in content["checkpoints"].items()}


def render(entries: dict[str, Entry]) -> str:
    """The content of `registry.json`."""
    plain: dict[str, Any] = {name: asdict(entry) for name, entry in sorted(entries.items())}
    return json.dumps({"format_version": FORMAT, "checkpoints": plain}, indent=1) + "\n"


def write_registry(entries: dict[str, Entry]) -> None:
    """Writes `registry.json`, all of it or nothing.

    Raises:
        CheckpointError: It cannot be written.
    """
    try:
        write_atomically(REGISTRY, render(entries).encode())
    except OSError as exc:
        raise CheckpointError(
            f"{REGISTRY}: cannot be written: {exc.strerror}; run this where the zoo can be written to"
        ) from exc
