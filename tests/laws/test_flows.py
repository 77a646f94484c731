"""The mathematics of flows: of each layer alone, and of every model that is a bijection."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zuko
from instances import Instance, having
from scipy import stats
from test_models import is_real
from torch import Tensor, nn
from torch.distributions import (
    Categorical,
    MixtureSameFamily,
    SigmoidTransform,
    TransformedDistribution,
    Uniform,
)
from torch.distributions.transforms import AffineTransform

from zoo import Zoo
from zoo.capabilities import Bijection
from zoo.errors import ConfigError
from zoo.flows.couplings import (
    MLP,
    Additive,
    Affine,
    CheckerboardCoupling,
    ConvNet,
    Coupling,
    MixtureOfLogistics,
    Transform,
    halves,
)
from zoo.flows.dequantizer import Dequantizer
from zoo.flows.flow import Flow
from zoo.flows.glow import Glow
from zoo.flows.iaf import InverseAutoregressive
from zoo.flows.layers import (
    ActNorm,
    Bijector,
    Chain,
    EvenFirst,
    Flatten,
    Flip,
    InvertibleLinear,
    LogisticToNormal,
    Logit,
    Split,
    Squeeze,
    stages,
)
from zoo.flows.maf import MAF, MaskedAutoregressive
from zoo.flows.nice import NICE
from zoo.flows.planar import Planar
from zoo.flows.realnvp import RealNVP
from zoo.flows.spline import RationalQuadratic
from zoo.laws import training
from zoo.laws.law import follows, seeded
from zoo.laws.training import invert
from zoo.nn.masked import MaskedLinear
from zoo.samplers import Tempered


def mlp(num_inputs: int, num_outputs: int) -> MLP:
    return MLP(num_inputs, 7, num_outputs)


def convnet(num_inputs: int, num_outputs: int) -> ConvNet:
    return ConvNet(num_inputs, 5, num_outputs)


TRANSFORMS: list[Transform] = [Additive(), Affine(), MixtureOfLogistics(3), RationalQuadratic(5, 1.5)]

LAYERS: dict[str, tuple[Callable[[], Bijector], tuple[int, ...]]] = {
    "flatten": (lambda: Flatten((2, 3)), (2, 3)),
    "squeeze": (Squeeze, (2, 4, 2)),
    "flip": (Flip, (3,)),
    "even first": (EvenFirst, (5,)),
    "logistic to normal": (LogisticToNormal, (4,)),
    "logit": (lambda: Logit(1e-3), (1, 2, 3)),
    "actnorm": (lambda: ActNorm(3), (3,)),
    "actnorm of images": (lambda: ActNorm(3), (3, 2, 2)),
    "linear": (lambda: InvertibleLinear(5), (5,)),
    "1x1 convolution": (lambda: InvertibleLinear(4), (4, 2, 3)),
    "checkerboard": (lambda: CheckerboardCoupling((2, 4, 3), True, ConvNet(2, 5, 4), Affine()), (2, 4, 3)),
    "odd checkerboard": (lambda: CheckerboardCoupling((1, 2, 3), False, ConvNet(1, 5, 11), TRANSFORMS[2]), (1, 2, 3)),
    "split": (lambda: Split(halves(4, convnet, Affine()), Flatten((2, 2, 2))), (4, 2, 2)),
    "planar": (lambda: Planar(3), (3,)),
    "autoregressive": (lambda: MaskedAutoregressive(5, 11, 2), (5,)),
    "narrow autoregressive": (lambda: MaskedAutoregressive(6, 3, 1), (6,)),
    "autoregressive of one": (lambda: MaskedAutoregressive(1, 3, 1), (1,)),
    "inverse autoregressive": (lambda: InverseAutoregressive(5, 11, 2), (5,)),
    "chain": (lambda: Chain(ActNorm(3), Flip(), halves(3, mlp, Affine())), (3,)),
    **{
        f"coupling: {type(transform).__name__}": (lambda t=transform: halves(5, mlp, t), (5,))
        for transform in TRANSFORMS
    },
}


def shaken(layer: nn.Module, scale: float = 0.5) -> Any:
    """The layer in double precision and evaluation mode, its parameters away from where they start."""
    generator = seeded()
    for parameter in layer.parameters():
        parameter.data += scale * torch.randn(parameter.shape, generator=generator)
    return layer.double().eval()


@pytest.mark.parametrize("name", LAYERS)
def test_layers_are_bijections_of_known_jacobian(name: str) -> None:
    make, shape = LAYERS[name]
    torch.manual_seed(0)
    layer = shaken(make())
    x = torch.rand(4, *shape, generator=seeded(), dtype=torch.float64)
    if name != "logit":
        x = 4 * x - 2
    invert(layer, layer.inverse, x)


@having(Bijection)
def test_flows_are_bijections_of_known_jacobian(instance: Instance) -> None:
    assert instance.build().latent_shape == (instance.data(1).numel(),)
    training.codes_are_a_change_of_variables(instance)


@having(Flow)
def test_the_density_is_that_of_the_latents_by_change_of_variables(instance: Instance) -> None:
    model = instance.build().double()
    x = instance.data(3)
    x = x.double() if instance.levels is None else model.dequantize(x, generator=seeded()).double()
    z, ladj = model.to_latent(x)
    torch.testing.assert_close(model.log_prob(x), model.prior().log_prob(z) + ladj)


@having(Flow, where=lambda instance: instance.levels is not None)
def test_grey_levels_come_back_from_their_latents(instance: Instance) -> None:
    model, x = instance.build(), instance.data(20)
    torch.testing.assert_close(model.decode(model.encode(x).mean), x)


@having(Flow, where=lambda instance: instance.event_shape == (2,))
def test_stages_lead_from_latents_to_data(instance: Instance) -> None:
    model = instance.build().double()
    if not hasattr(model, "bijector"):  # the Gaussian has no layers
        return
    z = torch.randn(20, 2, generator=seeded(), dtype=torch.float64)
    layers, moved = zip(*stages(model.bijector, z), strict=True)
    assert layers[0] is None and not any(isinstance(layer, Flip) for layer in layers)
    torch.testing.assert_close(moved[-1], model.from_latent(z))
    num_flips = sum(isinstance(layer, Flip) for layer in model.bijector.layers)
    assert torch.equal(moved[0], z.flip(1) if num_flips % 2 else z)


@having(Flow, where=is_real)
def test_samples_follow_the_density_on_a_grid(instance: Instance) -> None:
    """Chi-square over the cells of a grid, in which the density is integrated; the plane around it is one cell more."""
    if instance.event_shape != (2,):
        return
    model = instance.build()
    x = model.sample(20_000, generator=seeded(1), batch_size=20_000)
    low, high = (torch.quantile(x, q, dim=0) for q in (0.01, 0.99))
    num, fine = 12, 40  # cells along an axis, and points along a cell
    step = (high - low) / (num * fine)
    axes = [low[d] + step[d] * (torch.arange(num * fine) + 0.5) for d in range(2)]
    with torch.no_grad():
        density = model.log_prob(torch.cartesian_prod(*axes)).double().exp() * step.prod()
    mass = density.view(num, fine, num, fine).sum((1, 3)).flatten()
    cell = ((x - low) / (step * fine)).floor().long()
    is_inside = ((cell >= 0) & (cell < num)).all(1)
    counts = torch.bincount(cell[is_inside] @ torch.tensor([num, 1]), minlength=num * num)
    counts = torch.cat([counts, (~is_inside).sum()[None]])
    follows(counts, torch.cat([mass, 1 - mass.sum()[None]]).log())


@having(Flow, where=is_real)
def test_the_temperature_is_the_standard_deviation_of_the_latents(instance: Instance) -> None:
    model = instance.build().double()
    with torch.no_grad():
        one, half = (model.to_latent(model.sample(50, sampler=Tempered(t), generator=seeded(1)))[0] for t in (1.0, 0.5))
    torch.testing.assert_close(half, one / 2, atol=1e-5, rtol=1e-5)
    assert torch.equal(model.sample(3, sampler=Tempered(), generator=seeded(1)), model.sample(3, generator=seeded(1)))
    assert one.std() > 0.8


# ----------------------------------------------------------------------------------------------- learned dequantisation


def test_learned_dequantisation_begins_uniform() -> None:
    torch.manual_seed(0)
    epsilon = torch.randn(3, 2, 4, 2, generator=seeded())
    u, log_density = Dequantizer([2, 4, 2], 5)(torch.rand(3, 2, 4, 2, generator=seeded(1)), epsilon)
    torch.testing.assert_close(u, torch.distributions.Normal(0, 1).cdf(epsilon))
    torch.testing.assert_close(log_density, torch.zeros(3))


def test_the_density_of_learned_noise_is_that_by_change_of_variables() -> None:
    torch.manual_seed(0)
    dequantizer = shaken(Dequantizer([1, 4, 2], 5), 0.2)
    x = torch.rand(3, 1, 4, 2, generator=seeded(), dtype=torch.float64)
    epsilon = torch.randn(3, 1, 4, 2, generator=seeded(1), dtype=torch.float64)
    _, log_density = dequantizer(x, epsilon)
    normal = torch.distributions.Normal(0.0, 1.0).log_prob(epsilon).flatten(1).sum(1)
    for i in range(3):
        jacobian = torch.autograd.functional.jacobian(
            lambda e, i=i: dequantizer(x[i : i + 1], e[None])[0].flatten(), epsilon[i]
        )
        expected = normal[i] - jacobian.flatten(1).slogdet().logabsdet
        torch.testing.assert_close(log_density[i], expected, atol=1e-8, rtol=1e-8)


def test_learned_dequantisation_needs_images_of_even_sides() -> None:
    with pytest.raises(ConfigError, match=r"dequantizer: expected images, event_shape \[C, H, W\], found \[4\]"):
        MAF([4], dequantizer=3)
    with pytest.raises(ConfigError, match="multiples of 2 for 1 scales, found 3x4"):
        MAF([1, 3, 4], dequantizer=3)


# -------------------------------------------------------------------------------------------------------- under stress


def test_logistic_tails_become_normal_ones() -> None:
    """Far beyond the numbers that sigmoid(x) can hold, against the quantiles of SciPy where it can."""
    x = torch.tensor([[-1e4, -300.0, -20.0, -0.5, 0.0, 1e-3, 3.0, 700.0]], dtype=torch.float64)
    z, _ = LogisticToNormal()(x)
    quantiles = stats.norm.isf(1 / (1 + np.exp(x[:, 1:].abs().numpy())))
    np.testing.assert_allclose(z[:, 1:].abs(), quantiles, rtol=1e-9, atol=1e-9)
    assert (z.sign() == x.sign()).all()
    torch.testing.assert_close(LogisticToNormal().inverse(z), x)


@pytest.mark.parametrize("transform", TRANSFORMS, ids=lambda t: type(t).__name__)
def test_single_precision_comes_back_from_far_away_and_from_saturated_scales(transform: Transform) -> None:
    parameters = 10 * torch.randn(500, transform.num_parameters, 6, generator=seeded())
    for distance in (1, 10, 100):
        x = distance * torch.randn(500, 6, generator=seeded())
        z, log_slope = transform(x, parameters)
        assert z.isfinite().all() and log_slope.isfinite().all()
        error = (transform.inverse(z, parameters) - x).abs() / (1 + x.abs())
        assert error.max() < 1e-3


# ------------------------------------------------------------------------------------------------- against other people


def zuko_coupling(coupling: Coupling, size: int) -> zuko.transforms.CouplingTransform:
    def affine(kept: Tensor) -> torch.distributions.Transform:
        shift, raw = coupling.network(kept).unflatten(1, (2, -1)).unbind(1)
        return AffineTransform(shift, (2 * torch.tanh(raw / 2)).exp(), event_dim=1)

    return zuko.transforms.CouplingTransform(affine, torch.arange(size) < coupling.num_kept)


def test_an_affine_coupling_is_that_of_zuko() -> None:
    coupling = shaken(halves(5, mlp, Affine()))
    x = torch.randn(10, 5, generator=seeded(), dtype=torch.float64)
    other = zuko_coupling(coupling, 5)
    z, ladj = coupling(x)
    torch.testing.assert_close(z, other(x))
    torch.testing.assert_close(ladj, other.log_abs_det_jacobian(x, z))


def test_a_flow_of_couplings_is_that_of_zuko() -> None:
    """The density of a RealNVP put together from the transforms of zuko, with the same networks."""
    model = shaken(RealNVP([4], num_couplings=3, hidden=7), 0.3)
    transforms: list[Any] = []
    for layer in model.bijector.layers:
        if isinstance(layer, ActNorm):
            scale = (-layer.log_scale).exp()
            transforms.append(AffineTransform(-layer.loc * scale, scale, event_dim=1))
        elif isinstance(layer, Flip):
            transforms.append(zuko.transforms.PermutationTransform(torch.arange(4).flip(0)))
        else:
            transforms.append(zuko_coupling(layer, 4))
    flow = zuko.distributions.NormalizingFlow(zuko.transforms.ComposedTransform(*transforms), model.prior())
    x = torch.randn(10, 4, generator=seeded(), dtype=torch.float64)
    torch.testing.assert_close(model.log_prob(x), flow.log_prob(x), atol=1e-8, rtol=1e-8)


def test_the_distribution_function_of_a_mixture_of_logistics_is_that_of_torch() -> None:
    transform = MixtureOfLogistics(4)
    parameters = torch.randn(10, 14, 3, generator=seeded(), dtype=torch.float64)
    parameters[:, -2:] = 0
    x = 3 * torch.randn(10, 3, generator=seeded(), dtype=torch.float64)
    log_weights, loc, log_scale, _ = (part.movedim(1, -1) for part in transform._parts(parameters))
    logistic = TransformedDistribution(
        Uniform(torch.zeros_like(loc), torch.ones_like(loc)),
        [SigmoidTransform().inv, AffineTransform(loc, log_scale.exp())],
    )
    mixture = MixtureSameFamily(Categorical(logits=log_weights), logistic, validate_args=False)
    z, log_slope = transform(x, parameters)
    y = z - x / 100
    torch.testing.assert_close(y.sigmoid(), mixture.cdf(x))
    density = (log_slope.exp() - 1 / 100) * y.sigmoid() * (-y).sigmoid()
    torch.testing.assert_close(density, mixture.log_prob(x).exp())


def test_additive_couplings_are_those_of_zuko() -> None:
    """The density of a NICE put together from the transforms of zuko, with the same networks."""
    model = shaken(NICE([6], num_couplings=2, hidden=7, levels=None), 0.3)
    order = torch.tensor([0, 2, 4, 1, 3, 5])
    transforms: list[Any] = [zuko.transforms.PermutationTransform(order)]
    for layer in model.couplings.layers[2:]:
        if isinstance(layer, ActNorm):
            scale = (-layer.log_scale).exp()
            transforms.append(AffineTransform(-layer.loc * scale, scale, event_dim=1))
        elif isinstance(layer, Flip):
            transforms.append(zuko.transforms.PermutationTransform(torch.arange(6).flip(0)))
        else:
            transforms.append(
                zuko.transforms.CouplingTransform(
                    lambda kept, network=layer.network: AffineTransform(network(kept), 1.0, event_dim=1),
                    torch.arange(6) < 3,
                )
            )
    zeros = torch.zeros(6, dtype=torch.float64)
    logistic = TransformedDistribution(Uniform(zeros, zeros + 1), [SigmoidTransform().inv])
    base = torch.distributions.Independent(logistic, 1)
    flow = zuko.distributions.NormalizingFlow(zuko.transforms.ComposedTransform(*transforms), base)
    x = torch.randn(10, 6, generator=seeded(), dtype=torch.float64)
    torch.testing.assert_close(model.log_prob(x), flow.log_prob(x), atol=1e-8, rtol=1e-8)


def test_nice_needs_two_halves() -> None:
    with pytest.raises(ConfigError, match="event_shape: expected an even number of values, found 9"):
        NICE([1, 3, 3])


def test_an_invertible_linear_map_begins_as_a_rotation() -> None:
    torch.manual_seed(0)
    weight = InvertibleLinear(6).double()._weight()
    torch.testing.assert_close(weight @ weight.T, torch.eye(6, dtype=torch.float64), atol=1e-6, rtol=0)


@pytest.mark.parametrize("distance", [0.5, 3.0])
def test_a_spline_is_that_of_zuko_between_the_same_knots(distance: float) -> None:
    spline = RationalQuadratic(6, 1.5)
    parameters = torch.randn(20, 17, 3, generator=seeded(), dtype=torch.float64)
    x = distance * torch.randn(20, 3, generator=seeded(), dtype=torch.float64)
    z, log_slope = spline(x, parameters)
    other = zuko.transforms.MonotonicRQSTransform(*torch.randn(3, 20, 3, 6)[:2], torch.randn(20, 3, 5), bound=1.5)
    other.horizontal, other.vertical, other.derivatives = spline._knots(parameters)
    expected, ladj = other.call_and_ladj(x)
    torch.testing.assert_close((z, log_slope), (expected, ladj))
    torch.testing.assert_close(spline.inverse(z, parameters), other.inv(z))


def test_a_spline_has_gradients_outside_of_its_interval() -> None:
    parameters = torch.randn(4, 14, 2, generator=seeded()).requires_grad_()
    x = torch.tensor([[-100.0, 0.3], [1.5, -1.5], [7, 0], [1.4999, 1e30]]).requires_grad_()
    z, log_slope = RationalQuadratic(5, 1.5)(x, parameters)
    (z.sum() + log_slope.sum()).backward()
    assert x.grad is not None and parameters.grad is not None
    assert x.grad.isfinite().all() and parameters.grad.isfinite().all() and parameters.grad.any()


# ------------------------------------------------------------------------------------------------------- autoregressive


def test_a_masked_layer_is_a_linear_one_whose_other_weights_are_zero() -> None:
    layer, mask = MaskedLinear(np.array([2, 1, 3, 3]), np.array([0, 3, 2])), torch.zeros(3, 4, dtype=torch.bool)
    mask[1], mask[2, :2] = True, True
    assert layer.weight.shape == (1, 6) and torch.equal(layer.matrix()[mask], layer.weight[0])
    assert not layer.matrix()[~mask].any()
    x = torch.randn(5, 4, generator=seeded())
    layer(x).square().sum().backward()
    assert layer.weight.grad is not None and layer.weight.grad.all()
    torch.testing.assert_close(layer(x), x @ layer.matrix().T + layer.bias)


@pytest.mark.parametrize(("size", "hidden", "num_hidden"), [(6, 13, 2), (7, 4, 3), (1, 2, 1)])
def test_each_value_is_mapped_given_those_before_it(size: int, hidden: int, num_hidden: int) -> None:
    layer = shaken(MaskedAutoregressive(size, hidden, num_hidden), 1.0)
    x = torch.randn(50, size, generator=seeded(), dtype=torch.float64)  # of one example some units may be off
    jacobian = torch.stack([torch.autograd.functional.jacobian(lambda v: layer(v[None])[0][0], each) for each in x])
    assert torch.equal(jacobian, jacobian.tril()) and (jacobian.diagonal(dim1=1, dim2=2) > 0).all()
    if hidden >= size:
        seen = jacobian.any(0).tril(-1).sum()
        assert seen == size * (size - 1) / 2, "a value does not see all those before it"


def test_sampling_computes_each_unit_once_and_finds_what_a_pass_for_each_value_finds() -> None:
    layer = shaken(MaskedAutoregressive(7, 10, 2), 1.0)
    z = torch.randn(5, 7, generator=seeded(), dtype=torch.float64)
    x = torch.zeros_like(z)
    for d in range(7):
        h = x
        for part in layer.hidden:
            h = part(h).relu()
        x[:, d] = layer.transform.inverse(z, layer.last(h).unflatten(1, (2, 7)))[:, d]
    torch.testing.assert_close(layer.inverse(z), x)


def test_an_inverse_autoregressive_layer_takes_data_by_the_fast_path_and_by_one_that_has_gradients() -> None:
    layer = shaken(InverseAutoregressive(7, 10, 2), 1.0)
    x = torch.randn(5, 7, generator=seeded(), dtype=torch.float64)
    z, ladj = layer(x)
    assert z.requires_grad
    with torch.no_grad():
        torch.testing.assert_close(layer(x), (z, ladj))
    z, ladj = layer.generator(x)
    torch.testing.assert_close(layer(z), (x, -ladj))


def test_masked_autoregressive_flows_are_those_of_zuko() -> None:
    model = shaken(MAF([1, 2, 2], num_layers=1, hidden=6, levels=None, logit=None), 0.5)
    _, norm, layer, _ = model.bijector.layers

    def meta(x: Tensor) -> torch.distributions.Transform:
        for part in layer.hidden:
            x = part(x).relu()
        shift, raw = layer.last(x).unflatten(-1, (2, 4)).unbind(-2)
        return zuko.transforms.DependentTransform(AffineTransform(shift, (2 * torch.tanh(raw / 2)).exp()), 1)

    other = zuko.transforms.AutoregressiveTransform(meta, 4)
    x = torch.randn(10, 1, 2, 2, generator=seeded(), dtype=torch.float64)
    y = norm(x.flatten(1))[0]
    z, ladj = other.call_and_ladj(y)
    torch.testing.assert_close(layer(y), (z, ladj))
    torch.testing.assert_close(layer.inverse(z), other.inv(z))


# -------------------------------------------------------------------------------------------------------------- actnorm


def glow() -> Glow:
    torch.manual_seed(0)
    return Glow([1, 4, 4], num_steps=[2, 1], hidden=[4, 4])


def test_actnorm_starts_from_the_first_batch_of_training_and_from_no_other() -> None:
    layer, x = ActNorm(3), 5 + 2 * torch.randn(50, 3, 2, 2, generator=seeded())
    assert torch.equal(layer.eval()(x)[0], x) and not layer.initialized
    z, _ = layer.train()(x)
    torch.testing.assert_close(z.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(z.var((0, 2, 3), unbiased=False), torch.ones(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(layer(x + 1)[0], layer.eval()(x + 1)[0])
    torch.testing.assert_close(layer(x)[0], z)


def test_actnorm_is_the_same_after_loading(tmp_path: Path) -> None:
    model = glow().train()
    x = torch.rand(20, 1, 4, 4, generator=seeded())
    model.log_prob(x)
    expected = model.eval().log_prob(x)
    loaded = Zoo.load(f"local-dir:{Zoo.save(model, tmp_path / 'glow')}").train()
    torch.testing.assert_close(loaded.log_prob(x * 0.5 + 0.1), model.log_prob(x * 0.5 + 0.1))
    torch.testing.assert_close(loaded.log_prob(x), expected)
    fresh = glow()
    fresh.load_state_dict(model.state_dict())
    torch.testing.assert_close(fresh.train().log_prob(x), expected)


def test_the_first_step_sets_every_actnorm() -> None:
    model, x = glow().train(), torch.rand(200, 1, 4, 4, generator=seeded())
    model.training_log_prob(x, None)  # type: ignore[arg-type]
    layers = [layer for layer in model.modules() if isinstance(layer, ActNorm)]
    assert len(layers) == 3 and all(layer.initialized for layer in layers)
    assert model.to_latent(x)[0].std() < 3


def test_images_that_cannot_be_halved() -> None:
    for cls in (Glow, RealNVP):
        with pytest.raises(ConfigError, match="event_shape: expected a height and a width of multiples of 4 for 2"):
            cls([1, 6, 8])
    with pytest.raises(ConfigError, match=r"expected \[D\] with D > 1, or \[C, H, W\], found \[1\]"):
        RealNVP([1])
    with pytest.raises(ConfigError, match="hidden: expected as many numbers as num_steps, found 2 and 1"):
        Glow(num_steps=[3])


def test_logits_are_those_of_pixels() -> None:
    x = torch.rand(3, 4, dtype=torch.float64, generator=seeded())
    torch.testing.assert_close(Logit(0.05)(x)[0], torch.logit(0.05 + 0.9 * x))
    assert math.isfinite(Logit(1e-6)(torch.tensor([[0.0, 1.0]]))[1].item())
