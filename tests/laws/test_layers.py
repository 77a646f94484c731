"""The architecture: imports go down the layers only, and never in a circle. Imports inside functions count."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import zoo

ROOT = Path(zoo.__file__).parent
LAYERS = [
    [
        "errors",
        "config",
        "files",
        "random",
        "compatibility",
        "distributed",
        "progress",
        "measurement",
        "batch",
        "cache",
    ],
    ["optim", "nn", "samplers", "mcmc", "given", "checks"],
    ["objectives"],
    ["module"],
    ["unnormalized"],
    ["capabilities"],
    ["graphs"],
    ["density", "autoregressive", "vae", "gan", "flows", "boltzmann", "energy", "diffusion", "classifier", "data"],
    ["store"],
    ["denoising", "latents", "pixelwise", "pictures", "plots"],
    ["metrics", "export", "laws"],
    ["training"],
    ["demo"],
    ["cli", "__main__"],
]
LAYER = {name: number for number, names in enumerate(LAYERS) for name in names}
FILES = {".".join(path.relative_to(ROOT.parent).with_suffix("").parts): path for path in ROOT.rglob("*.py")}
MODULES = {name.removesuffix(".__init__"): path for name, path in FILES.items()}


def imports(path: Path) -> Iterator[str]:
    """Modules of the zoo that a file imports at run time."""
    pending: list[ast.AST] = [ast.parse(path.read_text())]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        pending += ast.iter_child_nodes(node)
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        if isinstance(node, ast.ImportFrom):
            names = [n if (n := f"{node.module}.{name}") in MODULES else str(node.module) for name in names]
        yield from (name for name in names if name in MODULES)


def test_imports_go_down_the_layers() -> None:
    parts = {name: path for name, path in MODULES.items() if name != "zoo"}
    unknown = {name.split(".")[1] for name in parts} - LAYER.keys()
    assert not unknown, f"say in which layer {unknown} lie"
    up = [
        f"{name} imports {other}"
        for name, path in parts.items()
        for other in imports(path)
        if other != "zoo" and LAYER[other.split(".")[1]] > LAYER[name.split(".")[1]]
    ]
    assert up == []


def test_no_import_leads_back() -> None:
    graph = {name: set(imports(path)) - {name, "zoo"} for name, path in MODULES.items() if name != "zoo"}
    TopologicalSorter(graph).prepare()  # raises CycleError, which shows the circle
    assert len(graph) > 100
