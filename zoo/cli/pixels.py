"""Draw: how images come about, pixel by pixel, by a chain or from noise, and how they are completed."""

from __future__ import annotations

import argparse
from argparse import ArgumentTypeError
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from zoo.cli.command import command, either, option
from zoo.cli.images import check_images, image_model, some_test_images
from zoo.cli.options import (
    DEVICE,
    LABELS,
    NAME,
    SEED,
    arguments_of_sampler,
    checkpoint_of,
    fraction,
    generator,
    given,
    labels,
    labels_of,
    name,
    num,
    sampler_of,
    sampling,
    whole,
)
from zoo.cli.output import out, show, write
from zoo.errors import ConfigError
from zoo.files import check_exists, expand

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from zoo.capabilities import Denoiser, GenerativeModel, Unnormalized
    from zoo.store.checkpoint import Checkpoint


@command(
    "Draw",
    NAME,
    num(10),
    option("--images", nargs="+", type=expand, metavar="FILE", help="Images of your own in place of test images"),
    either(
        option("--known", type=fraction, default=0.5, help="Fraction of the rows to keep (default %(default)s)"),
        option("--mask", type=expand, metavar="FILE", help="Picture that is white where images are drawn anew"),
    ),
    option("--draws", type=whole(), default=4, help="Number of completions of each image (default %(default)s)"),
    labels("any class that fits what is known"),
    SEED,
    out("complete.png"),
    DEVICE,
)
def complete(options: argparse.Namespace) -> None:
    """Erase a part of images and draw it anew.

    The rows are the images, what is known of them, and the completions. The lower half is erased, unless --known or
    --mask says otherwise. An image or mask of another size is brought to that of the model.
    """
    checkpoint = checkpoint_of(options)
    for file in filter(None, (options.mask, *(options.images or ()))):
        check_exists(file, "an image")

    import torch

    from zoo import latents
    from zoo.metrics.own import own_image
    from zoo.progress import bar

    model = image_model(checkpoint, options)
    if options.images:
        x = torch.stack([own_image(file, model) for file in options.images])
    else:
        x = some_test_images(checkpoint, options.num, options).x
    mask = torch.zeros(model.event_shape, dtype=torch.bool)
    if options.mask is None:
        mask[:, : round(options.known * model.event_shape[1])] = True
    else:
        mask |= _mask(options.mask, model)
    images = x.repeat(options.draws, 1, 1, 1)
    asked = {} if options.labels is None else labels_of(options, model, len(images))
    with bar("completing"):
        drawn = latents.complete(model, images, mask, generator=generator(options), **asked)
    erased = torch.where(mask, x, torch.full_like(x, 0.5))
    show(torch.cat([x, erased, drawn.cpu()]), options, columns=len(x))


def _mask(file: Path, model: GenerativeModel) -> Tensor:
    """The known pixels of a picture of an eraser, [1, H, W]: its dark ones."""
    from zoo.data.image_files import read_image

    known = read_image(file, (1, *model.event_shape[1:])) < 0.5
    if known.all():
        raise ConfigError(f"--mask: {file} has no white pixels, so that nothing is drawn anew; paint them white")
    return known


@command("Draw", NAME, num(10), SEED, out("probabilities.png"), DEVICE)
def probabilities(options: argparse.Namespace) -> None:
    """Draw images, and show what the model expected of each pixel.

    Below the images are the expectations given the pixels drawn before: the probability of white if pixels are
    binary, else the mean grey level or colour. MADE expects with the mixture of its masks, EoNADE with the ordering in
    which the image was drawn.
    """
    checkpoint = checkpoint_of(options)

    import torch

    model = image_model(checkpoint, options)
    show(torch.cat(_draws_and_expectations(model, options)[:2]), options, columns=options.num)


@command(
    "Draw",
    NAME,
    num(6),
    option("--frames", type=whole(2), default=113, help="Number of frames of the GIF, at most (default %(default)s)"),
    LABELS,
    sampling,
    option("--start", choices=("noise", "data"), default="noise", help="Where chains start (default %(default)s)"),
    SEED,
    out("animate.gif", "GIF"),
    DEVICE,
)
def animate(options: argparse.Namespace) -> None:
    """Show how a model draws, step by step, as a GIF.

    If the model draws pixel by pixel, the expectations that `zoo probabilities` shows are below the images. If it is
    an energy, the frames follow its chains; --start data begins them with training images. If it is a denoiser, the
    images that it expects are below the noisy ones. If it is a flow of points in the plane, its layers move samples and
    a grid in turn.
    """
    if options.out.suffix.lower() != ".gif":
        raise ConfigError(f"--out: expected a name that ends in .gif, found {options.out}")
    checkpoint = checkpoint_of(options)

    from zoo.capabilities import Denoiser, Unnormalized
    from zoo.pictures import animation, grid
    from zoo.plots import has_layers, layer_by_layer

    flow = checkpoint.load(device=options.device)
    if has_layers(flow):
        sampler = sampler_of(options, type(flow))
        asked: dict[str, Any] = {} if sampler is None else {"sampler": sampler}
        pictures = layer_by_layer(flow, options.frames, seed=options.seed, **asked)
        write(options.out, animation(pictures), options.overwrite, "GIF")
        return
    model = check_images(flow, options)
    films: dict[type, Any] = {Unnormalized: _chains, Denoiser: _denoising}
    film = next((film for capability, film in films.items() if isinstance(model, capability)), _pixel_by_pixel)
    frames = [grid(frame, columns=options.num, scale=3) for frame in film(checkpoint, model, options)]
    write(options.out, animation(frames), options.overwrite, "GIF")


def _pixel_by_pixel(checkpoint: Checkpoint, model: GenerativeModel, options: argparse.Namespace) -> Tensor:
    import torch

    from zoo import pixelwise

    if asked := arguments_of_sampler(options):
        raise ConfigError(
            f"--{next(iter(asked))}: {options.name} draws pixel by pixel, without a sampler; leave it out"
        )
    x, expected, order = _draws_and_expectations(model, options)
    return pixelwise.drawing(torch.cat([x, expected]), options.frames, torch.cat([order, order]))


def _chains(checkpoint: Checkpoint, model: Unnormalized, options: argparse.Namespace) -> Tensor:
    import torch

    from zoo.progress import bar
    from zoo.random import Streams, seed_from
    from zoo.samplers.chain import ChainSampler

    sampler = sampler_of(options, type(model)) or model.sampler
    assert isinstance(sampler, ChainSampler)
    if options.start == "data":
        data = checkpoint.data()
        index = data.subset("train", min(1000, len(data.split("train"))), options.seed)
        model.examples = torch.cat([batch.x for batch in data.batches("train", index=index)])
    sampler = replace(sampler, start=options.start)
    with bar("running chains"):
        return sampler.course(model, Streams(seed_from(generator(options)), range(options.num)), options.frames)


def _denoising(checkpoint: Checkpoint, model: Denoiser, options: argparse.Namespace) -> list[Tensor]:
    """At each evaluation of the network: noisy images, scaled to be seen, and what the model expects below them."""
    import torch

    from zoo import denoising
    from zoo.progress import bar

    with bar("removing noise"):
        asked = given(options, model, options.num)
        x, moments = denoising.watch(model, options.num, generator=generator(options), **asked)
    chosen = torch.linspace(0, len(moments) - 1, min(options.frames, len(moments))).long().tolist()
    frames = [torch.cat([denoising.noisy_images(model, moments[i]), moments[i].denoised]) for i in chosen]
    return [*frames, torch.cat([x, x])]


def _draws_and_expectations(model: GenerativeModel, options: argparse.Namespace) -> tuple[Tensor, Tensor, Tensor]:
    """Samples, the expectation of each pixel, and the order in which the pixels were drawn."""
    from zoo import pixelwise
    from zoo.progress import bar

    with bar("sampling"):
        x, order = pixelwise.draw(model, options.num, generator=generator(options))
    return x, pixelwise.probabilities(model, x, order), order


def _pixel(text: str) -> tuple[int, int]:
    try:
        row, column = map(int, text.split(","))
    except ValueError:
        raise ArgumentTypeError(f"expected ROW,COLUMN, such as 14,14, found {text[:60]!r}") from None
    return row, column


@command(
    "Draw",
    name("Checkpoint, or a recipe (.yaml) for the field before training"),
    num(16, "images of noise to average over"),
    option(
        "--pixel", type=_pixel, metavar="ROW,COLUMN", default="14,14", help="Position, from 0,0 (default %(default)s)"
    ),
    option("--channel", type=int, help="Channel of the pixel, from 0 (default: all, side by side)"),
    SEED,
    out("receptive-field.png"),
    DEVICE,
)
def receptive_field(options: argparse.Namespace) -> None:
    """Show by gradients which pixels a pixel depends on.

    The pixel is red. The brighter another pixel, the more the expectation of the red one changes with it. Blue pixels
    come before the red one, which does not depend on them.
    """
    model = _untrained(options) if options.name.endswith(".yaml") else image_model(checkpoint_of(options), options)

    import torch

    from zoo import pixelwise
    from zoo.pictures import field_of_sight
    from zoo.progress import bar

    row, column = options.pixel
    if options.channel is not None and not 0 <= options.channel < model.event_shape[0]:
        raise ConfigError(f"--channel: expected one between 0 and {model.event_shape[0] - 1}, found {options.channel}")
    with bar("computing gradients"):
        fields = pixelwise.receptive_field(model, row, column, num=options.num, generator=generator(options))
    pictures = [field_of_sight(*field, row, column) for field in zip(*fields, strict=True)]
    shown = pictures if options.channel is None else [pictures[options.channel]]
    show(torch.stack(shown), options, columns=len(shown), scale=10)


def _untrained(options: argparse.Namespace) -> GenerativeModel:
    """The model that a recipe describes, with the weights before training."""
    from zoo.store.building import device_of
    from zoo.training.recipe import build_model, load_recipe

    recipe = load_recipe(options.name, plugins=options.plugins)
    if "model" not in recipe:
        raise ConfigError(f"{options.name}: expected a recipe with a section 'model', found one without")
    model = build_model(recipe["model"], options.seed, options.plugins).to(device_of(options.device)).eval()
    return check_images(model, options)
