"""Model cards: Markdown with the metadata that the Hub reads, made from a checkpoint alone."""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from zoo import __version__
from zoo.config import brief
from zoo.measurement import Measurement, rounded
from zoo.store.checkpoint import BEFORE_AFTER, CURVE, CURVE_TABLE, RECIPE, SAMPLES, Checkpoint

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

DRAWING = "unconditional-image-generation"
_HUB_DATA = {
    "mnist": "ylecun/mnist",
    "fashion-mnist": "zalando-datasets/fashion_mnist",
    "cifar10": "uoft-cs/cifar10",
}


def render_card(checkpoint: Checkpoint, *, name: str | None = None) -> str:
    """Returns the model card of a checkpoint.

    Args:
        checkpoint: The checkpoint; the card tells readers to load its `source`.
        name: Title of the card; by default the name of the checkpoint.

    Raises:
        ZooError: A file of the checkpoint is missing or damaged.
    """
    name = name or checkpoint.name
    lines = [f"# {name}", "", about(checkpoint), ""]
    if (checkpoint.folder / SAMPLES).exists():
        lines += [f"![Samples of {name}]({SAMPLES})", ""]
        if {"EvidenceLowerBound", "Decoder"} <= set(checkpoint.capabilities):
            lines += ["Upper half: the expected image of each code. Lower half: draws, with pixel noise.", ""]
    if (checkpoint.folder / BEFORE_AFTER).exists():
        lines += [f"![Training images, samples before and after fine-tuning]({BEFORE_AFTER})", ""]
    if (checkpoint.folder / CURVE).exists():
        lines += [f"![Training curve of {name}]({CURVE})", ""]
    if (checkpoint.folder / CURVE_TABLE).exists():
        lines += [f"The numbers of this curve are in [{CURVE_TABLE}]({CURVE_TABLE}).", ""]
    lines += ["```python", *_snippet(checkpoint), "```", "", "## Numbers", "", *_numbers(checkpoint)]
    lines += [*_exports(checkpoint), "## Facts", ""]
    lines += [
        f"- Class: `{checkpoint.class_name}`",
        *(f"- `{key}`: `{brief(value, 200)}`" for key, value in checkpoint.arguments.items()),
        f"- Capabilities: {', '.join(checkpoint.capabilities)}",
        f"- Trained on: {checkpoint.data_name}",
        f"- Weights: {checkpoint.size:,} bytes, sha256 `{checkpoint.weights_sha256}`",
        *([f"- Licence: {checkpoint.licence.upper()}"] if checkpoint.licence else []),
        "",
    ]
    if checkpoint.recipe is not None:
        lines += [f"## Recipe ({RECIPE})", "", "```yaml", checkpoint.recipe.rstrip(), "```", ""]
    return f"---\n{_metadata(checkpoint, name)}\n---\n\n" + "\n".join(lines)


def about(checkpoint: Checkpoint) -> str:
    """Name and paper of the model: the first paragraph of its module's docstring."""
    module = sys.modules[checkpoint.model_class().__module__]
    return (inspect.getdoc(module) or "").split("\n\n")[0].replace("\n", " ")


def model_index(name: str, numbers: Iterable[Measurement], task: str = DRAWING) -> str:
    """The metadata of a card, YAML, from which the Hub reads the numbers of a model."""
    from huggingface_hub import ModelCardData

    return str(ModelCardData(model_name=name, eval_results=_results(numbers, task)).to_yaml())


def _results(numbers: Iterable[Measurement], task: str) -> list[EvalResult]:
    from huggingface_hub import EvalResult

    return [
        EvalResult(
            task_type=task,
            dataset_type=_HUB_DATA.get(number.data, number.data),
            dataset_name=number.data,
            dataset_split=number.split,
            metric_type=number.name,
            metric_name=f"{number.name} ({', '.join(filter(None, (number.unit, number.kind)))})",
            metric_value=number.value,
            metric_args={"n": number.n, "seed": number.seed, "error": number.error, **_settings(number)},
        )
        for number in numbers
    ]


def _metadata(checkpoint: Checkpoint, name: str) -> str:
    from huggingface_hub import ModelCardData

    task = DRAWING if "GenerativeModel" in checkpoint.capabilities else "image-classification"
    papers = re.findall(r"https://arxiv\.org/abs/([\d.]+\d)", about(checkpoint))
    results = _results(checkpoint.numbers, task)
    data = ModelCardData(
        model_name=name,
        library_name="generative-zoo",
        library_version=__version__,
        license=checkpoint.licence,
        pipeline_tag=task,
        datasets=_HUB_DATA.get(checkpoint.data_name),
        tags=["pytorch-lightning", "generative-modeling", checkpoint.family, *(f"arxiv:{paper}" for paper in papers)],
        eval_results=results or None,
    )
    return str(data.to_yaml())


def _snippet(checkpoint: Checkpoint) -> list[str]:
    """Python lines that load the model and use what it can do."""
    from zoo.module import usage_of

    package, colon, _ = checkpoint.class_name.partition(":")
    plugins = f", plugins=[{json.dumps(package)}]" if colon else ""
    load = f"model = Zoo.load({json.dumps(checkpoint.source)}{plugins})"
    usage = usage_of(checkpoint.model_class())
    return ["import torch", "from zoo import Zoo", "", load, *usage]


def _exports(checkpoint: Checkpoint) -> list[str]:
    """How to write a method of the model as a file, and how to run the file without the zoo."""
    from zoo.graphs import METHODS, inputs_of, methods_of

    cls = checkpoint.model_class()
    if not (methods := methods_of(cls)):
        return []
    first, *others = methods
    method, inputs = METHODS[first], inputs_of(cls, first)
    if cls.lacks_onnx:
        kind, file = "torch-export", f"{checkpoint.name}.pt2"
        begin = ["import torch", "", f'graph = torch.export.load("{file}").module()']
        run = f"{method.output} = graph({', '.join(inputs)})"
    else:
        kind, file = "onnx", f"{checkpoint.name}.onnx"
        begin = ["import onnxruntime", "", f'session = onnxruntime.InferenceSession("{file}")']
        arrays = ", ".join(f'"{name}": {name}' for name in inputs)
        run = f"({method.output},) = session.run(None, {{{arrays}}})"
    package, colon, _ = checkpoint.class_name.partition(":")
    command = f"zoo export {checkpoint.source} --to {kind} --out {file}" + (f" --plugin {package}" if colon else "")
    lines = ["## Without the zoo", "", "```bash", command, "```", ""]
    meaning = method.meaning.replace("p(x)", "p(x | labels)") if "labels" in inputs else method.meaning
    lines += ["```python", *begin, f"{run}  # {meaning}", "```", ""]
    more = f" `--method` selects another one: {', '.join(f'`{name}`' for name in others)}." if others else ""
    kinds = "float32, and `labels` are int64" if "labels" in inputs else "float32"
    text = f"The file holds `{first}`. Inputs are {kinds}; their first dimension is the batch."
    return [*lines, f"{text} The command prints their shapes.{more}", ""]


def _numbers(checkpoint: Checkpoint) -> list[str]:
    """A table of the numbers, the facts that hold for all of them, and the commands that recompute them."""
    if not checkpoint.numbers:
        return ["No number has been measured.", ""]
    lines = ["| number | value | unit | kind | n | data | settings |", "| --- | --- | --- | --- | --- | --- | --- |"]
    for number in checkpoint.numbers:
        settings = [f"{key} {_short(value)}" for key, value in _settings(number).items()]
        if spread := number.details.get("sampling_seeds"):
            settings.append(f"mean of {spread['n']} sampling seeds, their standard deviation {spread['std']:.2g}")
        value, data = rounded(number.value, number.error), f"{number.data} {number.split}"
        cells = (number.name, value, number.unit, number.kind, number.n, data, ", ".join(settings))
        lines.append(f"| {' | '.join(map(str, cells))} |")
    lines.append("")
    for number in checkpoint.numbers:
        if number.by_class:
            lines += [f"`{number.name}` of each class, in {number.unit}: {number.by_class}.", ""]
    details = [number.details for number in checkpoint.numbers if "extractor" in number.details]
    for name, digest in sorted({(d["extractor"], d.get("extractor_sha256")) for d in details}, key=str):
        lines += [f"Extractor `{name}`: sha256 `{digest}`.", ""]
    return [*lines, f"Recompute them with {' and '.join(f'`{command}`' for command in checkpoint.commands)}.", ""]


def _settings(number: Measurement) -> dict[str, Any]:
    """The plain details of how a number was measured, without hashes, which are listed once below the table."""
    plain = {key: value for key, value in number.details.items() if not isinstance(value, dict | list)}
    return {key: value for key, value in plain.items() if not key.endswith("sha256")}


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
