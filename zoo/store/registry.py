"""The registry: what `zoo list` needs to know of the pretrained checkpoints, without importing torch.

`python -m zoo.store.registry` writes it, the model cards and MODEL_CARDS.md anew from the folders in `checkpoints/`.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from zoo.config import check, load_json, parse_yaml
from zoo.errors import CheckpointError
from zoo.store.checkpoint import (
    CONFIG,
    FORMAT,
    RECIPE,
    WEIGHTS,
    find_class,
    member,
    read_config,
    read_metrics,
    read_recipe,
)

_PACKAGE = Path(__file__).resolve().parents[1]
REGISTRY = Path(__file__).resolve().with_name("registry.json")
SHIPPED = root if (root := _PACKAGE / "checkpoints").is_dir() else _PACKAGE.parent / "checkpoints"
"""The folder of the shipped checkpoints: `zoo/checkpoints` when installed, `checkpoints` in a source checkout."""


@dataclass(frozen=True)
class Entry:
    """What the registry holds of one checkpoint.

    Attributes:
        class_name: of the model, such as `zoo.vae.vae.VAE`.
        capabilities: names of its types in `zoo.capabilities`, the most specific first.
        data: name of the data set that it was trained on.
        size: of the weights, in bytes.
        weights_sha256, config_sha256: what the two files must be, wherever they come from.
        repo, revision: where it lies on the Hub, and the commit; None where it is not there.
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
        """The part of the zoo that holds the class: `vae` of `zoo.vae.vae.VAE`."""
        return self.class_name.split(".")[1]


def registry() -> dict[str, Entry]:
    """The pretrained checkpoints by name."""
    if not REGISTRY.exists():
        return {}
    hints = {"format_version": int, "checkpoints": dict[str, dict[str, object]]}
    content = check(load_json(REGISTRY), hints, str(REGISTRY))
    return {name: Entry(**fields) for name, fields in content["checkpoints"].items()}


def shipped_names() -> list[str]:
    """Names of the folders that are there, registered or not."""
    return sorted(path.parent.name for path in SHIPPED.glob(f"[!.]*/{CONFIG}"))


def capabilities_of(cls: type) -> list[str]:
    """Names of the types in `zoo.capabilities` that a model class inherits, the most specific first.

    What says how it is fitted, or given what, comes after what it promises.
    """
    bases = [base.__name__ for base in cls.__mro__ if base.__module__ == "zoo.capabilities"]
    last = ("ClosedForm", "Conditional", "GenerativeModel")
    return sorted((name for name in bases if name != "ZooModule"), key=lambda name: name in last)


def _data_of(folder: Path, inside: Path | None) -> str:
    """Name of the data set of a checkpoint: by its first number, else as its recipe calls it."""
    for measurement in read_metrics(folder, inside).measurements:
        return str(measurement.get("data"))
    section = parse_yaml(read_recipe(folder, inside) or "{}", str(folder / RECIPE)).get("data")
    return str(section.get("class")) if isinstance(section, dict) else "unknown"


def describe(folder: Path, inside: Path | None = None) -> Entry:
    """The entry that a folder deserves; see `checkpoint.load` for `inside`. Imports its class, and so torch."""
    config, metrics = read_config(folder, inside), read_metrics(folder, inside)
    return Entry(
        class_name=config.class_name,
        capabilities=capabilities_of(find_class(config.class_name, str(folder / CONFIG))),
        data=_data_of(folder, inside),
        size=member(folder, WEIGHTS, inside).stat().st_size,
        weights_sha256=metrics.weights_sha256,
        config_sha256=metrics.config_sha256,
    )


def render_registry() -> str:
    """The content of `registry.json` by the folders that are there; keeps what is known of their Hub repositories."""
    entries = {}
    for name in shipped_names():
        entry = asdict(describe(SHIPPED / name))
        if (known := registry().get(name)) and known.weights_sha256 == entry["weights_sha256"]:
            entry.update(repo=known.repo, revision=known.revision)
        entries[name] = entry
    return _render(entries)


def _render(entries: dict[str, dict[str, Any]]) -> str:
    return json.dumps({"format_version": FORMAT, "checkpoints": entries}, indent=1) + "\n"


def pin(name: str, repo: str, revision: str) -> None:
    """Records at which commit of which repository a checkpoint lies on the Hub, all of it or nothing.

    Raises:
        CheckpointError: `registry.json` cannot be written.
    """
    entries = {key: asdict(entry) for key, entry in registry().items()}
    entries[name].update(repo=repo, revision=revision)
    temporary = REGISTRY.with_name(f".{REGISTRY.name}.new")
    try:
        temporary.write_text(_render(entries))
        temporary.replace(REGISTRY)
    except OSError as exc:
        raise CheckpointError(
            f"{REGISTRY}: cannot record {repo}@{revision}: {exc.strerror}; run it where the zoo can be written to"
        ) from exc


def write_registry() -> None:
    """Writes `registry.json`, the cards of all checkpoints and MODEL_CARDS.md."""
    from zoo.store.card import write_model_cards

    REGISTRY.write_text(render_registry())
    write_model_cards()


if __name__ == "__main__":
    write_registry()
