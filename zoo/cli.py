"""The `zoo` command. Heavy imports stay inside the commands, so that `zoo --help`, `list` and `info` answer at once."""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from zoo.config import parse_yaml
from zoo.errors import ConfigError, ZooError

if TYPE_CHECKING:
    from torch import Tensor

    from zoo.batch import Batch
    from zoo.capabilities import GenerativeModel
    from zoo.data.base import Which
    from zoo.measurement import Measurement
    from zoo.store.zoo import Info

Overrides = dict[str, Any]
MOST = 100_000  # of anything that a picture shows: so many digits of MNIST are a square of 19,000 pixels a side


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status: 0, or 1 after one line on standard error."""
    try:
        words, overrides = _split(sys.argv[1:] if arguments is None else arguments)
        options = _parser().parse_args(words)
        if overrides and not options.takes_overrides:
            raise ConfigError(f"--{next(iter(overrides))}: `zoo {options.command}` takes no keys of a recipe")
        options.run(options, overrides) if options.takes_overrides else options.run(options)
        sys.stdout.flush()
    except ZooError as error:
        print(f"zoo: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader of a table has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"zoo: {where}{error.strerror or error}", file=sys.stderr)
        return 1
    except (MemoryError, RuntimeError) as error:  # torch has a class of its own for GPUs alone
        if not (isinstance(error, MemoryError) or re.search("(?i)tried to allocate|out of memory", str(error))):
            raise
        print("zoo: that takes more memory than there is; ask for fewer images or steps at once", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("zoo: interrupted", file=sys.stderr)
        return 130
    return 0


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see `{self.prog} --help`")


def _parser() -> argparse.ArgumentParser:
    from zoo import __version__

    parser = _Parser(prog="zoo", description="Generative models with pretrained, verified checkpoints.")
    parser.add_argument("--version", action="version", version=f"zoo {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, run: Callable[..., None], text: str, *, overrides: bool = False) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text)
        made.set_defaults(run=run, takes_overrides=overrides)
        return made

    def pictured(
        name: str, run: Callable[..., None], text: str, num: int, what: str = "images", kind: str = "PNG"
    ) -> argparse.ArgumentParser:
        made = command(name, run, text)
        made.add_argument("name", help="a checkpoint: NAME, local-dir:PATH or hf-hub:USER/REPO@REVISION")
        made.add_argument("-n", "--num", type=int, default=num, help=f"number of {what} (default %(default)s)")
        made.add_argument("--seed", type=_seed, default=0, help="of every draw (default %(default)s)")
        made.add_argument(
            "--out", type=Path, default=Path(f"{name}.{kind.lower()}"), help=f"{kind} to write (default %(default)s)"
        )
        made.add_argument("--overwrite", action="store_true", help="replace what is there")
        made.add_argument("--device", default="cpu")
        return made

    def trained(name: str, run: Callable[..., None], text: str) -> argparse.ArgumentParser:
        made = command(name, run, text, overrides=True)
        made.add_argument(
            "--out", type=Path, required=True, help="checkpoint folder to write; the run stays in OUT.run"
        )
        made.add_argument("--seed", type=_seed, help="in place of the recipe's")
        made.add_argument("--resume", action="store_true", help="go on with the run in OUT.run")
        made.epilog = "--SECTION.KEY VALUE sets a key of the recipe: --trainer.devices 2 --optimization.lr 1e-4"
        return made

    listing = command("list", _list, "list the pretrained checkpoints")
    listing.add_argument("pattern", nargs="?", default="*", help="such as 'vae-*'")
    listing.add_argument("--capability", help="a type of zoo.capabilities, such as EvidenceLowerBound")
    listing.add_argument("--data", help="a data set, such as binarized-mnist")
    listing.add_argument("--family", help="a part of the zoo, such as autoregressive")
    listing.add_argument("--json", action="store_true")

    info = command("info", _info, "show a checkpoint: numbers, recipe, size, licence")
    info.add_argument("name")
    info.add_argument("--json", action="store_true")

    sample = pictured("sample", _sample, "draw images", 64)
    sample.set_defaults(out=Path("samples.png"))
    sample.add_argument(
        "--expected", action="store_true", help="draw codes, and show the expected image of each without pixel noise"
    )
    interpolate = pictured("interpolate", _interpolate, "walk from code to code, one walk a row", 8)
    interpolate.add_argument("--steps", type=int, default=10, help="images a walk (default %(default)s)")
    ends = interpolate.add_mutually_exclusive_group()
    ends.add_argument("--test", action="store_true", help="between test images in place of codes from the prior")
    ends.add_argument("--images", nargs=2, metavar="FILE", help="between two images of your own")
    pictured("reconstruct", _reconstruct, "encode and decode test images: originals above reconstructions", 10)
    traverse = pictured(
        "traverse", _traverse, "change one dimension of a code at a time, one a row", 64, "dimensions, at most"
    )
    traverse.add_argument("--steps", type=int, default=11, help="images a row (default %(default)s)")
    edit = pictured("edit", _edit, "change dimensions of the codes of test images: originals above edited ones", 10)
    edit.add_argument("--set", nargs="+", type=_change, required=True, metavar="DIMENSION=VALUE", help="such as 3=2.5")
    edit.add_argument("--relative", action="store_true", help="add to the old values")
    attribute = pictured("attribute", _attribute, "give test images an attribute, more of it from left to right", 8)
    attribute.add_argument("--add", type=int, required=True, metavar="LABEL", help="class that has the attribute")
    attribute.add_argument("--remove", type=int, metavar="LABEL", help="class that has not; by default, all others")
    attribute.add_argument("--steps", type=int, default=7, help="images a row (default %(default)s)")
    attribute.add_argument("--strength", type=_number, default=1.5, help="of the last (default %(default)s)")
    pictured("analogies", _analogies, "the style of test images in every class, one style a row", 8)
    neighbours = pictured("neighbours", _neighbours, "samples beside their nearest training images: memorised?", 8)
    neighbours.add_argument("--k", type=int, default=8, help="training images a sample (default %(default)s)")
    neighbours.add_argument("--by", default="pixels", help="pixels, or a classifier for its features: lenet-mnist")
    neighbours.add_argument("--draws", type=int, default=1000, help="samples to compare with test images")
    for made, default in (
        (sample, "one after the other"),
        (interpolate, "one after the other, or that of the test image where a walk begins"),
        (traverse, "0"),
    ):
        made.add_argument("--label", type=int, help=f"class, for conditional models; by default, {default}")
    complete = pictured("complete", _complete, "erase the lower part of test images and sample it anew", 10)
    complete.add_argument("--known", type=float, default=0.5, help="part of the rows that stays (default %(default)s)")
    complete.add_argument("--draws", type=int, default=4, help="completions of each image (default %(default)s)")

    likely = pictured("probabilities", _probabilities, "draw images: draws above what was expected of each pixel", 10)
    animate = pictured(
        "animate", _animate, "draw images pixel by pixel, above what was expected of each: a GIF", 6, kind="GIF"
    )
    likely.epilog = animate.epilog = (
        "What a model expects of a pixel, given the pixels that came before: the probability of white where pixels are "
        "binary, else the mean grey level or colour. Of a mixture (MADE) that of the whole mixture, of an ensemble of "
        "orderings (EoNADE) that of the ordering in which the image was drawn."
    )
    animate.add_argument("--frames", type=int, default=113, help="pictures of the GIF (default %(default)s)")
    field = pictured("receptive-field", _receptive_field, "what a pixel sees, by gradients", 16)
    field.add_argument("--pixel", default="14,14", help="ROW,COLUMN, from 0,0 on (default %(default)s)")
    field.add_argument("--channel", type=int, help="of the pixel, from 0 on; by default, all, side by side")
    field.epilog = (
        "How much what is expected of the red pixel changes with each other one, the brighter the more; blue are those "
        "that come before and are not seen. NAME may be a recipe (.yaml) too, for the field before training; --num "
        "images of noise are averaged over."
    )

    fit = trained("fit", _fit, "train what a recipe describes")
    fit.add_argument("recipe", type=Path, help="such as the recipe.yaml of a checkpoint")

    finetune = trained("finetune", _finetune, "adapt a checkpoint to your own images or arrays")
    finetune.add_argument("name", help="a checkpoint: NAME, local-dir:PATH or hf-hub:USER/REPO@REVISION")
    finetune.add_argument("--data", type=Path, required=True, help="a folder of images, or an .npz or .npy file")
    finetune.add_argument("--epochs", type=int, default=10, help="passes over the data (default %(default)s)")
    finetune.add_argument("--resize", action="store_true", help="bring images to the model's size and channels")
    finetune.add_argument("--binarize", action="store_true", help="make pixels black or white, for binary models")
    finetune.add_argument("--skip-corrupt", action="store_true", help="leave out files that cannot be decoded")

    evaluate = command("evaluate", _evaluate, "recompute a checkpoint's numbers and compare them with its record")
    evaluate.add_argument("name")
    evaluate.add_argument("--only", nargs="+", help="likelihood, quality, accuracy, reconstruction, outliers")
    evaluate.add_argument("--k", type=int, help="importance samples")
    evaluate.add_argument("--num", type=int, help="images for sample quality")
    evaluate.add_argument("--sampling-seeds", type=int, help="sets of samples for the spread of the FID (default 1)")
    evaluate.add_argument("--slice", action="store_true", help="a few seeded examples only: a check in seconds")
    evaluate.add_argument("--write", action="store_true", help="put the numbers and a picture into the folder")
    evaluate.add_argument("--device", default="cpu")
    evaluate.add_argument("--json", action="store_true")

    reproduce = command("reproduce", _reproduce, "recompute a table of the literature from the checkpoints")
    reproduce.add_argument(
        "table", help="mnist-nll, mnist-bpd, cifar10-bpd, mnist-fid, fashion-mnist-fid, outliers or taxonomy"
    )
    reproduce.add_argument("--k", type=int, help="importance samples per image, in place of those that take minutes")
    reproduce.add_argument(
        "--recorded", action="store_true", help="what the checkpoints record, without recomputing it"
    )
    reproduce.add_argument("--slice", action="store_true", help="on a few seeded examples only: a check in seconds")
    reproduce.add_argument("--device", default="cpu")
    reproduce.add_argument("--json", action="store_true")

    score = command("score", _score, "rank your own images by their likelihood: a table and a sheet, odd ones first")
    score.add_argument("name", help="a checkpoint with a density or a bound: NAME, local-dir:PATH or hf-hub:...")
    score.add_argument("--data", type=Path, required=True, help="a folder of images, or an .npz or .npy file")
    score.add_argument("--out", type=Path, default=Path("scores.csv"), help="CSV to write (default %(default)s)")
    score.add_argument("--sheet", type=Path, help="PNG to write (default: beside the CSV)")
    score.add_argument("--overwrite", action="store_true", help="replace what is there")
    score.add_argument("--num", type=int, default=64, help="images of the sheet (default %(default)s)")
    score.add_argument("--k", type=int, default=100, help="importance samples (default %(default)s)")
    score.add_argument("--resize", action="store_true", help="bring images to the model's size and channels")
    score.add_argument("--binarize", action="store_true", help="make pixels black or white, for binary models")
    score.add_argument("--skip-corrupt", action="store_true", help="leave out files that cannot be decoded")
    score.add_argument("--seed", type=_seed, default=0, help="of every draw (default %(default)s)")
    score.add_argument("--device", default="cpu")

    pull = command("pull", _pull, "download a checkpoint from the Hugging Face Hub and verify it")
    pull.add_argument("name", help="hf-hub:USER/REPO@REVISION; REVISION is a tag or a commit, else the newest")

    push = command("push", _push, "publish a checkpoint on the Hugging Face Hub: verified, in one commit, tagged")
    push.add_argument("name", nargs="?", help="a checkpoint folder, or the NAME of a pretrained one")
    push.add_argument("repo", nargs="?", help="USER/NAME; created if there is none")
    push.add_argument("--private", action="store_true", help="visible to its owner alone")
    push.add_argument("--pull-request", action="store_true", help="propose it to an existing repository")
    push.add_argument("--all", action="store_true", help="every pretrained checkpoint, pinning each in the registry")
    push.add_argument("--namespace", metavar="ORG", help="where --all puts them, as ORG/NAME")
    push.epilog = "Log in with `hf auth login`, or set HF_TOKEN. Repeating an interrupted push completes it."
    return parser


def _seed(text: str) -> int:
    """A seed as PyTorch takes it."""
    if not (text.removeprefix("-").isdecimal() and -(2**63) <= int(text) < 2**63):
        raise argparse.ArgumentTypeError(f"expected a whole number of at most 64 bits, found {text[:60]!r}")
    return int(text)


def _number(text: str) -> float:
    """A finite number that float32 holds."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not abs(value) <= 3.4e38:
        raise argparse.ArgumentTypeError(f"expected a finite number of at most 3.4e38, found {text[:60]!r}")
    return value


def _change(text: str) -> tuple[int, float]:
    """A dimension of a code and its new value."""
    try:
        dimension, value = text.split("=")
        return int(dimension), _number(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected DIMENSION=VALUE, such as 3=2.5, found {text[:60]!r}") from None


def _split(arguments: Sequence[str]) -> tuple[list[str], Overrides]:
    """Words for argparse, and {"section.key": value} of --section.key value or --section.key=value, read as YAML."""
    words: list[str] = []
    overrides: Overrides = {}
    rest = iter(arguments)
    for word in rest:
        key, equals, value = word.partition("=")
        if not (key.startswith("--") and "." in key):
            words.append(word)
            continue
        if not equals and ((value := next(rest, "--")).startswith("--")):
            raise ConfigError(f"{key}: expected a value after it, found {'none' if value == '--' else value}")
        overrides[key[2:]] = parse_yaml(f"value: {value}", key)["value"]
    return words, overrides


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2))


# ------------------------------------------------------------------------------------------------------ looking around


def _list(options: argparse.Namespace) -> None:
    from zoo.store.zoo import Zoo

    names = Zoo.list(options.pattern, capability=options.capability, data=options.data, family=options.family)
    if options.json:
        _print_json([Zoo.info(name).to_dict() for name in names])
        return
    if not names:
        raise ConfigError(
            f"list: no checkpoint matches {options.pattern!r} and the options beside it; a pattern is such as 'vae-*', "
            "and `zoo list` shows all"
        )
    width = max(map(len, names))
    for name in names:
        info = Zoo.info(name)
        print(f"{name:{width}} {info.capabilities[0]:20} {info.size / 1e6:5.1f} MB  {_headline(info.numbers)}")


def _headline(numbers: list[dict[str, Any]]) -> str:
    """The likelihood, or else its bound or an accuracy, and the FID among the numbers, shortly."""
    from zoo.measurement import Measurement

    shown = [m for m in map(Measurement.from_dict, numbers) if m.split == "test"]
    named = [[m for m in shown if m.name == name][-1:] for name in ("nll", "neg_elbo", "accuracy", "class_accuracy")]
    best = next(filter(None, named), []) + [m for m in shown if m.name == "fid"][:1]
    return ", ".join(f"{m.name} {m.value:.4g}{' ' + m.unit if m.unit else ''} ({m.kind})" for m in best)


def _info(options: argparse.Namespace) -> None:
    from zoo.store.zoo import Zoo

    info = Zoo.info(options.name)
    _print_json(info.to_dict()) if options.json else print(info)


def _pull(options: argparse.Namespace) -> None:
    from zoo.store.zoo import Zoo

    Zoo.load(options.name)
    print(Zoo.info(options.name).folder)


def _push(options: argparse.Namespace) -> None:
    from zoo.store.zoo import Zoo

    if options.all:
        if options.namespace is None or options.name or options.pull_request:
            raise ConfigError("--all: expected `zoo push --all --namespace ORG`, with --private or without")
        for pushed in Zoo.push_all(options.namespace, private=options.private):
            print(pushed, flush=True)
        return
    if options.repo is None or options.namespace:
        raise ConfigError("push: expected `zoo push FOLDER USER/NAME`, or `zoo push --all --namespace ORG`")
    print(Zoo.push(options.name, options.repo, private=options.private, pull_request=options.pull_request))


# ------------------------------------------------------------------------------------------------------------ pictures


def _load(options: argparse.Namespace, or_recipe: bool = False) -> GenerativeModel:
    """The model of a checkpoint; or that of a recipe, before training, where such a model has something to show."""
    from zoo.capabilities import GenerativeModel
    from zoo.store import checkpoint
    from zoo.store.zoo import Zoo

    for name in ("num", "steps", "draws", "k", "frames"):
        if not 1 <= (found := getattr(options, name, 1)) <= MOST:
            raise ConfigError(f"--{name}: expected {'at least 1' if found < 1 else f'at most {MOST}'}, found {found}")
    _check_place(options.out, options.overwrite)
    if options.name.endswith(".yaml"):
        if not or_recipe:
            raise ConfigError(
                f"{options.command}: expected a checkpoint, found {options.name}, a recipe; train it first, by "
                f"`zoo fit {options.name} --out FOLDER`, and name local-dir:FOLDER"
            )
        from zoo.training.recipe import build_model, load_recipe

        recipe = load_recipe(options.name)
        if "model" not in recipe:
            raise ConfigError(f"{options.name}: expected a recipe with a section 'model', found one without")
        model = build_model(recipe["model"], options.seed).to(checkpoint.device_of(options.device)).eval()
    else:
        model = Zoo.load(options.name, device=options.device)
    if not isinstance(model, GenerativeModel) or len(model.event_shape) != 3:
        raise ConfigError(f"{options.name}: expected a model of images, found {type(model).__name__}, which draws none")
    return model


def _check_place(path: Path, overwrite: bool, what: str = "a picture") -> None:
    """ConfigError where something cannot be written, or is in the way: before the work, not after it."""
    from PIL import Image

    around = next(folder for folder in path.absolute().parents if folder.exists())
    reason, advice = "", "choose another --out"
    if path.is_dir():
        reason = "a folder is there"
    elif path.exists() and not overwrite:
        reason, advice = "a file is there", "choose another --out, or replace it with --overwrite"
    elif not around.is_dir():
        reason = f"{around} is no folder"
    elif not os.access(path if path.exists() else around, os.W_OK):
        reason = f"{path if path.exists() else around} is not yours to write"
    elif what != "a table" and Image.registered_extensions().get(path.suffix.lower()) not in Image.SAVE:
        reason = f"unknown file extension: {path.suffix}"
    if reason:
        raise ConfigError(f"{path}: cannot write {what} there: {reason}; {advice}")


@contextmanager
def _writing(path: Path, what: str = "a picture") -> Iterator[Path]:
    """A place to write to; what goes wrong there is said in a sentence, what goes well is named on standard output."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield path
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot write {what} there: {error}; choose another --out") from error
    print(path)


def _write(images: Tensor, options: argparse.Namespace, columns: int | None = None, scale: int = 2) -> None:
    from zoo.pictures import save_grid

    if images.isnan().any():
        raise ConfigError(f"{options.name}: the model finds pixels that are no numbers; choose smaller values")
    with _writing(options.out) as path:
        save_grid(images, path, columns=columns, scale=scale)


def _test_batch(options: argparse.Namespace, num: int | None = None) -> Batch:
    """Seeded test images of the data set that the checkpoint was trained on."""
    from zoo.metrics.evaluate import data_of

    data, num = data_of(options.name), options.num if num is None else num
    index = data.subset("test", num, options.seed)
    return next(data.batches("test", index=index, batch_size=num))


def _labels(model: GenerativeModel, options: argparse.Namespace, num: int) -> Tensor | None:
    """Labels of `num` codes: the one asked for, or else class after class; None where a model takes none."""
    import torch

    from zoo.capabilities import Conditional

    if options.label is None:
        return torch.arange(num) % model.num_classes if isinstance(model, Conditional) else None
    if not isinstance(model, Conditional):
        raise ConfigError(f"--label: {options.name} is not conditional: expected none, found {options.label}")
    return torch.full((num,), options.label)


def _own_labels(model: GenerativeModel, batch: Batch) -> Tensor | None:
    """Labels of images of the data set, if the model takes any."""
    return model.given(batch).get("labels")


def _generator(options: argparse.Namespace) -> Any:
    import torch

    return torch.Generator().manual_seed(options.seed)


def _codes(model: GenerativeModel, num: int, generator: Any) -> Tensor:
    """Codes drawn from the prior, one stream of noise each: those from which `sample` makes its draws."""
    from zoo import latents
    from zoo.random import Streams, seed_from

    return latents.draw_codes(model, Streams(seed_from(generator), range(num)))


def _sample(options: argparse.Namespace) -> None:
    import torch

    from zoo import latents
    from zoo.distributed import gather, is_leader, join, on_leader, share
    from zoo.pictures import pixels
    from zoo.progress import bar

    options.device = join(options.device)
    model = _load(options)
    mine, labels = share(options.num), _labels(model, options, options.num)
    if options.expected:
        codes = _codes(model, options.num, _generator(options))[mine]
        given = None if labels is None else labels[mine]
        batches = [
            pixels(latents.decode(model, codes[rows], labels=None if given is None else given[rows]))
            for rows in torch.arange(len(mine)).split(250)
        ]
    else:
        chosen: dict[str, Any] = {} if labels is None else {"labels": labels}
        samples = model.iter_samples(options.num, generator=_generator(options), positions=mine, **chosen)
        with bar("sampling", shown=is_leader()):
            batches = [pixels(batch) for batch in samples]
    images = gather(torch.cat(batches), options.num)
    on_leader(lambda: _write(images, options))


def _interpolate(options: argparse.Namespace) -> None:
    import torch

    from zoo import latents

    if options.steps < 2:
        raise ConfigError(f"--steps: expected at least 2, the two ends, found {options.steps}")
    model = _load(options)
    options.num = 1 if options.images else options.num
    labels = _labels(model, options, options.num)
    if options.images:
        if labels is not None and options.label is None:
            raise ConfigError(f"--images: {options.name} is conditional: say the class of your images with --label")
        x = torch.stack([_own_image(path, model, options) for path in options.images])
        ends = latents.encode(model, x, labels=options.label)
    elif options.test:
        batch = _test_batch(options, 2 * options.num)
        own = _own_labels(model, batch)
        ends = latents.encode(model, batch.x, labels=own)
        labels = own[: options.num] if own is not None and options.label is None else labels
    else:
        ends = _codes(model, 2 * options.num, _generator(options))
    walks = latents.interpolate(model, ends[: options.num], ends[options.num :], options.steps, labels=labels)
    _write(torch.flatten(walks, 0, 1), options, columns=options.steps)


def _own_image(path: str, model: GenerativeModel, options: argparse.Namespace) -> Tensor:
    """An image of the user's as the model knows images: of its shape, and binary where its data are."""
    from zoo.data.own import read_image
    from zoo.metrics.evaluate import data_of

    x = read_image(path, model.event_shape)
    return (x >= 0.5).float() if data_of(options.name).levels == 2 else x


def _reconstruct(options: argparse.Namespace) -> None:
    import torch

    from zoo import latents

    model, batch = _load(options), _test_batch(options)
    reconstructed = latents.reconstruct(model, batch.x, labels=_own_labels(model, batch))
    _write(torch.cat([batch.x, reconstructed.cpu()]), options, columns=options.num)


def _traverse(options: argparse.Namespace) -> None:
    import torch

    from zoo import latents

    model = _load(options)
    code = _codes(model, 1, _generator(options))
    size = code[0].numel()
    dimensions = list(range(min(options.num, size)))
    values = torch.linspace(-3, 3, options.steps)
    rows = latents.traverse(model, code[0], dimensions, values, labels=_labels(model, options, 1))
    _write(torch.flatten(rows, 0, 1), options, columns=options.steps)
    if len(dimensions) < size:
        print(f"dimensions 0 to {len(dimensions) - 1} of {size}; --num {size} shows all")


def _edit(options: argparse.Namespace) -> None:
    import torch

    from zoo import latents

    model, batch = _load(options), _test_batch(options)
    labels = _own_labels(model, batch)
    edited = latents.edit(model, batch.x, dict(options.set), relative=options.relative, labels=labels)
    _write(torch.cat([batch.x, edited.cpu()]), options, columns=options.num)


def _attribute(options: argparse.Namespace) -> None:
    import torch

    from zoo import latents
    from zoo.metrics.evaluate import data_of

    if options.add == options.remove:
        raise ConfigError(f"--remove: expected another label than that of --add, found {options.remove} for both")
    model, data = _load(options), data_of(options.name)

    def images(which: Which, num: int, *, label: int, others: bool = False) -> Tensor:
        """Seeded images of a class, or of all others."""
        labels = data.split(which).labels
        if labels is None:
            raise ConfigError(f"attribute: expected labelled data, found {data.name}, which has no labels")
        order = data.subset(which, len(labels), options.seed)
        is_wanted = (labels[order] == label) != others
        if not is_wanted.any():
            raise ConfigError(
                f"attribute: expected {which} images of {data.name} with {'other labels than' if others else 'label'} "
                f"{label}, found none; its labels are 0 to {int(labels.max())}"
            )
        chosen = order[is_wanted][:num]
        return next(data.batches(which, index=chosen, batch_size=num)).x

    absent: dict[str, Any] = {"label": options.remove}
    if options.remove is None:
        absent = {"label": options.add, "others": True}
    direction = latents.attribute(model, images("train", 2000, label=options.add), images("train", 2000, **absent))
    x = images("test", options.num, **absent)
    walks = latents.apply_attribute(model, x, direction, torch.linspace(0, options.strength, options.steps))
    rows = torch.cat([x[:, None], walks.cpu()], 1)
    _write(rows.flatten(0, 1), options, columns=options.steps + 1)


def _analogies(options: argparse.Namespace) -> None:
    import torch

    from zoo import latents

    model, batch = _load(options), _test_batch(options)
    drawn = latents.analogies(model, batch.x, batch.labels)
    rows = torch.cat([batch.x[:, None], drawn.cpu()], 1)
    _write(rows.flatten(0, 1), options, columns=rows.shape[1])


def _neighbours(options: argparse.Namespace) -> None:
    import torch

    from zoo.metrics.evaluate import data_of
    from zoo.metrics.extractors import load_extractor
    from zoo.metrics.memorisation import check_neighbours, neighbours
    from zoo.progress import bar

    model, data = _load(options), data_of(options.name)
    extractor = None if options.by == "pixels" else load_extractor(options.by, options.device)
    num = max(options.num, options.draws)
    check_neighbours([num, *model.event_shape], data, options.k, extractor)
    with bar("sampling"):
        samples = model.sample(num, generator=_generator(options)).cpu()
    found = neighbours(samples, data, options.k, extractor=extractor)
    nearest = data.rows("train", found.index[: options.num].flatten())
    images = data.convert(nearest.x, nearest.index, 0).view(options.num, options.k, *model.event_shape)
    _write(torch.cat([samples[: options.num, None], images], 1).flatten(0, 1), options, columns=options.k + 1)
    print(
        f"copied {found.copied:.3f}: the share of pairs of a sample and a test image in which the sample lies nearer\n"
        f"to a training image; 1 for copies, 0.5 for draws like the data, from which it lies {found.score:+.1f}\n"
        f"standard deviations away ({num} samples, {found.num_test} test images, by {options.by})"
    )


def _complete(options: argparse.Namespace) -> None:
    import torch

    from zoo import latents
    from zoo.progress import bar

    if not 0 <= options.known <= 1:
        raise ConfigError(f"--known: expected a part of the rows, between 0 and 1, found {options.known}")
    model, images = _load(options), _test_batch(options).x
    mask = torch.zeros(model.event_shape, dtype=torch.bool)
    mask[:, : round(options.known * model.event_shape[1])] = True
    with bar("completing"):
        drawn = latents.complete(model, images.repeat(options.draws, 1, 1, 1), mask, generator=_generator(options))
    erased = torch.where(mask, images, torch.full_like(images, 0.5))
    _write(torch.cat([images, erased, drawn.cpu()]), options, columns=options.num)


def _probabilities(options: argparse.Namespace) -> None:
    import torch

    from zoo import pixelwise
    from zoo.progress import bar

    model = _load(options)
    with bar("sampling"):
        x, order = pixelwise.draw(model, options.num, generator=_generator(options))
    _write(torch.cat([x, pixelwise.probabilities(model, x, order)]), options, columns=options.num)


def _animate(options: argparse.Namespace) -> None:
    import torch

    from zoo import pixelwise
    from zoo.pictures import grid, save_animation
    from zoo.progress import bar

    if options.out.suffix.lower() != ".gif":
        raise ConfigError(f"--out: expected a name that ends in .gif, the format of films, found {options.out}")
    if options.frames < 2:
        raise ConfigError(f"--frames: expected at least 2, the first and the last, found {options.frames}")
    model = _load(options)
    with bar("sampling"):
        x, order = pixelwise.draw(model, options.num, generator=_generator(options))
    both = torch.cat([x, pixelwise.probabilities(model, x, order)])
    film = pixelwise.drawing(both, options.frames, torch.cat([order, order]))
    frames = [grid(frame, columns=options.num, scale=3) for frame in film]
    with _writing(options.out) as path:
        save_animation(frames, path)


def _receptive_field(options: argparse.Namespace) -> None:
    import torch

    from zoo import pixelwise
    from zoo.pictures import field_of_sight
    from zoo.progress import bar

    try:
        row, column = map(int, options.pixel.split(","))
    except ValueError:
        raise ConfigError(f"--pixel: expected ROW,COLUMN, such as 14,14, found {options.pixel!r}") from None
    model = _load(options, or_recipe=True)
    if options.channel is not None and not 0 <= options.channel < model.event_shape[0]:
        raise ConfigError(f"--channel: expected one between 0 and {model.event_shape[0] - 1}, found {options.channel}")
    with bar("seeing"):
        fields = pixelwise.receptive_field(model, row, column, num=options.num, generator=_generator(options))
    pictures = [field_of_sight(*field, row, column) for field in zip(*fields, strict=True)]
    shown = pictures if options.channel is None else [pictures[options.channel]]
    _write(torch.stack(shown), options, columns=len(shown), scale=10)


# ------------------------------------------------------------------------------------------------ training and numbers


def _fit(options: argparse.Namespace, overrides: Overrides) -> None:
    from zoo.distributed import is_leader, join
    from zoo.store.checkpoint import read_metrics
    from zoo.training.recipe import load_recipe, make

    join()
    recipe = load_recipe(options.recipe, _seeded(options, overrides))
    with _interruptible():
        folder = make(recipe, options.out, resume=options.resume)
    if is_leader():
        print(folder)
        if not read_metrics(folder).measurements:
            print(f"now measure it: zoo evaluate local-dir:{folder} --write")


def _finetune(options: argparse.Namespace, overrides: Overrides) -> None:
    from zoo.distributed import is_leader, join
    from zoo.training.finetune import finetune

    join()
    with _interruptible():
        folder = finetune(
            options.name,
            options.data,
            options.out,
            epochs=options.epochs,
            resize=options.resize,
            binarize=options.binarize,
            skip_corrupt=options.skip_corrupt,
            resume=options.resume,
            overrides=_seeded(options, overrides),
        )
    if is_leader():
        print(folder)


def _seeded(options: argparse.Namespace, overrides: Overrides) -> Overrides:
    return overrides if options.seed is None else {**overrides, "seed": options.seed}


@contextmanager
def _interruptible() -> Iterator[None]:
    try:
        yield
    except (KeyboardInterrupt, SystemExit):  # Lightning makes the second of the first
        raise ZooError("interrupted; give the same command with --resume to go on") from None


def _evaluate(options: argparse.Namespace) -> None:
    from zoo.distributed import join, on_leader
    from zoo.metrics.evaluate import evaluate_checkpoint
    from zoo.store import checkpoint, hub
    from zoo.store.zoo import Zoo, locate

    if options.write and options.slice:
        raise ConfigError("--write: a slice is a check, not a number to record; leave out --slice")
    if options.write and (options.name.startswith(hub.PREFIX) or locate(options.name).inside):
        raise ConfigError(f"--write: expected a checkpoint of your own, found {options.name}, which is only a copy")
    device = join(options.device)  # before anything can fail in one process alone
    info = Zoo.info(options.name)
    if options.write and not os.access(info.folder, os.W_OK):
        raise ConfigError(f"--write: {info.folder} is not yours to write; copy the folder, and evaluate the copy")
    weights_sha256 = checkpoint.read_metrics(Path(info.folder)).weights_sha256 if options.write else ""
    found = evaluate_checkpoint(
        options.name,
        k=options.k,
        num=options.num,
        sampling_seeds=options.sampling_seeds,
        only=options.only,
        on_slice=options.slice,
        device=device,
    )
    on_leader(lambda: _report(options, info, weights_sha256, found))


def _report(options: argparse.Namespace, info: Info, weights_sha256: str, found: list[Measurement]) -> None:
    """Prints the numbers and compares them with those on record, or puts them there."""
    from zoo.measurement import Measurement, compare, recorded_value

    recorded = [Measurement.from_dict(number) for number in info.numbers]
    differences = compare(recorded, found)
    compared = sum(recorded_value(recorded, new) is not None for new in found)
    if options.json:
        numbers = [measurement.to_dict() for measurement in found]
        texts = [str(difference) for difference in differences]
        _print_json({"measurements": numbers, "compared": compared, "differences": texts})
    else:
        print("\n".join(map(str, found)) or "this model has no such numbers on these data")
    if options.write:
        _record(options, Path(info.folder), weights_sha256, found)
        return
    if different := [difference for difference in differences if difference.recorded is not None]:
        raise ZooError(
            f"{options.name}: {len(different)} of {len(found)} numbers differ from its record: "
            f"{'; '.join(map(str, different))}"
        )
    if found and not options.json:
        new = f"; {len(differences)} are not on record, and --write puts them there" if differences else ""
        said = f"no number differs from those recorded with the same settings ({compared} of {len(found)} compared)"
        print((said if compared else "nothing was compared: no number is recorded with these settings") + new)


def _record(options: argparse.Namespace, folder: Path, weights_sha256: str, found: list[Measurement]) -> None:
    """Puts new numbers of those weights in place of those of the same name, and draws the picture of the card."""
    import io

    from zoo.capabilities import GenerativeModel
    from zoo.measurement import Measurement
    from zoo.pictures import grid
    from zoo.store import checkpoint
    from zoo.store.zoo import LOCAL, Zoo

    command = f"zoo evaluate {LOCAL if options.name.startswith(LOCAL) else ''}{folder.resolve().name}"
    for flag in ("k", "num", "sampling-seeds"):
        if (value := getattr(options, flag.replace("-", "_"))) is not None:
            command += f" --{flag} {value}"
    command += f" --only {' '.join(options.only)}" if options.only else ""
    files = {}
    model = Zoo.load(options.name, device=options.device)
    if isinstance(model, GenerativeModel) and len(model.event_shape) == 3:
        picture = io.BytesIO()
        grid(_portrait(model)).save(picture, "PNG")
        files[checkpoint.SAMPLES] = picture.getvalue()
    record = checkpoint.read_metrics(folder)  # as it is now: others may have measured too
    if record.weights_sha256 != weights_sha256:
        raise ZooError(
            f"{options.name}: its weights were replaced meanwhile, so that nothing was written; measure anew"
        )
    # a number that is replaced keeps its place
    rows = {Measurement.from_dict(number).key: number for number in record.measurements}
    rows |= {measurement.key: {**measurement.to_dict(), "command": command} for measurement in found}
    checkpoint.update(folder, rows.values(), files)


def _portrait(model: GenerativeModel) -> Tensor:
    """The 64 images of the card: draws; half of them expected images of codes where draws carry pixel noise."""
    import torch

    from zoo import latents
    from zoo.capabilities import Conditional, Decoder, EvidenceLowerBound

    labels = torch.arange(64) % model.num_classes if isinstance(model, Conditional) else None
    given: dict[str, Any] = {} if labels is None else {"labels": labels}
    generators = [torch.Generator().manual_seed(0) for _ in range(2)]
    draws = model.sample(64, generator=generators[0], **given)
    if not (isinstance(model, Decoder) and isinstance(model, EvidenceLowerBound)):
        return draws
    codes = _codes(model, 32, generators[1])
    expected = latents.decode(model, codes, labels=None if labels is None else labels[:32])
    return torch.cat([expected, draws[:32]])


def _reproduce(options: argparse.Namespace) -> None:
    from zoo.distributed import is_leader, join
    from zoo.metrics.tables import reproduce

    device = join(options.device)
    table = reproduce(options.table, recompute=not options.recorded, k=options.k, on_slice=options.slice, device=device)
    if not is_leader():
        return
    _print_json(table.to_dict()) if options.json else print(table)


def _score(options: argparse.Namespace) -> None:
    from zoo.metrics.score import score

    if options.num < 1:
        raise ConfigError(f"--num: expected at least 1, found {options.num}")
    sheet = options.sheet or options.out.parent / f"{options.out.stem}.png"
    if sheet.resolve() == options.out.resolve():
        raise ConfigError(f"--out: {sheet} is where the sheet goes; name the table .csv, or the sheet with --sheet")
    _check_place(options.out, options.overwrite, "a table")
    _check_place(sheet, options.overwrite, "a sheet")
    scores = score(
        options.name,
        options.data,
        resize=options.resize,
        binarize=options.binarize,
        skip_corrupt=options.skip_corrupt,
        k=options.k,
        seed=options.seed,
        device=options.device,
    )
    with _writing(options.out, "a table") as path:
        path.write_text(scores.to_csv())
    if scores.is_visible:
        with _writing(sheet, "a sheet") as path:
            scores.sheet(options.num).save(path)


if __name__ == "__main__":
    sys.exit(main())
