"""Draw: samples, and whether they are copies."""

from __future__ import annotations

import argparse

from zoo.cli.command import command, default, option
from zoo.cli.images import check_images, image_model
from zoo.cli.options import (
    DEVICE,
    LABELS,
    NAME,
    SEED,
    SHARED,
    checkpoint_of,
    generator,
    given,
    num,
    sampler_of,
    sampling,
    whole,
)
from zoo.cli.output import check_place, out, show, write, write_each
from zoo.errors import ConfigError


def _check_place(options: argparse.Namespace) -> None:
    if not options.each:
        check_place(options.out, options.overwrite)
    elif options.out.exists():
        raise ConfigError(f"--out: {options.out} exists already; name a new folder for --each")


@command(
    "Draw",
    NAME,
    num(64),
    LABELS,
    sampling,
    option("--raw", action="store_true", help="Show samples with their pixel noise, also of a VAE"),
    option("--each", action="store_true", help="Write a PNG file for each image into the new folder --out"),
    SEED,
    out("samples.png"),
    default(check=_check_place),
    DEVICE,
    SHARED,
)
def sample(options: argparse.Namespace) -> None:
    """Draw images, or a plot of points, from a model.

    Samples of a VAE are images plus noise in each pixel. The command shows E[x | z], the images before the noise,
    unless --raw is given; `model.sample` of the Python interface draws with the noise.

    With --each, the images of a conditional model lie in folders named after their classes, as training data do.
    """
    checkpoint = checkpoint_of(options)

    import torch

    from zoo import latents
    from zoo.distributed import gather, is_leader, on_leader, share
    from zoo.module import GenerativeModel
    from zoo.pictures import pixels
    from zoo.plots import has_plot, plot
    from zoo.progress import bar

    model = checkpoint.load(device=options.device)
    if isinstance(model, GenerativeModel) and has_plot(model) and not options.each:
        picture = plot(model, options.num, options.seed, **given(options, model, options.num))
        on_leader(lambda: write(options.out, picture, options.overwrite))
        return
    model = check_images(model, options)
    mine, asked = share(options.num), given(options, model, options.num)
    drawn = {"generator": generator(options), "positions": mine, **asked}
    samples = (
        model.iter_samples(options.num, **drawn) if options.raw else latents.iter_clean(model, options.num, **drawn)
    )
    with bar("sampling", shown=is_leader()):
        batches = [pixels(batch) for batch in samples]
    images = gather(torch.cat(batches), options.num)
    if not options.each:
        on_leader(lambda: show(images, options))
        return
    names = [""] * options.num
    if "labels" in asked:
        classes = checkpoint.classes
        names = [classes[label] if classes else str(label) for label in asked["labels"].tolist()]
    on_leader(lambda: write_each(images, names, options.out))


@command(
    "Draw",
    NAME,
    num(8, "samples to show"),
    option("--k", type=whole(), default=8, help="Number of training images per sample (default %(default)s)"),
    option("--by", metavar="NAME", default="pixels", help="Compare pixels, or features of a classifier: lenet-mnist"),
    option("--draws", type=whole(), default=1000, help="Number of samples to measure with (default %(default)s)"),
    SEED,
    out("neighbours.png"),
    DEVICE,
)
def neighbours(options: argparse.Namespace) -> None:
    """Show samples beside their nearest training images.

    This tells whether a model copies its training images; the command also prints how often it does.
    """
    checkpoint = checkpoint_of(options)

    import torch

    from zoo.metrics.extractors import load_extractor
    from zoo.metrics.memorisation import check_neighbours, neighbours
    from zoo.progress import bar

    model, data = image_model(checkpoint, options), checkpoint.data()
    extractor = None if options.by == "pixels" else load_extractor(options.by, options.device)
    num = max(options.num, options.draws)
    check_neighbours([num, *model.event_shape], data, options.k, extractor)
    with bar("sampling"):
        samples = model.sample(num, generator=generator(options)).cpu()
    found = neighbours(samples, data, options.k, extractor=extractor)
    nearest = data.rows("train", found.index[: options.num].flatten())
    images = data.convert(nearest.x, nearest.index, 0).view(options.num, options.k, *model.event_shape)
    show(torch.cat([samples[: options.num, None], images], 1).flatten(0, 1), options, columns=options.k + 1)
    print(
        f"copied {found.copied:.3f}: fraction of the pairs of a sample and a test image in which the sample is nearer\n"
        f"to a training image. Copies have 1; draws from the distribution of the data have 0.5, from which this is\n"
        f"{found.score:+.1f} standard deviations away ({num} samples, {found.num_test} test images, by {options.by})."
    )


@command("Draw", NAME, num(100, "hidden units, those with the largest weights"), out("filters.png"), DEVICE)
def filters(options: argparse.Namespace) -> None:
    """Show the weights of hidden units as images.

    Mid-grey is zero; a unit is excited by its bright pixels. Each unit has its own scale.
    """
    checkpoint = checkpoint_of(options)

    from zoo.capabilities import Filtered
    from zoo.pictures import filter_sheet

    model = image_model(checkpoint, options)
    if not isinstance(model, Filtered) or not len(model.filters):
        raise ConfigError(
            f"{options.name}: expected a model whose hidden units see all pixels (zoo.capabilities.Filtered), found "
            f"{type(model).__name__}; `zoo list --capability Filtered` shows candidates"
        )
    show(filter_sheet(model.filters, options.num), options)


@command("Draw", NAME, num(500, "samples"), sampling, SEED, out("landscape.png"), DEVICE)
def landscape(options: argparse.Namespace) -> None:
    """Plot the energy of points in the plane, with samples.

    The energy is -log p(x) up to a constant; the model is a density or an energy.
    """
    checkpoint = checkpoint_of(options)

    from zoo.module import GenerativeModel
    from zoo.plots import landscape

    model = checkpoint.load(device=options.device)
    if not isinstance(model, GenerativeModel):
        raise ConfigError(f"{options.name}: expected a model that draws points, found {type(model).__name__}")
    sampler = sampler_of(options, type(model))
    given = {} if sampler is None else {"sampler": sampler}
    write(options.out, landscape(model, options.num, options.seed, **given), options.overwrite)
