"""Draw: what the codes of a model are good for."""

from __future__ import annotations

import argparse
from argparse import ArgumentTypeError
from typing import TYPE_CHECKING

from zoo.cli.command import command, either, option
from zoo.cli.images import image_model, some_test_images
from zoo.cli.options import (
    DEVICE,
    LABELS,
    NAME,
    SEED,
    checkpoint_of,
    fraction,
    generator,
    labels_of,
    num,
    number,
    sampler_of,
    sampling,
    whole,
)
from zoo.cli.output import out, show
from zoo.errors import ConfigError
from zoo.files import check_exists, expand

if TYPE_CHECKING:
    from torch import Tensor

    from zoo.data.base import DataModule, Which


# -------------------------------------------------------------------------------------------------- walks, dimensions


@command(
    "Draw",
    NAME,
    num(8, "walks"),
    option("--steps", type=whole(2), default=10, help="Number of images per walk (default %(default)s)"),
    either(
        option("--test", action="store_true", help="Walk between test images instead of codes from the prior"),
        option("--images", nargs=2, type=expand, metavar="FILE", help="Walk between two images of your own"),
    ),
    LABELS,
    SEED,
    out("interpolate.png"),
    DEVICE,
)
def interpolate(options: argparse.Namespace) -> None:
    """Walk from code to code, one walk per row.

    A conditional model decodes a walk between test images with the label of its first one, unless --label is given.
    """
    checkpoint = checkpoint_of(options)
    for file in options.images or ():
        check_exists(file, "an image")

    import torch

    from zoo import latents
    from zoo.metrics.own import own_image

    model = image_model(checkpoint, options)
    num = 1 if options.images else options.num
    labels = labels_of(options, model, num)
    if options.images:
        if labels and options.labels is None:
            raise ConfigError(f"--images: {options.name} is conditional; give the class of your images with --label")
        x = torch.stack([own_image(file, model) for file in options.images])
        ends = latents.encode(model, x, **labels_of(options, model, 2))
    elif options.test:
        batch = some_test_images(checkpoint, 2 * num, options)
        own = model.given(batch)
        ends = latents.encode(model, batch.x, **own)
        if options.labels is None:
            labels = {name: value[:num] for name, value in own.items()}
    else:
        ends = latents.prior_codes(model, 2 * num, generator(options))
    walks = latents.interpolate(model, ends[:num], ends[num:], options.steps, **labels)
    show(walks.flatten(0, 1), options, columns=options.steps)


@command(
    "Draw",
    NAME,
    num(64, "dimensions, at most"),
    option("--steps", type=whole(), default=11, help="Number of images per row (default %(default)s)"),
    LABELS,
    SEED,
    out("traverse.png"),
    DEVICE,
)
def traverse(options: argparse.Namespace) -> None:
    """Change one dimension of a code at a time, one per row.

    From left to right, the dimension goes from -3 to 3.
    """
    checkpoint = checkpoint_of(options)

    import torch

    from zoo import latents

    model = image_model(checkpoint, options)
    code = latents.prior_codes(model, 1, generator(options))[0]
    dimensions, size = range(min(options.num, code.numel())), code.numel()
    values = torch.linspace(-3, 3, options.steps)
    rows = latents.traverse(model, code, dimensions, values, **labels_of(options, model, 1))
    show(rows.flatten(0, 1), options, columns=options.steps)
    if len(dimensions) < size:
        print(f"dimensions 0 to {len(dimensions) - 1} of {size}; --num {size} shows all")


# ------------------------------------------------------------------------------------------------ codes of test images


@command("Draw", NAME, num(10), SEED, out("reconstruct.png"), DEVICE)
def reconstruct(options: argparse.Namespace) -> None:
    """Encode and decode test images.

    The originals are above the reconstructions.
    """
    checkpoint = checkpoint_of(options)

    import torch

    from zoo import latents

    model, batch = image_model(checkpoint, options), some_test_images(checkpoint, options.num, options)
    reconstructed = latents.reconstruct(model, batch.x, **model.given(batch))
    show(torch.cat([batch.x, reconstructed.cpu()]), options, columns=options.num)


def _change(text: str) -> tuple[int, float]:
    """A dimension of a code and its new value."""
    try:
        dimension, value = text.split("=")
        return int(dimension), number(value)
    except ValueError:
        raise ArgumentTypeError(f"expected DIMENSION=VALUE, such as 3=2.5, found {text[:60]!r}") from None


@command(
    "Draw",
    NAME,
    num(10),
    either(
        option("--set", nargs="+", type=_change, metavar="DIMENSION=VALUE", help="New values of a code, such as 3=2.5"),
        option("--strength", type=fraction, help="For denoisers: how much of an image to draw anew, from 0 to 1"),
    ),
    option("--relative", action="store_true", help="Add the values of --set to the old ones"),
    option("--images", nargs="+", type=expand, metavar="FILE", help="Images of your own in place of test images"),
    LABELS,
    sampling,
    SEED,
    out("edit.png"),
    DEVICE,
)
def edit(options: argparse.Namespace) -> None:
    """Change the codes of images, or draw anew what noise hides.

    The originals are above the edited images. A denoiser adds noise to an image, such as a rough drawing, and removes
    it again: with --strength 0.6, by the last 60 % of its steps.
    """
    if options.set is None and options.strength is None:
        raise ConfigError("edit: expected --set DIMENSION=VALUE for a model with codes, or --strength for a denoiser")
    checkpoint = checkpoint_of(options)
    for file in options.images or ():
        check_exists(file, "an image")

    import torch

    from zoo import denoising, latents
    from zoo.metrics.own import own_image

    model = image_model(checkpoint, options)
    if options.images:
        x, labels = torch.stack([own_image(file, model) for file in options.images]), {}
    else:
        batch = some_test_images(checkpoint, options.num, options)
        x, labels = batch.x, model.given(batch)
    if options.images or options.labels is not None:
        labels = labels_of(options, model, len(x))
    if options.strength is None:
        edited = latents.edit(model, x, dict(options.set), relative=options.relative, **labels)
    else:
        sampler = sampler_of(options, type(model))
        classes, source = labels.get("labels"), generator(options)
        edited = denoising.edit(model, x, options.strength, labels=classes, sampler=sampler, generator=source)
    show(torch.cat([x, edited.cpu()]), options, columns=len(x))


@command(
    "Draw",
    NAME,
    num(8),
    option("--add", type=int, required=True, metavar="LABEL", help="Class that has the attribute"),
    option("--remove", type=int, metavar="LABEL", help="Class without the attribute (default: all other classes)"),
    option("--steps", type=whole(), default=7, help="Number of images per row (default %(default)s)"),
    option("--strength", type=number, default=1.5, help="How much is added in the last image (default %(default)s)"),
    SEED,
    out("attribute.png"),
    DEVICE,
)
def attribute(options: argparse.Namespace) -> None:
    """Give test images an attribute, more of it from left to right.

    Each row begins with a test image.
    """
    if options.add == options.remove:
        raise ConfigError(f"--remove: expected another label than that of --add, found {options.remove} for both")
    checkpoint = checkpoint_of(options)

    import torch

    from zoo import latents

    model, data = image_model(checkpoint, options), checkpoint.data()
    absent = {"label": options.add, "others": True} if options.remove is None else {"label": options.remove}
    present_images = _images_of(data, "train", 2000, options.seed, label=options.add)
    absent_images = _images_of(data, "train", 2000, options.seed, **absent)
    direction = latents.attribute(model, present_images, absent_images)
    x = _images_of(data, "test", options.num, options.seed, **absent)
    walks = latents.apply_attribute(model, x, direction, torch.linspace(0, options.strength, options.steps))
    rows = torch.cat([x[:, None], walks.cpu()], 1)
    show(rows.flatten(0, 1), options, columns=options.steps + 1)


def _images_of(data: DataModule, which: Which, num: int, seed: int, *, label: int, others: bool = False) -> Tensor:
    """At most `num` images of a class, or of all other classes, chosen with a seed."""
    labels = data.split(which).labels
    if labels is None:
        raise ConfigError(f"attribute: expected labelled data, found {data.name}, which has no labels")
    order = data.subset(which, len(labels), seed)
    is_wanted = (labels[order] == label) != others
    if not is_wanted.any():
        raise ConfigError(
            f"attribute: expected {which} images of {data.name} with {'other labels than' if others else 'label'} "
            f"{label}, found none; its labels are 0 to {int(labels.max())}"
        )
    chosen = order[is_wanted][:num]
    return next(data.batches(which, index=chosen, batch_size=num)).x


@command("Draw", NAME, num(8), SEED, out("analogies.png"), DEVICE)
def analogies(options: argparse.Namespace) -> None:
    """Draw every class in the style of test images.

    Each row begins with a test image.
    """
    checkpoint = checkpoint_of(options)

    import torch

    from zoo import latents

    model, batch = image_model(checkpoint, options), some_test_images(checkpoint, options.num, options)
    drawn = latents.analogies(model, batch.x, batch.labels)
    rows = torch.cat([batch.x[:, None], drawn.cpu()], 1)
    show(rows.flatten(0, 1), options, columns=rows.shape[1])
