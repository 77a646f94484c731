"""What codes and conditionals are for: interpolate, reconstruct, traverse, edit and complete, by what a model can do.

Images and codes may lie on any device, and results lie on the model's. A code is the mean of q(z given x); numbers of
its dimensions count through it flattened. What is `Conditional` needs `labels`, one of an image or code or one for all
of them, and other models do not accept them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal

from zoo.capabilities import Completable, Conditional, Decoder, Encoder, GenerativeModel
from zoo.errors import ConfigError, DataError
from zoo.given import Labels, check_images, check_labels
from zoo.random import Streams, randn
from zoo.store.registry import registry


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
        model: a Decoder; between images an Encoder too.
        a, b: images [*event_shape] or codes [*latent_shape], one of each or [B, ...] of each; where the two shapes are
            equal, images.
        steps: images in a walk, at least 2.
        spherical: along great circles, where the codes of a Gaussian lie in high dimension (White 2016,
            https://arxiv.org/abs/1609.04468), instead of straight lines; by default so if the prior is Gaussian.
        labels: of the walks.

    Returns:
        [steps, *event_shape] or [B, steps, *event_shape].

    Raises:
        ConfigError: the model has not what it takes, or fewer than 2 steps.
        DataError: `a` and `b` have shapes that do not fit the model or each other.
    """
    is_between_images = _is_one_or_more(a, model.event_shape)
    decoder = _decoder(model, "interpolate", *([Encoder] if is_between_images else []))
    if steps < 2:
        raise ConfigError(f"interpolate: expected at least 2 steps, the two ends, found {steps}")
    if a.shape != b.shape:
        raise DataError(f"interpolate: expected ends of equal shape, found {list(a.shape)} and {list(b.shape)}")
    event_shape, latent_shape = model.event_shape, decoder.latent_shape
    if is_between_images:
        is_one = a.dim() == len(event_shape)
        ends = [_encode(model, x[None] if is_one else x, "interpolate", labels) for x in (a, b)]
    elif _is_one_or_more(a, latent_shape):
        is_one = a.dim() == len(latent_shape)
        ends = [(z[None] if is_one else z).to(model.device) for z in (a, b)]
    else:
        expected = f"images {list(event_shape)} or codes {list(latent_shape)}, one or a batch"
        raise DataError(f"interpolate: expected {expected}, found {list(a.shape)}")
    if spherical is None:
        spherical = isinstance(_prior(decoder), Normal | MultivariateNormal)
    t = torch.linspace(0, 1, steps, device=model.device)[:, None]
    start, end = (z.flatten(1)[:, None] for z in ends)  # [B, 1, dimensions]
    z = _slerp(start, end, t) if spherical else (1 - t) * start + t * end  # [B, steps, dimensions]
    given = _given(model, labels, len(z), repeats=steps)
    walks = decoder.decode(z.reshape(-1, *latent_shape), **given).view(-1, steps, *event_shape)
    return walks[0] if is_one else walks


@torch.no_grad()
def draw_codes(model: GenerativeModel, streams: Streams) -> Tensor:
    """Codes drawn from the prior of a Decoder, one per stream, the same on every device: [len(streams), *latent_shape].

    Raises:
        ConfigError: the model is no Decoder, or its prior is not Gaussian.
    """
    decoder = _decoder(model, "codes")
    prior = _prior(decoder)
    epsilon = randn((len(streams), *decoder.latent_shape), streams).to(model.device)
    if isinstance(prior, MultivariateNormal):
        return prior.loc + epsilon @ prior.scale_tril.mT
    if isinstance(prior, Normal):
        return prior.loc + prior.scale * epsilon
    raise ConfigError(f"codes: expected a Gaussian prior, found {type(prior).__name__}; draw from it yourself")


@torch.no_grad()
def encode(model: GenerativeModel, x: Tensor, *, labels: Labels = None) -> Tensor:
    """Codes that an Encoder gives to images, their means: [B, *event_shape] -> [B, *latent_shape]."""
    return _encode(model, x, "encode", labels)


@torch.no_grad()
def decode(model: GenerativeModel, z: Tensor, *, labels: Labels = None) -> Tensor:
    """What a Decoder makes of codes, E[x given z]: [B, *latent_shape] -> [B, *event_shape].

    Raises:
        ConfigError: the model is no Decoder, or the labels are not those of its classes.
        DataError: codes of another shape.
    """
    decoder = _decoder(model, "decode")
    if tuple(z.shape[1:]) != tuple(decoder.latent_shape):
        expected = ", ".join(map(str, ("B", *decoder.latent_shape)))
        raise DataError(f"decode: expected codes of shape [{expected}], found {list(z.shape)}")
    return decoder.decode(z.to(model.device), **_given(model, labels, len(z)))


@torch.no_grad()
def reconstruct(model: GenerativeModel, x: Tensor, *, labels: Labels = None) -> Tensor:
    """What an Encoder and Decoder keep of images: E[x given z] at their codes, [B, *event_shape] -> the same."""
    decoder = _decoder(model, "reconstruct", Encoder)
    return decoder.decode(_encode(model, x, "reconstruct", labels), **_given(model, labels, len(x)))


@torch.no_grad()
def analogies(model: GenerativeModel, x: Tensor, labels: Labels) -> Tensor:
    """Images in the style of others and of every class: their codes decoded with each label in turn.

    Args:
        model: Conditional, an Encoder and a Decoder.
        x: [B, *event_shape].
        labels: of these images.

    Returns:
        [B, num_classes, *event_shape].

    Raises:
        ConfigError: the model has not what it takes, or a label is no class of it.
        DataError: images of another shape.
    """
    decoder = _decoder(model, "analogies", Conditional, Encoder)
    assert isinstance(model, Conditional)
    z = _encode(model, x, "analogies", labels)
    classes = torch.arange(model.num_classes, device=model.device)
    images = decoder.decode(z.repeat_interleave(len(classes), 0), labels=classes.repeat(len(x)))  # type: ignore[call-arg]
    return images.view(len(x), len(classes), *x.shape[1:])


@torch.no_grad()
def traverse(
    model: GenerativeModel,
    z: Tensor,
    dimensions: Sequence[int],
    values: Sequence[float] | Tensor,
    *,
    labels: Labels = None,
) -> Tensor:
    """What a Decoder makes of a code when one dimension at a time takes other values.

    Args:
        z: one code, [*latent_shape].
        dimensions: the rows of the result.
        values: its columns.

    Returns:
        [len(dimensions), len(values), *event_shape].

    Raises:
        ConfigError: the model is no Decoder, its codes do not have such a dimension, or a value is NaN or infinite.
        DataError: `z` is not one code.
    """
    decoder = _decoder(model, "traverse")
    if tuple(z.shape) != decoder.latent_shape:
        raise DataError(f"traverse: expected one code of shape {list(decoder.latent_shape)}, found {list(z.shape)}")
    _check_dimensions(dimensions, z.numel(), "traverse")
    columns = torch.as_tensor(values, dtype=z.dtype, device=model.device)
    _check_values(columns, "traverse")
    codes = z.to(model.device).flatten().repeat(len(dimensions), len(columns), 1)
    for row, dimension in enumerate(dimensions):
        codes[row, :, dimension] = columns
    given = _given(model, labels, 1, repeats=codes.shape[0] * codes.shape[1])
    images = decoder.decode(codes.view(-1, *decoder.latent_shape), **given)
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
    """Images after some dimensions of their codes have changed.

    Args:
        model: an Encoder and Decoder.
        x: [B, *event_shape].
        changes: new values by dimension of the code.
        relative: they are added to the old values.

    Returns:
        [B, *event_shape]; without changes, the reconstructions.

    Raises:
        ConfigError: the model has not what it takes, its codes do not have such a dimension, or a value is NaN or
            infinite.
        DataError: images of another shape.
    """
    decoder = _decoder(model, "edit", Encoder)
    z = _encode(model, x, "edit", labels)
    codes = z.flatten(1)
    _check_dimensions(list(changes), codes.shape[1], "edit")
    _check_values(torch.tensor(list(changes.values())), "edit")
    for dimension, value in changes.items():
        codes[:, dimension] = codes[:, dimension] + value if relative else value
    return decoder.decode(codes.view_as(z), **_given(model, labels, len(x)))


@torch.no_grad()
def attribute(model: GenerativeModel, present: Tensor, absent: Tensor) -> Tensor:
    """The direction in which codes gain an attribute: mean code of images with it minus mean code of images without.

    Larsen et al. 2016 (https://arxiv.org/abs/1512.09300, section 4.1) call it a visual attribute vector.

    Args:
        model: an Encoder; not Conditional, since codes need not tell what a label does.
        present, absent: images with the attribute and without it, [N, *event_shape] and [M, *event_shape].

    Returns:
        [*latent_shape].

    Raises:
        ConfigError: the model is no Encoder, or Conditional.
        DataError: images of another shape, or none on one side.
    """
    _check_attribute(model, Encoder)
    for name, x in (("present", present), ("absent", absent)):
        if len(x) == 0:
            raise DataError(f"attribute: expected images on both sides, found none with the attribute {name}")
    first, second = (
        torch.cat([_encode(model, part, "attribute") for part in x.split(500)]).mean(0) for x in (present, absent)
    )
    return first - second


@torch.no_grad()
def apply_attribute(
    model: GenerativeModel, x: Tensor, direction: Tensor, strengths: Sequence[float] | Tensor
) -> Tensor:
    """Images whose codes have moved along a direction, such as `attribute` gives.

    Args:
        model: an Encoder and Decoder; not Conditional.
        x: [B, *event_shape].
        direction: [*latent_shape].
        strengths: how far, in units of the direction: 0 for the reconstructions.

    Returns:
        [B, len(strengths), *event_shape].

    Raises:
        ConfigError: the model has not what it takes, or is Conditional.
        DataError: images or a direction of another shape.
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


def complete(
    model: GenerativeModel,
    x: Tensor,
    mask: Tensor,
    *,
    generator: torch.Generator | None = None,
    batch_size: int = 250,
) -> Tensor:
    """Images whose unknown pixels a Completable draws given the known ones, where `mask` is True.

    Args:
        x: [B, *event_shape].
        mask: bool, [*event_shape] or [B, *event_shape].
        generator: source of the draws.
        batch_size: images that are completed at once; it bounds the memory, and changes nothing else.

    Returns:
        [B, *event_shape].

    Raises:
        ConfigError: the model is not Completable, or cannot condition on the pixels of this mask.
        DataError: images of another shape.
    """
    _check_capabilities(model, "complete", Completable)
    assert isinstance(model, Completable)
    return model.complete(x, mask, generator=generator, batch_size=batch_size)


def _slerp(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """sin((1 - t) w)/sin(w) a + sin(t w)/sin(w) b at the angle w of a and b, or a straight line where sin(w) is 0."""
    cosine = torch.nn.functional.cosine_similarity(a, b, dim=-1)[..., None]
    angle = cosine.clamp(-1, 1).acos()
    sine = angle.sin()
    weights = ((1 - t) * angle).sin() / sine, (t * angle).sin() / sine
    is_line = sine < 1e-3
    return torch.where(is_line, 1 - t, weights[0]) * a + torch.where(is_line, t, weights[1]) * b


def _decoder(model: GenerativeModel, name: str, *others: type) -> Decoder:
    """The model, a Decoder that has the other capabilities too."""
    _check_capabilities(model, name, *others, Decoder)
    assert isinstance(model, Decoder)
    return model


def _prior(decoder: Decoder) -> Distribution:
    prior = decoder.prior()
    while isinstance(prior, Independent):
        prior = prior.base_dist
    return prior


def _encode(model: GenerativeModel, x: Tensor, name: str, labels: Labels = None) -> Tensor:
    """Codes of images, a tensor of its own: [B, *latent_shape]."""
    _check_capabilities(model, name, Encoder)
    assert isinstance(model, Encoder)
    check_images(model, x, name)
    x = x.to(model.device, cast(torch.dtype, model.dtype))
    return model.encode(x, **_given(model, labels, len(x))).mean.clone()


def _given(model: GenerativeModel, labels: Labels, num: int, repeats: int = 1) -> dict[str, Tensor]:
    """Labels of `num` things, each `repeats` times, as keywords of `encode` and `decode`."""
    if not isinstance(model, Conditional):
        if labels is not None:
            raise ConfigError(f"labels: {type(model).__name__} is not Conditional (zoo.capabilities): leave them out")
        return {}
    return {"labels": check_labels(model, labels, num).repeat_interleave(repeats).to(model.device)}


def _check_capabilities(model: GenerativeModel, name: str, *needed: type) -> None:
    """ConfigError where the model lacks one of them, with checkpoints that have all."""
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
    """`an Encoder and a Decoder`."""
    articled = [f"{'an' if name[0] in 'AEIOU' else 'a'} {name}" for name in names]
    return f" {conjunction} ".join(filter(None, (", ".join(articled[:-1]), articled[-1])))


def _check_attribute(model: GenerativeModel, *needed: type) -> None:
    _check_capabilities(model, "attribute", *needed)
    if isinstance(model, Conditional):
        raise ConfigError(
            f"attribute: {type(model).__name__} is Conditional: its codes need not tell what labels do; "
            "decode them with other labels, by `analogies` (`zoo analogies`)"
        )


def _is_one_or_more(x: Tensor, shape: tuple[int, ...]) -> bool:
    return tuple(x.shape) == shape or tuple(x.shape[1:]) == shape


def _check_dimensions(dimensions: Sequence[int], size: int, name: str) -> None:
    if unknown := [dimension for dimension in dimensions if not 0 <= dimension < size]:
        raise ConfigError(f"{name}: expected dimensions of the code from 0 to {size - 1}, found {unknown[0]}")


def _check_values(values: Tensor, name: str) -> None:
    if not values.isfinite().all():
        wrong = values[~values.isfinite()][0].item()
        raise ConfigError(f"{name}: expected finite numbers as values of a dimension, found {wrong}")
