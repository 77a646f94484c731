"""Options that several commands share, and what their values mean."""

from __future__ import annotations

import argparse
import glob
import math
import os
import re
import sys
from argparse import ArgumentTypeError
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from zoo.cli.command import Part, default, option
from zoo.config import bind, brief, near
from zoo.errors import ConfigError
from zoo.files import check_exists, expand

if TYPE_CHECKING:
    from torch import Generator

    from zoo.capabilities import GenerativeModel
    from zoo.given import Given
    from zoo.module import ZooModule
    from zoo.samplers.base import Sampler
    from zoo.store.checkpoint import Checkpoint

MOST = 100_000  # largest number of images in a picture: as many digits of MNIST are 19,000 pixels high and wide


# ----------------------------------------------------------------------------------------------------- types of values


def whole(least: int = 1, most: int = MOST) -> Callable[[str], int]:
    """The type of an option that is a whole number within bounds."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise ArgumentTypeError(f"expected a whole number, found {text[:60]!r}") from None
        if not least <= value <= most:
            bound = f"at least {least}" if value < least else f"at most {most}"
            raise ArgumentTypeError(f"expected {bound}, found {text[:60]}")
        return value

    return parse


def seed(text: str) -> int:
    """A seed for `torch.Generator`."""
    try:
        return whole(-(2**63), 2**63 - 1)(text)
    except ArgumentTypeError:
        raise ArgumentTypeError(f"expected a whole number of at most 64 bits, found {text[:60]!r}") from None


def number(text: str) -> float:
    """A finite number in the range of float32."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not abs(value) <= 3.4e38:
        raise ArgumentTypeError(f"expected a finite number of at most 3.4e38, found {text[:60]!r}")
    return value


def one_of(what: str, names: Collection[str]) -> Callable[[str], str]:
    """The type of an option that is one of some names."""

    def parse(text: str) -> str:
        if text not in names:
            raise ArgumentTypeError(f"no {what} is called {brief(text)}; {near(text, names)}")
        return text

    return parse


def fraction(text: str) -> float:
    """A number in [0, 1]."""
    if not 0 <= (value := number(text)) <= 1:
        raise ArgumentTypeError(f"expected a fraction between 0 and 1, found {text[:60]}")
    return value


def device(text: str) -> str:
    """The name of a device that this machine may have, as far as can be told without importing torch."""
    where = re.fullmatch(r"(cpu|cuda|mps|xpu|hpu|mtia|xla|meta|privateuseone)(:\d+)?", text)
    if where is None:
        raise ArgumentTypeError(f"expected a device of this machine such as 'cpu', found {brief(text)}")
    if where[1] == "cuda" and sys.platform == "linux" and not any(map(glob.glob, _GPUS)):
        raise ArgumentTypeError(f"expected a device of this machine such as 'cpu', found {text!r}: there is no GPU")
    return text


_GPUS = ("/dev/nvidia*", "/dev/nvhost*", "/dev/nvgpu*", "/dev/nvmap", "/dev/kfd", "/dev/dxg")
"""Device files of the GPUs that torch calls cuda; Linux has one of them for each driver."""


def sampler(text: str) -> str:
    """The name of a sampler."""
    import zoo.samplers

    names = {title.lower() for title in dir(zoo.samplers)} - {"sampler", "named"}
    return one_of("sampler", names)(text)


# ------------------------------------------------------------------------------------------------------ shared options


def name(text: str, **settings: Any) -> Part:
    """NAME, a checkpoint, and `--plugin`, the packages whose classes it may use; see `checkpoint_of`."""

    def add(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("name", metavar="NAME", help=text, **settings)
        PLUGIN(parser)

    return add


PLUGIN = option(
    "--plugin",
    dest="plugins",
    metavar="PACKAGE",
    action="append",
    default=[],
    help="Installed package whose model classes may be used; can be given several times",
)
NAME = name("Checkpoint: a name of `zoo list`, local-dir:PATH or hf-hub:USER/REPO@TAG")
SEED = option("--seed", type=seed, default=0, help="Seed for all random draws (default %(default)s)")
DEVICE = option("--device", type=device, default="cpu", help="Device to compute on, such as cuda (default %(default)s)")
JSON = option("--json", action="store_true", help="Print JSON, for programs")


def labels(otherwise: str) -> Part:
    """`--label`, the classes to draw from a conditional model; `otherwise` says what is drawn without it."""
    return option(
        "--label",
        "--labels",
        dest="labels",
        type=lambda text: text.split(","),
        metavar="LABEL",
        help="Class to draw from a conditional model, or several in turn, by number or name, such as 3,7 or cat,dog "
        f"(default: {otherwise})",
    )


LABELS = labels("every class in turn")
SHARED = default(is_shared=True)
"""The processes that torchrun or srun started for the command share its work."""


def num(value: int, what: str = "images") -> Part:
    """`--num`, the number of images of a picture."""
    return option("-n", "--num", type=whole(), default=value, help=f"Number of {what} (default %(default)s)")


def sampling(parser: argparse.ArgumentParser) -> None:
    """`--sampler` and its arguments; see `sampler_of`."""
    add = parser.add_argument
    add(
        "--sampler",
        type=sampler,
        help="How to draw from a model with several samplers, such as ddim (default: the model's)",
    )
    add("--steps", type=whole(), help="Number of steps of --sampler (default: the sampler's)")
    add("--guidance", type=number, help="Strength of the label in --sampler: 0 ignores it, more than 1 exaggerates it")
    add("--temperature", type=number, help="Temperature of --sampler: less than 1 for likelier, less varied examples")
    add("--eta", type=fraction, help="Share of fresh noise in each step of `--sampler ddim`")


reading = (
    option("--binarize", action="store_true", help="Make pixels black or white, for models of such images"),
    option("--skip-corrupt", action="store_true", help="Leave out files that cannot be decoded"),
)
"""How images of a folder are read."""

new_shape = (
    option("--size", type=whole(most=4096), help="Height and width of the model's images, to which yours are scaled"),
    option("--grey", action="store_true", help="Convert images to grey"),
)
"""The shape of a model that does not keep that of its checkpoint."""


def own_data(parser: argparse.ArgumentParser) -> None:
    """`--data` and how the images in it are read."""
    parser.add_argument("--data", type=expand, required=True, help="Folder of images, or an .npz or .npy file")
    parser.add_argument("--resize", action="store_true", help="Bring images to the size and channels of the model")
    for part in reading:
        part(parser)


# -------------------------------------------------------------------------------------------------- what options mean


def checkpoint_of(options: argparse.Namespace) -> Checkpoint:
    """The checkpoint that NAME means. A command calls this once, before it imports torch.

    Raises:
        ConfigError: No checkpoint has this name.
        ZooError: Its files are missing or damaged, or cannot be downloaded.
    """
    if options.name.endswith(".yaml"):
        raise ConfigError(
            f"{options.command}: expected a checkpoint, found {options.name}, a recipe; train it first with "
            f"`zoo fit {options.name} --out FOLDER`, then use local-dir:FOLDER"
        )
    from zoo.store.source import checkpoint

    found = checkpoint(options.name, options.plugins)
    _ = found.class_name  # reads the configuration, so that what is no checkpoint is refused now
    if hasattr(options, "sampler"):
        _check_sampling(options, found)
    if getattr(options, "labels", None) is not None:
        options.classes = found.classes or []
    return found


def own_data_of(options: argparse.Namespace) -> Path:
    """The path of `--data`, which must exist. A command calls this before it imports torch."""
    check_exists(options.data, "a folder of images, or a .npy or .npz file")
    return cast(Path, options.data)


def _label(word: str, classes: Sequence[str]) -> int:
    """The label that a user means: a name of a class, or else a number."""
    if word in classes:
        return list(classes).index(word)
    if word.isdecimal() and int(word) <= MOST:
        return int(word)
    known = near(word, classes) if classes else "this checkpoint has no names of classes, so give a number"
    raise ConfigError(f"--label: expected the number or the name of a class, found {brief(word)}; {known}")


def given(options: argparse.Namespace, model: GenerativeModel, num: int) -> Given:
    """Keyword arguments of `model.sample` that the options ask for: labels and a sampler.

    Raises:
        ConfigError: The model does not take them.
    """
    sampler = sampler_of(options, type(model))
    return {**labels_of(options, model, num), **({} if sampler is None else {"sampler": sampler})}


def labels_of(options: argparse.Namespace, model: GenerativeModel, num: int) -> Given:
    """Labels of `num` images of a conditional model as a keyword argument, none for other models.

    Returns:
        `labels`, [num], int64: the classes of `--label` in turn, or all classes in turn.

    Raises:
        ConfigError: The model does not take labels, or not these.
    """
    import torch

    from zoo.capabilities import Conditional
    from zoo.given import check_given

    classes = None
    if options.labels is not None:
        classes = [_label(word, getattr(options, "classes", [])) for word in options.labels]
    elif isinstance(model, Conditional):
        classes = list(range(model.num_classes))
    if classes is None:
        return {}
    return check_given(model, {"labels": torch.tensor(classes)[torch.arange(num) % len(classes)]}, num)


def arguments_of_sampler(options: argparse.Namespace) -> dict[str, Any]:
    """What the options of `sampling` say, without those that say nothing."""
    values = {name: getattr(options, name) for name in ("sampler", "steps", "guidance", "temperature", "eta")}
    return {name: value for name, value in values.items() if value is not None}


def _check_sampling(options: argparse.Namespace, checkpoint: Checkpoint) -> None:
    """Refuses without importing torch what `sampler_of` would refuse for most checkpoints."""
    asked = arguments_of_sampler(options)
    if options.sampler is None and asked:
        raise ConfigError(f"--{next(iter(asked))}: expected --sampler beside it, of which this is an argument")
    if options.sampler is not None and checkpoint.entry and "Sampled" not in checkpoint.capabilities:
        title = checkpoint.class_name.rpartition(".")[2]
        raise ConfigError(f"--sampler: expected none for {title}, which has no samplers, found {options.sampler}")


def sampler_of(options: argparse.Namespace, cls: type[ZooModule]) -> Sampler | None:
    """The sampler that the options name for models of a class; None if they name none.

    Raises:
        ConfigError: There is no such sampler for the class, or it does not take such an argument.
    """
    asked = {name: value for name, value in arguments_of_sampler(options).items() if name != "sampler"}
    if options.sampler is None:
        return None
    kinds = {kind.__name__.lower(): kind for kind in getattr(cls, "samplers", ())}
    if options.sampler not in kinds:
        known = f"one of {', '.join(kinds)}" if kinds else f"none for {cls.__name__}, which has no samplers"
        raise ConfigError(f"--sampler: expected {known}, found {options.sampler}")
    kind = kinds[options.sampler]
    return kind(**bind(kind, asked, f"--sampler {options.sampler}"))


def generator(options: argparse.Namespace) -> Generator:
    """The source of all random draws of a command."""
    import torch

    return torch.Generator().manual_seed(options.seed)


# ------------------------------------------------------------------------------------------------- several processes


def meet(device: str) -> str:
    """`zoo.distributed.join`, without importing torch if this process was started alone."""
    if not _is_launched():
        return device
    from zoo.distributed import join

    return join(device)


def in_first_process(act: Callable[[], object]) -> None:
    """`zoo.distributed.on_leader`, without importing torch if this process was started alone."""
    if not _is_launched():
        act()
        return
    from zoo.distributed import on_leader

    on_leader(act)


def _is_launched() -> bool:
    """Whether torchrun or SLURM may have started this process as one of several."""
    return bool({"TORCHELASTIC_RUN_ID", "SLURM_JOB_ID"} & os.environ.keys())
