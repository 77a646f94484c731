"""Brings the pictures of the checkpoints and SECURITY.md into the site without copying them into docs/."""

from __future__ import annotations

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds `samples/NAME.png` for every checkpoint, the pictures of benchmarks, and the page `security.md`."""
    for picture in sorted(ROOT.glob("checkpoints/*/samples.png")):
        files.append(File.generated(config, f"samples/{picture.parent.name}.png", abs_src_path=str(picture)))
    for picture in sorted(ROOT.glob("benchmarks/results/*.png")):
        files.append(File.generated(config, f"pictures/{picture.name}", abs_src_path=str(picture)))
    files.append(File.generated(config, "security.md", content=(ROOT / "SECURITY.md").read_text()))
    return files
