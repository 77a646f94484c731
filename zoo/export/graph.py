"""One method of a model as a file, for ONNX and for `torch.export`; `zoo.graphs` says which methods there are.

Before a file is put in its place, its outputs are compared with those of the model.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from zoo.checks import unchecked
from zoo.config import listed, reason
from zoo.errors import ConfigError, ZooError
from zoo.files import expand, write_atomically
from zoo.graphs import METHODS, inputs_of, methods_of
from zoo.module import ZooModule

TOLERANCE = 1e-3
"""Largest difference of an output of a file from that of the model, relative to the largest output."""

SIZES = (3, 1, 4)
"""Batch sizes on which they are compared; the graph is traced with the first."""


@contextmanager
def _tracing() -> Iterator[None]:
    """Distributions do not look at values, which a graph does not have, and torch keeps its diagnoses to itself."""
    validates, level = Distribution._validate_args, logging.root.manager.disable
    Distribution.set_default_validate_args(False)
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
        Distribution.set_default_validate_args(validates)


class Graph(nn.Module):
    """A method of a model as the `forward` of a module, with examples of its inputs.

    Args:
        model: The model.
        method: One of `methods_of`; by default, the first.

    Raises:
        ConfigError: The model has no such method, or none that a graph can hold.
    """

    def __init__(self, model: ZooModule, method: str | None = None) -> None:
        super().__init__()
        names, title = methods_of(type(model)), type(model).__name__
        if not names:
            raise ConfigError(
                f"export: {title} draws by a chain or value by value, which no graph holds; others can export one of "
                f"{listed(METHODS)}"
            )
        if method is not None and method not in names:
            raise ConfigError(f"--method: {title} can export {listed(names)}, found {method}")
        self.name = method or names[0]
        self.method = METHODS[self.name]
        self.model = model.eval()
        self.inputs = inputs_of(type(model), self.name)

    def forward(self, *inputs: Tensor) -> Tensor:
        with unchecked():
            return self.method.compute(self.model, **dict(zip(self.inputs, inputs, strict=True)))

    def examples(self, num: int) -> tuple[Tensor, ...]:
        """Inputs of a batch."""
        values = [make(self.model, num) for make in self.method.inputs.values()]
        if "labels" in self.inputs:
            values.append(torch.arange(num) % int(self.model.num_classes))  # type: ignore[arg-type]
        return tuple(values)

    def program(self) -> torch.export.ExportedProgram:
        """The graph, as `torch.export` traces it.

        Raises:
            ConfigError: The method has parts that cannot be traced.
        """
        batch = torch.export.Dim("batch", min=1, max=2**20)
        shapes = {"inputs": tuple({0: batch} for _ in self.inputs)}
        examples = self.examples(SIZES[0])
        try:
            with torch.no_grad(), _tracing():
                self(*examples)  # what a model computes once and keeps is then no part of the graph
                program = torch.export.export(self, examples, dynamic_shapes=shapes, strict=False)
                program.graph.eliminate_dead_code()  # torch 2.6 cannot load questions about dtypes again
                return program
        except Exception as error:  # of many kinds, with pages of advice
            title = type(self.model).__name__
            raise ConfigError(
                f"--method: {self.name} of {title} cannot be traced as a graph ({reason(error)}); it can export "
                f"{listed([name for name in methods_of(type(self.model)) if name != self.name]) or 'nothing else'}"
            ) from error

    def check(self, run: Callable[[tuple[Tensor, ...]], Tensor]) -> float:
        """The largest difference of what a file computes from what the model does, for batches of several sizes.

        Raises:
            ZooError: It is larger than `TOLERANCE` of the largest output.
        """
        largest = 0.0
        for num in SIZES:
            inputs = self.examples(num)
            with torch.no_grad():
                expected = self(*inputs)
            found = run(inputs).detach()
            if found.shape != expected.shape:
                raise ZooError(
                    f"export: the file computes shape {list(found.shape)}, and the model {list(expected.shape)}; "
                    "nothing was written"
                )
            difference = float(torch.where(found == expected, 0.0, (found - expected).abs()).max())  # -inf is itself
            if not difference <= TOLERANCE * max(1.0, float(expected.abs().max())):
                raise ZooError(f"export: the file differs from the model by {difference:.2g}; nothing was written")
            largest = max(largest, difference)
        return largest


@dataclass(frozen=True)
class Exported:
    """A file that was written and compared with its model.

    Attributes:
        path: The file.
        method: Name of the method that it computes.
        inputs: Shapes of its inputs, by name.
        output: Name and shape of its output.
        difference: Largest difference of its outputs from those of the model.
    """

    path: Path
    method: str
    inputs: dict[str, list[int | str]]
    output: tuple[str, list[int | str]]
    difference: float

    def __str__(self) -> str:
        def shown(name: str, shape: list[int | str]) -> str:
            return f"{name} [{', '.join(map(str, shape))}]"

        inputs = ", ".join(shown(*item) for item in self.inputs.items())
        return (
            f"{self.path}\n{self.method}: {inputs} -> {shown(*self.output)}, {METHODS[self.method].meaning}\n"
            f"outputs differ from those of the model by at most {self.difference:.1g}"
        )


def export_graph(model: ZooModule, path: str | Path, to: str, method: str | None = None) -> Exported:
    """Writes a method of a model as a file for other programs.

    Args:
        model: The model, on the CPU.
        path: New file.
        to: `onnx`, or `torch-export` for `torch.export.load`.
        method: One of `methods_of(type(model))`; by default, the first.

    Raises:
        ConfigError: The model has no such method, it cannot be traced, or the file exists already.
        ZooError: The file computes something else than the model, or a package is missing.
    """
    place = expand(path)
    if place.exists():
        raise ConfigError(f"{place}: exists already; choose a new file")
    graph = Graph(model, method)
    content, difference = _FORMATS[to](graph)
    write_atomically(place, content)
    inputs = {name: _batched(value) for name, value in zip(graph.inputs, graph.examples(2), strict=True)}
    with torch.no_grad():
        output = graph.method.output, _batched(graph(*graph.examples(2)))
    return Exported(place, graph.name, inputs, output, difference)


def _batched(example: Tensor) -> list[int | str]:
    return ["B", *example.shape[1:]]


def _torch_file(graph: Graph) -> tuple[bytes, float]:
    """The content of the file, and its largest difference from the model."""
    content = io.BytesIO()
    torch.export.save(graph.program(), content)
    content.seek(0)
    with _tracing():
        loaded = torch.export.load(content).module()

    def run(inputs: tuple[Tensor, ...]) -> Tensor:
        with torch.no_grad():
            return loaded(*inputs)

    return content.getvalue(), graph.check(run)


def _onnx_file(graph: Graph) -> tuple[bytes, float]:
    """The content of the file, and its largest difference from the model."""
    try:
        import onnxruntime
        import onnxscript  # noqa: F401 - torch needs it
    except ImportError as error:
        raise ZooError("onnx is not installed; run `pip install 'generative-zoo[onnx]'`") from error
    program = graph.program()
    try:
        with _tracing():
            exported: Any = torch.onnx.export(
                program, input_names=graph.inputs, output_names=[graph.method.output], dynamo=True, verbose=False
            )
    except Exception as error:  # of many kinds
        raise ConfigError(
            f"--method: {graph.name} of {type(graph.model).__name__} has operations that ONNX lacks ({reason(error)}); "
            "choose another method, or --to torch-export"
        ) from error
    content = exported.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

    def run(inputs: tuple[Tensor, ...]) -> Tensor:
        fed = {name: value.numpy() for name, value in zip(graph.inputs, inputs, strict=True)}
        return torch.from_numpy(session.run(None, fed)[0])

    return content, graph.check(run)


_FORMATS: dict[str, Callable[[Graph], tuple[bytes, float]]] = {"onnx": _onnx_file, "torch-export": _torch_file}
