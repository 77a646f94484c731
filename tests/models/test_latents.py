"""Functions over codes and conditionals: on a model whose codes are its images, and on every model of the list."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from instances import Instance, having
from torch import Tensor
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal, Uniform

from zoo.capabilities import Completable, Conditional, Decoder, Encoder, EvidenceLowerBound, GenerativeModel
from zoo.diffusion import EDM
from zoo.errors import ConfigError, DataError
from zoo.flows import Glow
from zoo.latents import (
    analogies,
    apply_attribute,
    attribute,
    complete,
    decode,
    draw_codes,
    edit,
    encode,
    has_pixel_noise,
    interpolate,
    reconstruct,
    traverse,
)
from zoo.random import Streams, randn
from zoo.vae.autoencoder import Autoencoder
from zoo.vae.vae import VAE


class Mirror(Encoder, Decoder):
    """An image is its own code, but for its channel."""

    real = ("encode",)

    def __init__(self, is_gaussian: bool = True) -> None:
        super().__init__()
        self.event_shape, self.latent_shape, self.is_gaussian = (1, 2, 3), (2, 3), is_gaussian

    def draw(self, streams: Streams) -> Tensor:
        return randn((len(streams), *self.event_shape), streams)

    def encode(self, x: Tensor) -> Distribution:
        return Independent(Normal(x[:, 0], 1.0), 2)

    def decode(self, z: Tensor) -> Tensor:
        return z[:, None]

    def prior(self) -> Distribution:
        zero = torch.zeros(self.latent_shape)
        return Independent(Normal(zero, 1.0) if self.is_gaussian else Uniform(zero, 1.0), 2)


def images(num: int, seed: int = 0) -> Tensor:
    return torch.randn(num, 1, 2, 3, generator=torch.Generator().manual_seed(seed))


def labels_of(instance: Instance, num: int) -> dict[str, Any]:
    """Labels of `num` images as keywords; nothing for a model that takes none."""
    if not issubclass(instance.cls, Conditional):
        return {}
    return {"labels": torch.arange(num) % instance.arguments["num_classes"]}


def has_other_codes(instance: Instance) -> bool:
    """Whether codes have another shape than data; otherwise `interpolate` takes codes for data."""
    return len(instance.event_shape) > 1


# ---------------------------------------------------------------------------------------------------------- interpolate


def test_spherical_walks_keep_their_radius_and_pace() -> None:
    a, b = images(4), images(4, seed=1)
    b = b / b.flatten(1).norm(dim=1)[:, None, None, None] * a.flatten(1).norm(dim=1)[:, None, None, None]
    walks = interpolate(Mirror(), a, b, 7)
    assert walks.shape == (4, 7, 1, 2, 3)
    torch.testing.assert_close((walks[:, 0], walks[:, -1]), (a, b))
    points = walks.flatten(2)
    torch.testing.assert_close(points.norm(dim=2), a.flatten(1).norm(dim=1)[:, None].expand(4, 7))
    steps = torch.nn.functional.cosine_similarity(points[:, 1:], points[:, :-1], dim=2).acos()
    whole = torch.nn.functional.cosine_similarity(points[:, 0], points[:, -1], dim=1).acos()
    torch.testing.assert_close(steps, (whole / 6)[:, None].expand(4, 6), atol=1e-4, rtol=1e-4)


def test_straight_walks() -> None:
    a, b = images(2), images(2, seed=1)
    walks = interpolate(Mirror(), a, b, 5, spherical=False)
    torch.testing.assert_close(walks, torch.stack([a + (b - a) * t / 4 for t in range(5)], 1))


def test_walks_are_spherical_where_the_prior_is_gaussian() -> None:
    a, b = images(2), images(2, seed=1)
    for is_gaussian in (True, False):
        model = Mirror(is_gaussian)
        assert torch.equal(interpolate(model, a, b, 4), interpolate(model, a, b, 4, spherical=is_gaussian))
        assert not torch.allclose(interpolate(model, a, b, 4), interpolate(model, a, b, 4, spherical=not is_gaussian))


def test_walks_between_parallel_codes_are_straight() -> None:
    a = images(1)
    for b in (a, 2 * a, -a, torch.zeros_like(a)):
        found, expected = (interpolate(Mirror(), a, b, 5, spherical=s) for s in (True, False))
        if b.any():
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
        assert found.isfinite().all()
        torch.testing.assert_close((found[:, 0], found[:, -1]), (a, b))


def test_ends_are_images_or_codes_one_or_many() -> None:
    a, b = images(3), images(3, seed=1)
    expected = interpolate(Mirror(), a, b, 4)
    torch.testing.assert_close(interpolate(Mirror(), a[:, 0], b[:, 0], 4), expected)
    torch.testing.assert_close(interpolate(Mirror(), a[1], b[1], 4), expected[1])
    torch.testing.assert_close(interpolate(Mirror(), a[1, 0], b[1, 0], 4), expected[1])


def test_ends_that_do_not_fit() -> None:
    with pytest.raises(DataError, match=r"ends of equal shape, found \[2, 1, 2, 3\] and \[3, 1, 2, 3\]"):
        interpolate(Mirror(), images(2), images(3), 4)
    with pytest.raises(DataError, match=r"images \[1, 2, 3\] or codes \[2, 3\], one or a batch, found \[2, 7\]"):
        interpolate(Mirror(), torch.zeros(2, 7), torch.zeros(2, 7), 4)
    with pytest.raises(ConfigError, match="at least 2 steps"):
        interpolate(Mirror(), images(2), images(2), 1)


@having(GenerativeModel, Decoder, where=has_other_codes)
def test_walks_begin_and_end_at_the_decoded_codes(instance: Instance) -> None:
    model, given = instance.build(), labels_of(instance, 3)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        a, b = model.prior().sample((2, 3))
    walks = interpolate(model, a, b, 4, **given)
    assert walks.shape == (3, 4, *instance.event_shape) and not walks.requires_grad
    torch.testing.assert_close((walks[:, 0], walks[:, -1]), (model.decode(a, **given), model.decode(b, **given)))
    middle = interpolate(model, a, b, 3, spherical=False, **given)[:, 1]
    torch.testing.assert_close(middle, model.decode((a + b) / 2, **given))


@having(GenerativeModel, Encoder, Decoder, where=has_other_codes)
def test_walks_between_images_are_walks_between_their_codes(instance: Instance) -> None:
    model, x, given = instance.build(), instance.data(4), labels_of(instance, 2)
    a, b = (model.encode(part, **given).mean for part in x.split(2))
    torch.testing.assert_close(interpolate(model, x[:2], x[2:], 5, **given), interpolate(model, a, b, 5, **given))


# ---------------------------------------------------------------------------------------------------------------- codes


def test_codes_follow_the_prior() -> None:
    model = Autoencoder([1, 8, 8], latent_dim=3, channels=8, hidden=8)
    generator = torch.Generator().manual_seed(0)
    model.load_state_dict({name: torch.randn(w.shape, generator=generator) for name, w in model.state_dict().items()})
    prior = model.prior()
    assert isinstance(prior, MultivariateNormal)
    z = draw_codes(model, Streams(0, range(200_000)))
    scale = prior.stddev
    torch.testing.assert_close(z.mean(0) / scale, prior.mean / scale, atol=0.01, rtol=0)
    relative = torch.outer(scale, scale)
    torch.testing.assert_close(z.T.cov() / relative, prior.covariance_matrix / relative, atol=0.02, rtol=0)


def test_codes_of_other_priors_are_refused() -> None:
    with pytest.raises(ConfigError, match="expected a Gaussian prior, found Uniform"):
        draw_codes(Mirror(is_gaussian=False), Streams(0, range(2)))


@having(GenerativeModel, Decoder)
def test_every_code_has_its_own_stream(instance: Instance) -> None:
    model = instance.build()
    torch.manual_seed(1)  # which does not matter
    one, two = (draw_codes(model, Streams(5, range(num))) for num in (1, 2))
    assert two.shape == (2, *model.latent_shape)
    torch.testing.assert_close(one, two[:1])
    assert not torch.allclose(two[0], two[1])


@having(GenerativeModel, Decoder, where=lambda instance: not issubclass(instance.cls, EvidenceLowerBound))
def test_draws_without_pixel_noise_are_decoded_codes(instance: Instance) -> None:
    model, given = instance.build(), labels_of(instance, 3)
    draw = model.draw
    with torch.no_grad():
        drawn, codes = draw(Streams(5, range(3)), **given), draw_codes(model, Streams(5, range(3)))
        decoded = model.decode(codes, **given)
    torch.testing.assert_close(decoded, drawn)


# ------------------------------------------------------------------------------------------ reconstruct, traverse, edit


@having(GenerativeModel, Encoder)
def test_codes_of_images_are_means(instance: Instance) -> None:
    model, x, given = instance.build(), instance.data(3), labels_of(instance, 3)
    z = encode(model, x, **given)
    assert not z.requires_grad
    torch.testing.assert_close(z, model.encode(x, **given).mean)


@having(GenerativeModel, Encoder, Decoder)
def test_reconstructions_are_decoded_codes(instance: Instance) -> None:
    model, x, given = instance.build(), instance.data(4), labels_of(instance, 4)
    found = reconstruct(model, x, **given)
    assert torch.equal(reconstruct(model, x.double(), **given), found)
    assert found.shape == x.shape and not found.requires_grad
    torch.testing.assert_close(found, model.decode(model.encode(x, **given).mean, **given))


def test_traversals_set_one_dimension_at_a_time() -> None:
    z = torch.arange(6.0).view(2, 3)
    found = traverse(Mirror(), z, [4, 0], [-1.0, 7.0, 8.0])
    assert found.shape == (2, 3, 1, 2, 3)
    for row, dimension in enumerate([4, 0]):
        for column, value in enumerate([-1.0, 7.0, 8.0]):
            expected = z.flatten().clone()
            expected[dimension] = value
            assert torch.equal(found[row, column].flatten(), expected)
    assert torch.equal(z, torch.arange(6.0).view(2, 3))


@having(GenerativeModel, Decoder)
def test_traversals_of_every_decoder(instance: Instance) -> None:
    model, given = instance.build(), labels_of(instance, 1)
    z = torch.zeros(model.latent_shape)
    found = traverse(model, z, [0], torch.linspace(-2, 2, 3), **given)
    assert found.shape == (1, 3, *instance.event_shape) and not found.requires_grad
    torch.testing.assert_close(found[0, 1], model.decode(z[None], **given)[0])
    assert not torch.allclose(found[0, 0], found[0, 2])


def test_edits_set_or_add() -> None:
    x = images(3)
    before = x.clone()
    found = edit(Mirror(), x, {1: 5.0, 3: -2.0})
    expected = x.flatten(1).clone()
    expected[:, 1], expected[:, 3] = 5.0, -2.0
    assert torch.equal(found.flatten(1), expected)
    found = edit(Mirror(), x, {1: 5.0, 3: -2.0}, relative=True)
    torch.testing.assert_close(found.flatten(1), x.flatten(1) + torch.tensor([0, 5.0, 0, -2.0, 0, 0]))
    assert torch.equal(edit(Mirror(), x, {}), x) and torch.equal(x, before)


@having(GenerativeModel, Encoder, Decoder)
def test_edits_of_every_encoder(instance: Instance) -> None:
    model, x, given = instance.build(), instance.data(3), labels_of(instance, 3)
    kept = reconstruct(model, x, **given)
    torch.testing.assert_close(edit(model, x, {}, **given), kept)
    torch.testing.assert_close(edit(model, x, {0: 0.0}, relative=True, **given), kept)
    moved = edit(model, x, {0: 2.0}, relative=True, **given)
    assert moved.shape == x.shape and not moved.requires_grad and not torch.allclose(moved, kept)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_no_numbers(value: float) -> None:
    for call in (
        lambda: edit(Mirror(), images(1), {0: 1.0, 1: value}),
        lambda: traverse(Mirror(), torch.zeros(2, 3), [0], [0.0, value]),
    ):
        with pytest.raises(ConfigError, match=f"finite numbers as values of a dimension, found {value}"):
            call()


@pytest.mark.parametrize("dimension", [-1, 6])
def test_dimensions_that_a_code_has_not(dimension: int) -> None:
    for call in (
        lambda: edit(Mirror(), images(1), {dimension: 0.0}),
        lambda: traverse(Mirror(), torch.zeros(2, 3), [dimension], [0.0]),
    ):
        with pytest.raises(ConfigError, match=f"dimensions of the code from 0 to 5, found {dimension}"):
            call()


def test_images_and_codes_of_another_shape() -> None:
    for call in (reconstruct, lambda model, x: edit(model, x, {})):
        with pytest.raises(DataError, match=r"images of shape \[B, 1, 2, 3\], found \[4, 1, 3, 3\]"):
            call(Mirror(), torch.zeros(4, 1, 3, 3))
    with pytest.raises(DataError, match=r"^decode: expected codes of shape \[B, 2, 3\], found \[4, 2, 2\]$"):
        decode(Mirror(), torch.zeros(4, 2, 2))
    with pytest.raises(DataError, match=r"one code of shape \[2, 3\], found \[4, 2, 3\]"):
        traverse(Mirror(), torch.zeros(4, 2, 3), [0], [0.0])


# ------------------------------------------------------------------------------------------------ attributes, analogies


def test_attributes_are_differences_of_mean_codes() -> None:
    present, absent = images(700), images(30, seed=1) + 2
    direction = attribute(Mirror(), present, absent)
    torch.testing.assert_close(direction, (present.mean(0) - absent.mean(0))[0])
    moved = apply_attribute(Mirror(), absent[:4], direction, [0.0, 1.0, -0.5])
    assert moved.shape == (4, 3, 1, 2, 3)
    expected = torch.stack([absent[:4], absent[:4] + direction, absent[:4] - direction / 2], 1)
    torch.testing.assert_close(moved, expected)


@having(GenerativeModel, Encoder, Decoder, where=lambda instance: not issubclass(instance.cls, Conditional))
def test_attributes_of_every_encoder(instance: Instance) -> None:
    model, x = instance.build().double(), instance.data(6).double()
    direction = attribute(model, x[:3], x[3:])
    assert direction.shape == model.latent_shape and not direction.requires_grad
    moved = apply_attribute(model, x[3:], direction, [0.0, 1.0])
    torch.testing.assert_close(moved[:, 0], reconstruct(model, x[3:]))
    torch.testing.assert_close(moved[:, 1], model.decode(model.encode(x[3:]).mean + direction))


def test_attributes_that_do_not_fit() -> None:
    with pytest.raises(DataError, match="images on both sides, found none with the attribute absent"):
        attribute(Mirror(), images(2), images(0))
    with pytest.raises(DataError, match=r"one direction of shape \[2, 3\], found \[3\]"):
        apply_attribute(Mirror(), images(2), torch.zeros(3), [1.0])


@having(GenerativeModel, Conditional, Encoder, Decoder)
def test_attributes_are_not_for_conditional_models(instance: Instance) -> None:
    model, x = instance.build(), instance.data(2)
    for call in (
        lambda: attribute(model, x, x),
        lambda: apply_attribute(model, x, torch.zeros(model.latent_shape), [1.0]),
    ):
        with pytest.raises(ConfigError, match=r"is Conditional: .*`zoo analogies`"):
            call()


@having(GenerativeModel, Conditional, Encoder, Decoder)
def test_analogies_keep_the_code_and_change_the_class(instance: Instance) -> None:
    model, x, given = instance.build(), instance.data(4), labels_of(instance, 4)
    found = analogies(model, x, **given)
    assert found.shape == (4, model.num_classes, *instance.event_shape) and not found.requires_grad
    own = found[torch.arange(4), given["labels"]]
    torch.testing.assert_close(own, reconstruct(model, x, **given))
    z = model.encode(x, **given).mean
    torch.testing.assert_close(found[:, 1], model.decode(z, labels=torch.ones(4, dtype=torch.int64)))
    assert not torch.allclose(found[:, 0], found[:, 1])


@having(GenerativeModel, Encoder, Decoder)
def test_labels_are_for_conditional_models_alone(instance: Instance) -> None:
    model, x = instance.build(), instance.data(2)
    if isinstance(model, Conditional):
        with pytest.raises(
            ConfigError, match="is Conditional: expected one label, or one for each example, found none"
        ):
            reconstruct(model, x)
        with pytest.raises(ConfigError, match="labels: expected classes from 0 to"):
            reconstruct(model, x, labels=[0, model.num_classes])
    else:
        with pytest.raises(ConfigError, match=r"labels: .* does not take any; leave it out"):
            reconstruct(model, x, labels=[0, 0])


# ------------------------------------------------------------------------------------------------------------- complete


@having(GenerativeModel, Completable)
def test_completions_are_those_of_the_model(instance: Instance) -> None:
    model, x = instance.build(), instance.data(4)
    mask = (torch.arange(x[0].numel()) < 3).view(instance.event_shape)
    found, expected = (
        f(x, mask, generator=torch.Generator().manual_seed(0))
        for f in (lambda *a, **k: complete(model, *a, **k), model.complete)
    )
    assert torch.equal(found, expected) and torch.equal(found[:, mask], x[:, mask])
    for refuse in (lambda x: complete(model, x, mask), lambda x: model.complete(x, mask)):
        with pytest.raises(DataError, match=r"complete: expected (images|examples) of shape"):
            refuse(x[..., 1:])


# ------------------------------------------------------------------------------------------------- what a model has not

CALLS: list[tuple[str, tuple[type, ...], Callable[..., Any]]] = [
    ("interpolate", (Encoder, Decoder), lambda model, x, **given: interpolate(model, x, x, 3, **given)),
    ("codes", (Decoder,), lambda model, x, **given: draw_codes(model, Streams(0, range(2)))),
    ("reconstruct", (Encoder, Decoder), lambda model, x, **given: reconstruct(model, x, **given)),
    (
        "traverse",
        (Decoder,),
        lambda model, x, **given: traverse(model, torch.zeros(model.latent_shape), [0], [0.0], **given),
    ),
    ("edit", (Encoder, Decoder), lambda model, x, **given: edit(model, x, {0: 1.0}, **given)),
    ("analogies", (Conditional, Encoder, Decoder), lambda model, x, labels=0: analogies(model, x, labels)),
    (
        "complete",
        (Completable,),
        lambda model, x, **given: complete(model, x, torch.ones(x.shape[1:], dtype=torch.bool)),
    ),
]


@having(GenerativeModel)
@pytest.mark.parametrize(("name", "needed", "call"), CALLS, ids=[name for name, _, _ in CALLS])
def test_a_model_without_the_capability_says_so(
    instance: Instance, name: str, needed: tuple[type, ...], call: Callable[..., Any]
) -> None:
    model, x = instance.build(), instance.data(2)
    missing = [capability.__name__ for capability in needed if not isinstance(model, capability)]
    model.latent_shape = getattr(model, "latent_shape", (1,))
    if not missing:
        given = {"labels": 1} if isinstance(model, Conditional) else {}
        assert math.isfinite(call(model, x, **given).sum())
        return
    with pytest.raises(ConfigError) as caught:
        call(model, x)
    message = str(caught.value)
    assert message.startswith(f"{name}: expected ") and "\n" not in message
    assert any(capability in message for capability in missing) and f"found {instance.cls.__name__}" in message


def test_the_message_names_checkpoints_that_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Entry:
        def __init__(self, *capabilities: str) -> None:
            self.capabilities = capabilities

    found = {
        "vae-x": Entry("Encoder", "Decoder"),
        "gan-x": Entry("Decoder", "Conditional"),
        "made-x": Entry("Completable"),
        "cvae-x": Entry("Decoder", "Encoder", "Conditional"),
    }
    monkeypatch.setattr("zoo.latents.registry", lambda: found)
    with pytest.raises(ConfigError, match=r"expected a Completable .* such as made-x$"):
        complete(Mirror(), images(1), torch.ones(1, 2, 3, dtype=torch.bool))
    expected = "expected a Conditional, an Encoder and a Decoder .* found Mirror, which is not a Conditional"
    with pytest.raises(ConfigError, match=rf"{expected}; .* such as cvae-x$"):
        analogies(Mirror(), images(1), [0])


def test_only_codes_with_a_likelihood_of_pixels_leave_noise_to_the_pixels() -> None:
    models = VAE([1, 4, 4]), EDM([1, 4, 4]), Glow([1, 4, 4], num_steps=[1], hidden=[4]), Autoencoder([1, 4, 4])
    assert [has_pixel_noise(model) for model in models] == [True, False, False, False]
