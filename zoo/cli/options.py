"""Options that several commands share, and what their values mean."""

from __future__ import annotations

import argparse
import math
import os
import re
from argparse import ArgumentTypeError
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.cli.command import Part, default, option
from zoo.errors import ConfigError
from zoo.files import expand

if TYPE_CHECKING:
    from torch import Generator

    from zoo.capabilities import GenerativeModel
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


def fraction(text: str) -> float:
    """A number in [0, 1]."""
    if not 0 <= (value := number(text)) <= 1:
        raise ArgumentTypeError(f"expected a fraction between 0 and 1, found {text[:60]}")
    return value


def local(text: str) -> str:
    """A name or path that is not the address of a remote file, such as `s3://bucket/file`."""
    if re.match(r"(local-dir:)?[A-Za-z][A-Za-z0-9+.-]*://", text):
        raise ArgumentTypeError(f"expected a path on this machine, found the address {text[:60]!r}")
    return text


def local_path(text: str) -> Path:
    """A path on this machine; `~` is the home folder."""
    return expand(local(text))


# ------------------------------------------------------------------------------------------------------ shared options


def NAME(parser: argparse.ArgumentParser) -> None:  # noqa: N802 - stands among the constants
    """The checkpoint, and the packages whose classes it may use."""
    text = "Checkpoint: a name of `zoo list`, local-dir:PATH or hf-hub:USER/REPO@TAG"
    parser.add_argument("name", metavar="NAME", type=local, help=text)
    text = "Installed package whose model classes the checkpoint may use; can be given several times"
    parser.add_argument("--plugin", dest="plugins", metavar="PACKAGE", action="append", default=[], help=text)


SEED = option("--seed", type=seed, default=0, help="Seed for all random draws (default %(default)s)")
DEVICE = option("--device", default="cpu", help="Device to compute on, such as cuda (default %(default)s)")
JSON = option("--json", action="store_true", help="Print JSON, for programs")
LABELS = option(
    "--label",
    "--labels",
    dest="labels",
    type=lambda text: [whole(0)(word) for word in text.split(",")],
    metavar="LABEL",
    help="Class to draw from a conditional model, or several in turn, such as 3,7 (default: every class in turn)",
)
SHARED = default(is_shared=True)
"""The processes that torchrun or srun started for the command share its work."""


def num(value: int, what: str = "images") -> Part:
    """`--num`, the number of images of a picture."""
    return option("-n", "--num", type=whole(), default=value, help=f"Number of {what} (default %(default)s)")


def own_data(parser: argparse.ArgumentParser) -> None:
    """`--data` and how the images in it are read."""
    parser.add_argument("--data", type=local_path, required=True, help="Folder of images, or an .npz or .npy file")
    parser.add_argument("--resize", action="store_true", help="Bring images to the size and channels of the model")
    parser.add_argument("--binarize", action="store_true", help="Make pixels black or white, for models of such images")
    parser.add_argument("--skip-corrupt", action="store_true", help="Leave out files that cannot be decoded")


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

    return checkpoint(options.name, options.plugins)


def given(options: argparse.Namespace, model: GenerativeModel, num: int) -> dict[str, Any]:
    """Keyword arguments of `model.sample` that the options ask for; what else conditions draws belongs here.

    Returns:
        `labels`, [num], for a conditional model: the classes of `--label` in turn, or else all classes in turn.

    Raises:
        ConfigError: The model cannot be conditioned on what the options give.
    """
    import torch

    from zoo.capabilities import Conditional

    if not isinstance(model, Conditional):
        if options.labels is None:
            return {}
        found = ",".join(map(str, options.labels))
        raise ConfigError(f"--label: {options.name} is not conditional: expected no label, found {found}")
    classes = torch.tensor(options.labels or list(range(model.num_classes)))
    return {"labels": classes[torch.arange(num) % len(classes)]}


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
