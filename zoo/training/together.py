"""Several recipes side by side on one GPU, each step of each replayed as one CUDA graph on a stream of its own.

    python -m zoo.training.together RECIPE.yaml ... --out FOLDER --minutes 8

A small model leaves most of a GPU idle, and kernel by kernel a step of it takes longer to start than to run. Here all
recipes take the steps that `zoo fit` would take, with the same order of the data, the same noise, optimiser and
averaged weights, within the time that is given. Learning rates follow the clock: no recipe is further in its
`max_steps` than the time is, which leaves the GPU to those that are behind, and one that does not get through them ends
its schedule with the time. The recipe that a checkpoint keeps has the number of steps that were taken. Logs have losses
of training only.

For models of type `TractableDensity` that do not ask for the number of a step, as scheduled sampling does, nor order
their work by the images (nor have such teachers), on data that draw no noise.
"""

from __future__ import annotations

import argparse
import csv
import math
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from zoo.capabilities import Batch, ClosedForm, TractableDensity
from zoo.config import bind, brief
from zoo.data.base import permutation
from zoo.errors import ConfigError, ZooError
from zoo.random import Streams, key_of, mix_
from zoo.store import checkpoint
from zoo.store.checkpoint import CURVE
from zoo.store.zoo import Zoo
from zoo.training.callbacks import WeightAverage
from zoo.training.curve import draw_curve
from zoo.training.optimization import Optimization
from zoo.training.recipe import begin, build_data, check_absent, check_fit, load_recipe

AHEAD = 3  # steps of a recipe that wait on the GPU: enough to keep it busy
WARMUP = 3  # steps before one is recorded, which are taken back
EVERY = 20.0  # seconds between rows of the logs
OPTIONS = ("max_steps", "ema_decay", "precision", "sample_grids", "check_val_every_n_epoch")  # the last two do nothing


class Run:
    """A recipe on its way; on the CPU, its steps are plain ones.

    Args:
        recipe: as `load_recipe` gives it.
        device: where it is trained.

    Raises:
        ConfigError: the recipe cannot be trained so.
        DataError: its model and data do not fit each other.
    """

    def __init__(self, recipe: dict[str, Any], device: torch.device) -> None:
        self.recipe, self.name, self.device = recipe, str(recipe.get("name")), device
        self.seed, options = recipe.get("seed", 0), recipe.get("trainer") or {}
        if unknown := options.keys() - set(OPTIONS):
            raise ConfigError(f"{self.name}: trainer.{min(unknown)} is not used here, but {', '.join(OPTIONS)}")
        if not isinstance(steps := options.get("max_steps"), int) or steps < 1:
            raise ConfigError(f"{self.name}: expected trainer.max_steps, at least 1, found {brief(steps)}")
        precision, decay = options.get("precision", "32-true"), options.get("ema_decay", 0.999)
        if precision not in ("32-true", "bf16-mixed"):
            raise ConfigError(
                f"{self.name}: trainer.precision: expected 32-true or bf16-mixed, found {brief(precision)}"
            )
        self.num_steps, self.is_low = steps, precision == "bf16-mixed"
        self.decay = float(decay or 0)  # an average of decay 0 is the last weights
        self.data, model = build_data(recipe["data"], self.seed), begin(recipe, self.seed)
        if not isinstance(model, TractableDensity) or isinstance(model, ClosedForm) or self.data.draws:
            raise ConfigError(
                f"{self.name}: expected a TractableDensity that gradients train, on data without noise; train it by "
                "`zoo fit`"
            )
        check_fit(model, self.data)
        self.x, self.batch_size = self.data.split("train").x.to(device), self.data.batch_size
        if len(self.x) < self.batch_size:
            raise ConfigError(
                f"{self.name}: expected a batch_size up to the {len(self.x)} examples, found {self.batch_size}"
            )
        self.model, model.seed = model.to(device, memory_format=torch.channels_last).train(), self.seed
        self.optimization = Optimization(**bind(Optimization, recipe.get("optimization") or {}, "optimization"))
        if self.optimization.optimizer == "sgd":
            raise ConfigError(f"{self.name}: optimization.optimizer: expected adam, adamw or muon, found sgd")
        self.optimizer = self.optimization.build(model)
        self.parameters = list(model.parameters())
        self.average = [parameter.detach().clone() for parameter in self.parameters]
        # what changes from step to step lies on the device, where a graph reads it
        self.lr, self.total = torch.zeros((), device=device), torch.zeros((), device=device)
        self.key, self.index = torch.tensor(0, device=device), torch.arange(self.batch_size, device=device)
        for group in self.optimizer.param_groups:
            group["lr"], group["capturable"] = self.lr, device.type == "cuda"
        cast(Any, model).streams = lambda batch, training=True: _Keyed(self.key, batch.index)
        cast(Any, model)._trainer = _Stepless(self.name)
        self.order, self.step, self.shown, self.log = self.index, 0, 0, list[tuple[int, float]]()
        self.stream: Any = None
        if device.type == "cuda":
            self.stream, self.events = torch.cuda.Stream(device), list[torch.cuda.Event]()
            self._record()

    def _take(self) -> None:
        """A step with the examples at `index`."""
        x = self.data.convert(self.x.index_select(0, self.index), self.index, 0)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.is_low):
            loss = self.model.training_step(Batch(x, None, self.index), 0)["loss"]
        loss.backward()
        self.optimization.clip(self.optimizer)
        self.optimizer.step()
        self.total += loss.detach()

    def _record(self) -> None:
        """Makes `graph`, which takes a step."""
        begun = [parameter.detach().clone() for parameter in self.parameters]
        torch.cuda.synchronize()
        with torch.cuda.stream(self.stream):
            for _ in range(WARMUP):
                self.optimizer.zero_grad()
                self._take()
            self.optimizer.zero_grad()
            torch.cuda.synchronize()
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph, stream=self.stream):
                self._take()
            with torch.no_grad():
                torch._foreach_copy_(list[Tensor](self.parameters), begun)
                for state in self.optimizer.state.values():
                    for value in state.values():
                        value.zero_()
                self.total.zero_()
        torch.cuda.synchronize()

    def is_free(self) -> bool:
        """Whether the GPU has not too much to do for this run already."""
        return self.stream is None or len(self.events) < AHEAD or self.events[0].query()

    def advance(self, progress: float) -> None:
        """The next step, whose learning rate is that of the share `progress` of all steps."""
        with torch.cuda.stream(self.stream):
            epoch, position = divmod(self.step, len(self.x) // self.batch_size)
            if position == 0:
                self.order = permutation(len(self.x), self.data.seed, epoch).to(self.device)
            self.index.copy_(self.order[position * self.batch_size :][: self.batch_size])
            self.key.fill_(key_of(self.seed, self.step))
            at = self.step if self.step < self.optimization.warmup else round(progress * self.num_steps)
            self.lr.fill_(self.optimization.lr * self.optimization.scale(at, self.num_steps))
            if self.stream is None:
                self.optimizer.zero_grad()
                self._take()
            else:
                self.graph.replay()
            self.step += 1
            WeightAverage.update(self.average, self.parameters, self.decay, self.step)
            if self.stream is not None:
                self.events = [*self.events[1 - AHEAD :], torch.cuda.Event()]
                self.events[-1].record()

    def note(self) -> str:
        """Logs the mean loss since the last row, and gives it with the number of steps.

        Raises:
            ZooError: it is not finite.
        """
        if self.step > self.shown:
            with torch.cuda.stream(self.stream):
                loss = float(self.total) / (self.step - self.shown)
                self.total.zero_()
            self.shown = self.step
            self.log.append((self.step - 1, loss))
            if not math.isfinite(loss):
                raise ZooError(f"{self.name}: training diverged: loss is {loss} at step {self.step}")
        loss = self.log[-1][1] if self.log else math.nan
        return f"{self.name} {self.step}/{self.num_steps} {loss:.2f}"

    def export(self, folder: Path) -> None:
        """The checkpoint folder, with the averaged weights, and the log in `<folder>.run`."""
        if self.stream is not None:
            self.stream.synchronize()
        options = {**(self.recipe.get("trainer") or {}), "max_steps": self.step}
        with torch.no_grad():
            torch._foreach_copy_(list[Tensor](self.parameters), self.average)
        del self.model.streams
        self.model._trainer = None
        Zoo.save(
            self.model.cpu().eval(),
            folder,
            recipe={**self.recipe, "trainer": options},
            dtype=self.recipe.get("dtype", "float32"),
        )
        logs = folder.with_name(f"{folder.name}.run") / "logs" / "version_0" / "metrics.csv"
        logs.parent.mkdir(parents=True, exist_ok=True)
        with logs.open("w", newline="") as file:
            csv.writer(file).writerows([("step", "train/loss"), *self.log])
        if (curve := draw_curve(logs.parents[2])) is not None:
            checkpoint.update(folder, files={CURVE: curve})


class _Keyed(Streams):
    """`Streams` whose seed and step are a tensor."""

    def __init__(self, key: Tensor, index: Tensor) -> None:
        self._state = mix_(index + key)
        self._calls = 0


class _Stepless:
    """In place of a Trainer: a number of steps would stay what it is when a graph is recorded."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __getattr__(self, attribute: str) -> Any:
        raise ConfigError(f"{self.name}: its training asks for the Trainer's {attribute}; train it by `zoo fit`")


class _Once(Streams):
    """The noise of a single call, given its state."""

    def __init__(self, state: Tensor) -> None:
        self._state = state

    def next(self) -> Tensor:
        state, self._state = self._state, cast(Any, None)  # a second call fails
        return state


def compile_layers() -> None:
    """Lets torch fuse what lies between convolutions: in layers that have noise, once for all of one shape."""
    from zoo.autoregressive import color_pixelcnn, pixelcnn
    from zoo.nn.gated import GatedLayer

    torch._dynamo.config.automatic_dynamic_shapes = False
    torch._dynamo.config.recompile_limit = 64
    for kind in (GatedLayer, pixelcnn._Block):
        _compile(kind)
    embedding = torch.compile(nn.functional.embedding, dynamic=False)
    cast(Any, nn.Embedding).forward = lambda self, x: embedding(x, self.weight)
    cast(Any, color_pixelcnn).mixture_log_prob = torch.compile(color_pixelcnn.mixture_log_prob, dynamic=False)


def _compile(kind: type[nn.Module]) -> None:
    """Compiles the layers of a class, which take maps, a rate of dropout and streams."""
    original = kind.forward

    @torch.compile(dynamic=False, fullgraph=True)
    def compiled(layer: Any, maps: tuple[Tensor, ...], rate: float, state: Tensor | None) -> Any:
        return original(layer, *maps, rate, None if state is None else _Once(state))

    def forward(layer: Any, *arguments: Any) -> Any:
        *maps, rate, streams = arguments
        return compiled(layer, tuple(maps), rate, streams.next() if rate and streams is not None else None)

    cast(Any, kind).forward = forward


def train(runs: list[Run], seconds: float) -> list[Run]:
    """Takes the steps of all, for at most that long, and prints where they are; gives those that did not diverge."""
    begun = shown = time.monotonic()
    while (now := time.monotonic()) - begun < seconds and any(run.step < run.num_steps for run in runs):
        progress = (now - begun) / seconds
        for run in runs:
            if run.step < min(1.0, progress + 1e-3) * run.num_steps and run.is_free():
                run.advance(progress)
        if now - shown > EVERY:
            shown, runs = now, _noted(runs, f"{now - begun:.0f} s")
    return _noted(runs, "end")


def _noted(runs: list[Run], when: str) -> list[Run]:
    left, lines = [], []
    for run in runs:
        try:
            lines.append(run.note())
            left.append(run)
        except ZooError as error:
            lines.append(str(error))
    print(f"{when}: {', '.join(lines)}", flush=True)
    return left


def main(arguments: Iterable[str] | None = None) -> None:
    """See the module.

    Raises:
        ConfigError: there is no GPU, a recipe is no such recipe, or something is where a checkpoint would go.
    """
    parser = argparse.ArgumentParser(prog="python -m zoo.training.together", description=__doc__)
    parser.add_argument("recipes", nargs="+", metavar="RECIPE")
    parser.add_argument("--out", required=True, help="folder of the checkpoint folders to write")
    parser.add_argument("--minutes", type=float, required=True, help="time for the steps of all")
    options = parser.parse_args(None if arguments is None else list(arguments))
    if not torch.cuda.is_available():
        raise ConfigError("zoo.training.together: expected a CUDA GPU, found none; `zoo fit` trains a recipe anywhere")
    if options.minutes <= 0:
        raise ConfigError(f"--minutes: expected a positive number, found {options.minutes}")
    recipes = [load_recipe(path) for path in options.recipes]
    names = [str(recipe.get("name")) for recipe in recipes]
    if wrong := next((name for name in names if name == "None" or names.count(name) > 1), None):
        raise ConfigError(f"recipes: expected a name of its own in each, found {wrong}")
    folders = [Path(options.out) / name for name in names]
    for folder in folders:
        check_absent(folder)
        check_absent(folder.with_name(f"{folder.name}.run"))
    Path(options.out).mkdir(parents=True, exist_ok=True)
    torch.backends.cudnn.benchmark = torch.backends.cuda.matmul.allow_tf32 = True
    compile_layers()
    runs = [Run(recipe, torch.device("cuda")) for recipe in recipes]
    trained = train(runs, 60 * options.minutes)
    failed = [f"{run.name}: training diverged" for run in runs if run not in trained]
    for run in trained:
        folder = folders[runs.index(run)]
        try:
            run.export(folder)
            print(folder)
        except ZooError as error:  # the others have weights to save too
            failed.append(str(error))
    if failed:
        raise ZooError("; ".join(failed))


if __name__ == "__main__":
    try:
        main()
    except ZooError as error:
        sys.exit(f"error: {error}")
