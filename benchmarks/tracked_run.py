"""A short training on Digits that logs to Weights & Biases offline, and what the file of its run holds."""

from __future__ import annotations

import json
import os
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

RECIPE = {
    "name": "vae-digits",
    "seed": 0,
    "data": {"class": "Digits", "batch_size": 100},
    "model": {"class": "zoo.vae.vae.VAE", "event_shape": [1, 8, 8], "likelihood": "discretized-logistic"},
    "optimization": {"lr": 2e-3, "schedule": "cosine"},
    "trainer": {
        "max_epochs": 10,
        "accelerator": "cpu",
        "progress": False,
        # a reading of the system every second, since the run is so short
        "wandb": {"project": "zoo", "offline": True, "settings": {"x_stats_sampling_interval": 1.0}},
    },
    "evaluation": {"k": 100},
}


def records(path: Path) -> Iterator[Any]:
    """The records of a run file: LevelDB's log format behind seven bytes, each record a message of wandb's protocol."""
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]  # made when it is imported

    content, block = path.read_bytes(), 32768
    position, message = 7, b""
    while position + 7 <= len(content):
        if block - position % block < 7:
            position += block - position % block
        _, length, kind = struct.unpack_from("<IHB", content, position)
        message += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            record = Record()
            record.ParseFromString(message)
            yield record
            message = b""


def contents(folder: Path) -> dict[str, Any]:
    """What the offline run below `folder` holds: numbers by name, pictures, system figures, artifacts, exit code."""
    (path,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    found: dict[str, Any] = {"history": {}, "pictures": [], "system": set(), "artifacts": {}, "exit": None}
    for record in records(path):
        if record.HasField("history"):
            row = {".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
            for name, value in row.items():
                if name.endswith(".filenames"):
                    found["pictures"] += [path.parent / "files" / name for name in value]
                elif "." not in name:
                    found["history"].setdefault(name, []).append(value)
        elif record.HasField("stats"):
            found["system"] |= {item.key for item in record.stats.item}
        elif record.HasField("artifact"):
            entries = record.artifact.manifest.contents
            found["artifacts"][record.artifact.name] = sorted(entry.path for entry in entries)
        elif record.HasField("exit"):
            found["exit"] = record.exit.exit_code
    return found


def main() -> None:
    os.environ["WANDB_SILENT"] = "true"
    import wandb

    from zoo.training.recipe import make

    with tempfile.TemporaryDirectory() as folder:
        make(RECIPE, Path(folder) / "vae-digits")
        wandb.teardown()  # until all is written
        run = contents(Path(folder) / "vae-digits.run")
    print("vae-digits.run/wandb/offline-run-*")
    for name, values in sorted(run["history"].items()):
        if "/" in name and "global_step" not in name:
            print(f"  {name:28} {len(values):3} x, last {values[-1]:.5g}")
    print(f"  {'samples':28} {len(run['pictures']):3} grids")
    print(f"  {'system':28} {len(run['system']):3} figures, such as {', '.join(sorted(run['system'])[:3])}")
    for name, files in run["artifacts"].items():
        print(f"  artifact {name}: {', '.join(files)}")


if __name__ == "__main__":
    main()
