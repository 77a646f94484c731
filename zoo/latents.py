"""Functions of codes and conditionals: interpolate, reconstruct, traverse, edit and complete.

Each function needs some capabilities of a model (`zoo.capabilities`) and raises a ConfigError if the model lacks one.
Images and codes may be on any device; results are on the device of the model. The code of an image is the mean of
q(z | x). Dimensions are counted in the flattened code. A `Conditional` model needs `labels`, one per image or code, or
one for all; other models accept no labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal
from torch.nn.functional import cosine_similarity

from zoo.capabilities import Completable, Conditional, Decoder, Encoder, EvidenceLowerBound, GenerativeModel, Sampled
from zoo.errors import ConfigError, DataError
from zoo.given import Labels, check_given, check_images, check_labels, rows_of
from zoo.module import batches_of
from zoo.random import Streams, randn, seed_from
from zoo.store.registry import registry

# --------------------------------------------------------------------------------------------------------------- codes


def has_pixel_noise(model: GenerativeModel) -> bool:
    """Whether samples are images that codes stand for, E[x | z], plus noise in each pixel, as those of a VAE.

    A model that draws by samplers decodes its codes as it draws, without such noise.
    """
    return isinstance(model, Decoder) and isinstance(model, EvidenceLowerBound) and not isinstance(model, Sampled)


@torch.no_grad()
def draw_codes(model: GenerativeModel, streams: Streams) -> Tensor:
    """Draws codes from the prior of a Decoder, one per stream, the same on every device.

    Returns:
        [len(streams), *latent_shape].

    Raises:
        ConfigError: The model is not a Decoder, or its prior is not Gaussian.
    """
    decoder = _decoder(model, "codes")
    prior = _base(decoder.prior())
    epsilon = randn((len(streams), *decoder.latent_shape), streams).to(model.device)
    if isinstance(prior, MultivariateNormal):
        return prior.loc + epsilon @ prior.scale_tril.mT
    if isinstance(prior, Normal):
        return prior.loc + prior.scale * epsilon
    raise ConfigError(f"codes: expected a Gaussian prior, found {type(prior).__name__}; draw the codes yourself")


def prior_codes(model: GenerativeModel, num: int, generator: torch.Generator | None = None) -> Tensor:
    """The codes of which `model.sample` makes its draws, given the same generator: [num, *latent_shape].

    Raises:
        ConfigError: As `draw_codes`.
    """
    return draw_codes(model, Streams(seed_from(generator), range(num)))


@torch.no_grad()
def iter_clean(
    model: GenerativeModel,
    num: int,
    *,
    generator: torch.Generator | None = None,
    positions: Tensor | None = None,
    **given: Any,
) -> Iterator[Tensor]:
    """Yields batches of samples without pixel noise: E[x | z] of a model that `has_pixel_noise`, else its samples.

    Args:
        model: Any generative model.
        num: Number of samples.
        generator: Source of the random draws.
        positions: Which of the samples to draw, [n], int64; by default all, in order.
        given: What else `model.sample` takes, such as labels.

    Raises:
        ConfigError: The model does not take what is given.
    """
    if not has_pixel_noise(model):
        yield from model.iter_samples(num, generator=generator, positions=positions, **given)
        return
    checked = check_given(model, given, num)
    index = torch.arange(num) if positions is None else positions
    for streams, rows in batches_of(index, generator, 250):
        yield decode(model, draw_codes(model, streams), **rows_of(checked, rows, model.device))


@torch.no_grad()
def encode(model: GenerativeModel, x: Tensor, *, labels: Labels = None) -> Tensor:
    """The codes of images, for an Encoder: [B, *event_shape] -> [B, *latent_shape].

    Raises:
        ConfigError: The model is not an Encoder, or a label is not one of its classes.
        DataError: The images have the wrong shape.
    """
    return _encode(model, x, "encode", labels)


@torch.no_grad()
def decode(model: GenerativeModel, z: Tensor, *, labels: Labels = None) -> Tensor:
    """E[x | z] for codes z, for a Decoder: [B, *latent_shape] -> [B, *event_shape].

    Raises:
        ConfigError: The model is not a Decoder, or a label is not one of its classes.
        DataError: The codes have the wrong shape.
    """
    decoder = _decoder(model, "decode")
    if tuple(z.shape[1:]) != tuple(decoder.latent_shape):
        expected = ", ".join(map(str, ("B", *decoder.latent_shape)))
        raise DataError(f"decode: expected codes of shape [{expected}], found {list(z.shape)}")
    return decoder.decode(z.to(model.device), **_given(model, labels, len(z)))


@torch.no_grad()
def reconstruct(model: GenerativeModel, x: Tensor, *, labels: Labels = None) -> Tensor:
    """E[x | z] at the codes of images, for an Encoder and Decoder: [B, *event_shape] -> [B, *event_shape]."""
    decoder = _decoder(model, "reconstruct", Encoder)
    return decoder.decode(_encode(model, x, "reconstruct", labels), **_given(model, labels, len(x)))


# ----------------------------------------------------------------------------------------------- walks and edited codes


@torch.no_grad()
def interpolate(
    model: GenerativeModel,
    a: Tensor,
    b: Tensor,
    steps: int,
    *,
    spherical: bool | None = None,
    labels: Labels = None,
) -> Tensor:
    """Walks from `a` to `b` through the space of codes, both ends included.

    Args:
        model: A Decoder; for walks between images also an Encoder.
        a, b: Ends of the walk: two images, [*event_shape], or two codes, [*latent_shape]; or B of each, [B, ...]. If
            `event_shape` and `latent_shape` are equal, the ends are taken for images.
        steps: Number of images per walk, at least 2.
        spherical: Whether to walk along great circles, which stay near the codes of a Gaussian in high dimension (White
            2016, https://arxiv.org/abs/1609.04468), instead of straight lines; by default, if the prior is Gaussian.
        labels: Labels of the walks.

    Returns:
        [steps, *event_shape] or [B, steps, *event_shape].

    Raises:
        ConfigError: The model lacks a capability, or there are fewer than 2 steps.
        DataError: The shapes of `a` and `b` do not fit the model or each other.
    """
    is_image = _is_one_or_more(a, model.event_shape)
    decoder = _decoder(model, "interpolate", *([Encoder] if is_image else []))
    if steps < 2:
        raise ConfigError(f"interpolate: expected at least 2 steps, the two ends, found {steps}")
    if a.shape != b.shape:
        raise DataError(f"interpolate: expected ends of equal shape, found {list(a.shape)} and {list(b.shape)}")
    shape = model.event_shape if is_image else decoder.latent_shape
    if not _is_one_or_more(a, shape):
        expected = f"images {list(model.event_shape)} or codes {list(shape)}, one or a batch"
        raise DataError(f"interpolate: expected {expected}, found {list(a.shape)}")
    ends = [x.reshape(-1, *shape) for x in (a, b)]
    if is_image:
        ends = [_encode(model, x, "interpolate", labels) for x in ends]
    start, end = (z.to(model.device).flatten(1)[:, None] for z in ends)  # [B, 1, dimensions]
    t = torch.linspace(0, 1, steps, device=model.device)[:, None]
    if spherical is None:
        spherical = isinstance(_base(decoder.prior()), Normal | MultivariateNormal)
    z = _slerp(start, end, t) if spherical else (1 - t) * start + t * end  # [B, steps, dimensions]
    conditions = _given(model, labels, len(z), repeats=steps)
    walks = decoder.decode(z.reshape(-1, *decoder.latent_shape), **conditions).view(-1, steps, *model.event_shape)
    return walks[0] if a.dim() == len(shape) else walks


def _slerp(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """sin((1 - t) w)/sin(w) a + sin(t w)/sin(w) b with the angle w between a and b; a straight line if sin(w) is 0."""
    angle = cosine_similarity(a, b, dim=-1)[..., None].clamp(-1, 1).acos()
    sine = angle.sin()
    weights = ((1 - t) * angle).sin() / sine, (t * angle).sin() / sine
    is_line = sine < 1e-3
    return torch.where(is_line, 1 - t, weights[0]) * a + torch.where(is_line, t, weights[1]) * b


@torch.no_grad()
def traverse(
    model: GenerativeModel,
    z: Tensor,
    dimensions: Sequence[int],
    values: Sequence[float] | Tensor,
    *,
    labels: Labels = None,
) -> Tensor:
    """Decodes a code repeatedly, with one dimension at a time set to other values.

    Args:
        model: A Decoder.
        z: One code, [*latent_shape].
        dimensions: Dimensions to change, one for each row of the result.
        values: Values that they take, one for each column.
        labels: Label of the code.

    Returns:
        [len(dimensions), len(values), *event_shape].

    Raises:
        ConfigError: The model is not a Decoder, its codes have no such dimension, or a value is NaN or infinite.
        DataError: `z` is not one code.
    """
    decoder = _decoder(model, "traverse")
    if tuple(z.shape) != decoder.latent_shape:
        raise DataError(f"traverse: expected one code of shape {list(decoder.latent_shape)}, found {list(z.shape)}")
    columns = torch.as_tensor(values, dtype=z.dtype, device=model.device)
    _check_changes(dimensions, columns, z.numel(), "traverse")
    codes = z.to(model.device).flatten().repeat(len(dimensions), len(columns), 1)
    for row, dimension in enumerate(dimensions):
        codes[row, :, dimension] = columns
    conditions = _given(model, labels, 1, repeats=codes.shape[0] * codes.shape[1])
    images = decoder.decode(codes.view(-1, *decoder.latent_shape), **conditions)
    return images.view(len(dimensions), len(columns), *images.shape[1:])


@torch.no_grad()
def edit(
    model: GenerativeModel,
    x: Tensor,
    changes: Mapping[int, float],
    *,
    relative: bool = False,
    labels: Labels = None,
) -> Tensor:
    """Changes dimensions of the codes of images.

    Args:
        model: An Encoder and Decoder.
        x: Images, [B, *event_shape].
        changes: New values by dimension of the code.
        relative: Whether to add the values to the old ones.
        labels: Labels of the images.

    Returns:
        [B, *event_shape]; without changes, the reconstructions.

    Raises:
        ConfigError: The model lacks a capability, its codes have no such dimension, or a value is NaN or infinite.
        DataError: The images have the wrong shape.
    """
    decoder = _decoder(model, "edit", Encoder)
    z = _encode(model, x, "edit", labels)
    codes = z.flatten(1)
    _check_changes(list(changes), torch.tensor(list(changes.values())), codes.shape[1], "edit")
    for dimension, value in changes.items():
        codes[:, dimension] = codes[:, dimension] + value if relative else value
    return decoder.decode(codes.view_as(z), **_given(model, labels, len(x)))


def _check_changes(dimensions: Sequence[int], values: Tensor, size: int, name: str) -> None:
    """Raises a ConfigError if a code of this size lacks a dimension, or a value is NaN or infinite."""
    if unknown := [dimension for dimension in dimensions if not 0 <= dimension < size]:
        raise ConfigError(f"{name}: expected dimensions of the code from 0 to {size - 1}, found {unknown[0]}")
    if not values.isfinite().all():
        wrong = values[~values.isfinite()][0].item()
        raise ConfigError(f"{name}: expected finite numbers as values of a dimension, found {wrong}")


# ---------------------------------------------------------------------------------------------- attributes and classes


@torch.no_grad()
def attribute(model: GenerativeModel, present: Tensor, absent: Tensor) -> Tensor:
    """The mean code of images with an attribute minus the mean code of images without it.

    Larsen et al. 2016 (https://arxiv.org/abs/1512.09300, section 4.1) call this a visual attribute vector.

    Args:
        model: An Encoder that is not Conditional: the codes of a conditional model need not contain the class.
        present: Images with the attribute, [N, *event_shape].
        absent: Images without it, [M, *event_shape].

    Returns:
        [*latent_shape].

    Raises:
        ConfigError: The model is not an Encoder, or it is Conditional.
        DataError: The images have the wrong shape, or there are none on one side.
    """
    _check_attribute(model, Encoder)
    for name, x in (("present", present), ("absent", absent)):
        if len(x) == 0:
            raise DataError(f"attribute: expected images on both sides, found none with the attribute {name}")
    means = [torch.cat([_encode(model, part, "attribute") for part in x.split(500)]).mean(0) for x in (present, absent)]
    return means[0] - means[1]


@torch.no_grad()
def apply_attribute(
    model: GenerativeModel, x: Tensor, direction: Tensor, strengths: Sequence[float] | Tensor
) -> Tensor:
    """Moves the codes of images along a direction, such as the one that `attribute` returns.

    Args:
        model: An Encoder and Decoder that is not Conditional.
        x: Images, [B, *event_shape].
        direction: Direction in the space of codes, [*latent_shape].
        strengths: Distances to move, in units of the direction; 0 gives the reconstructions.

    Returns:
        [B, len(strengths), *event_shape].

    Raises:
        ConfigError: The model lacks a capability, or it is Conditional.
        DataError: The images or the direction have the wrong shape.
    """
    _check_attribute(model, Encoder, Decoder)
    decoder = _decoder(model, "attribute")
    if tuple(direction.shape) != decoder.latent_shape:
        raise DataError(
            f"attribute: expected one direction of shape {list(decoder.latent_shape)}, found {list(direction.shape)}"
        )
    z = _encode(model, x, "attribute")
    factors = torch.as_tensor(strengths, dtype=z.dtype, device=z.device).view(-1, *[1] * direction.dim())
    moved = z[:, None] + factors * direction.to(z.device)
    return decoder.decode(moved.flatten(0, 1)).view(len(x), len(factors), *x.shape[1:])


def _check_attribute(model: GenerativeModel, *needed: type) -> None:
    _check_capabilities(model, "attribute", *needed)
    if isinstance(model, Conditional):
        raise ConfigError(
            f"attribute: {type(model).__name__} is Conditional: its codes need not contain what labels say; "
            "decode them with other labels, by `analogies` (`zoo analogies`)"
        )


@torch.no_grad()
def analogies(model: GenerativeModel, x: Tensor, labels: Labels) -> Tensor:
    """Draws every class in the style of each image: decodes its code with each label in turn.

    Args:
        model: A Conditional Encoder and Decoder.
        x: Images, [B, *event_shape].
        labels: Labels of these images.

    Returns:
        [B, num_classes, *event_shape].

    Raises:
        ConfigError: The model lacks a capability, or a label is not one of its classes.
        DataError: The images have the wrong shape.
    """
    decoder = _decoder(model, "analogies", Conditional, Encoder)
    assert isinstance(model, Conditional)
    z = _encode(model, x, "analogies", labels)
    classes = torch.arange(model.num_classes, device=model.device)
    images = decoder.decode(z.repeat_interleave(len(classes), 0), labels=classes.repeat(len(x)))  # type: ignore[call-arg]
    return images.view(len(x), len(classes), *x.shape[1:])


# ------------------------------------------------------------------------------------------------------------- complete


def complete(
    model: GenerativeModel,
    x: Tensor,
    mask: Tensor,
    *,
    generator: torch.Generator | None = None,
    labels: Labels = None,
    batch_size: int = 250,
) -> Tensor:
    """Draws the unknown pixels of images given the known ones.

    Args:
        model: A Completable.
        x: Images, [B, *event_shape].
        mask: Known pixels, bool, [*event_shape] or [B, *event_shape].
        generator: Source of the random draws.
        labels: Classes of the images, if the model is Conditional; by default, any that fit.
        batch_size: Number of images to complete at once; it bounds the memory and changes nothing else.

    Returns:
        [B, *event_shape].

    Raises:
        ConfigError: The model is not Completable, or cannot condition on the pixels of this mask.
        DataError: The images have the wrong shape.
    """
    _check_capabilities(model, "complete", Completable)
    assert isinstance(model, Completable)
    return model.complete(x, mask, generator=generator, labels=labels, batch_size=batch_size)


# --------------------------------------------------------------------------------------------------- checks of models


def _decoder(model: GenerativeModel, name: str, *others: type) -> Decoder:
    """Returns the model after checking that it is a Decoder and has the other capabilities."""
    _check_capabilities(model, name, *others, Decoder)
    assert isinstance(model, Decoder)
    return model


def _encode(model: GenerativeModel, x: Tensor, name: str, labels: Labels = None) -> Tensor:
    """The codes of images, [B, *latent_shape], as a copy that may be changed."""
    _check_capabilities(model, name, Encoder)
    assert isinstance(model, Encoder)
    check_images(model, x, name)
    x = x.to(model.device, model.dtype)
    return model.encode(x, **_given(model, labels, len(x))).mean.clone()


def _given(model: GenerativeModel, labels: Labels, num: int, repeats: int = 1) -> dict[str, Tensor]:
    """Keyword arguments of `encode` and `decode`: the labels of `num` examples, each `repeats` times."""
    if isinstance(model, Conditional):  # for which `encode` and `decode` need labels, unlike `sample`
        labels = check_labels(model, labels, num)
    given = check_given(model, {"labels": labels}, num)
    return {name: value.repeat_interleave(repeats).to(model.device) for name, value in given.items()}


def _base(distribution: Distribution) -> Distribution:
    """The distribution of single dimensions under any layers of `Independent`."""
    while isinstance(distribution, Independent):
        distribution = distribution.base_dist
    return distribution


def _is_one_or_more(x: Tensor, shape: tuple[int, ...]) -> bool:
    return tuple(x.shape) == shape or tuple(x.shape[1:]) == shape


def _check_capabilities(model: GenerativeModel, name: str, *needed: type) -> None:
    """Raises a ConfigError if the model lacks a capability, and names checkpoints that have all of them."""
    missing = [capability.__name__ for capability in needed if not isinstance(model, capability)]
    if not missing:
        return
    names = [capability.__name__ for capability in needed]
    have = sorted(source for source, entry in registry().items() if {*names} <= {*entry.capabilities})
    hint = f"choose one that is, such as {', '.join(have[:5])}" if have else "choose a model that is"
    raise ConfigError(
        f"{name}: expected {_listed(names, 'and')} (zoo.capabilities), found {type(model).__name__}, which is not "
        f"{_listed(missing, 'or')}; {hint}"
    )


def _listed(names: Sequence[str], conjunction: str) -> str:
    """Joins names with articles, such as `an Encoder and a Decoder`."""
    articled = [f"{'an' if name[0] in 'AEIOU' else 'a'} {name}" for name in names]
    return f" {conjunction} ".join(filter(None, (", ".join(articled[:-1]), articled[-1])))
