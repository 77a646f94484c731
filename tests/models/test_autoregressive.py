"""What autoregressive models in raster order have that is theirs alone: steps, masks, blind spots, forcing."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from instances import Instance, having
from PIL import Image, ImageSequence
from test_models import assert_drawn_by_passes
from test_training import beginning
from torch import Tensor, nn
from torch.nn import functional as F

from zoo import Zoo
from zoo.autoregressive.color_pixelcnn import ColorPixelCNN
from zoo.autoregressive.eonade import EoNADE
from zoo.autoregressive.fvsbn import FVSBN
from zoo.autoregressive.gated_pixelcnn import GatedLayer, GatedPixelCNN
from zoo.autoregressive.made import MADE
from zoo.autoregressive.nade import NADE
from zoo.autoregressive.pixelcnn import PixelCNN
from zoo.autoregressive.pixelrnn import PixelRNN
from zoo.autoregressive.raster import MaskedConv2d, RasterOrder, forced, log_likelihood
from zoo.autoregressive.regularization import bias_of, shift
from zoo.autoregressive.rnn import RNN
from zoo.batch import Batch
from zoo.capabilities import Completable, Conditional, GenerativeModel, TractableDensity
from zoo.cli import main
from zoo.errors import ConfigError, DataError
from zoo.laws import densities
from zoo.laws.law import follows, seeded
from zoo.optim import Optimization
from zoo.pictures import field_of_sight, pixels
from zoo.pixelwise import drawing, probabilities, receptive_field
from zoo.random import Streams, rand, seed_from
from zoo.training import Trainer
from zoo.training.recipe import build_data, build_model, load_recipe

SHAPE = [1, 7, 9]
RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))


def images(num: int, seed: int = 0) -> Tensor:
    return (torch.rand(num, *SHAPE, generator=torch.Generator().manual_seed(seed)) < 0.5).float()


# ------------------------------------------------------------------------------------------------- what a pixel sees


@pytest.mark.parametrize("mask", ["A", "B"])
def test_masked_convolutions_are_convolutions_with_zeros_in_the_kernel(mask: str) -> None:
    torch.manual_seed(0)
    conv, x = MaskedConv2d(2, 3, 5, mask), torch.randn(4, 2, 6, 7)  # type: ignore[arg-type]
    kernel = torch.zeros(3, 2, 25)
    own = 12 + (mask == "B")  # the middle one of 25 taps in raster order is the pixel
    kernel[..., :own] = conv.weight.detach().flatten(2)[..., :own]
    torch.testing.assert_close(conv(x), F.conv2d(x, kernel.view(3, 2, 5, 5), conv.bias, padding=2))
    assert conv.above().shape == (3, 2, 2, 5) and conv.left().shape == (3, 2, own - 10)


def triangle(reach: int) -> Callable[[int, int, int, int], bool]:
    """Of pixel (r, c): what is left in its row, `reach` pixels to the right in the row above, one more with each up."""

    def sees(r: int, c: int, row: int, column: int) -> bool:
        return everything(r, c, row, column) and column - c < reach + r - row

    return sees


def from_both_sides(r: int, c: int, row: int, column: int) -> bool:
    """Of a Diagonal BiLSTM: the last pixel of the row above only as far left as the first convolution reaches."""
    is_hidden = row == r - 1 and column == SHAPE[2] - 1 and c < column - 3
    return everything(r, c, row, column) and not is_hidden


def everything(r: int, c: int, row: int, column: int) -> bool:
    return (row, column) < (r, c)


@pytest.mark.parametrize(
    ("model", "sees"),
    [
        (lambda: PixelCNN(SHAPE, channels=8, num_layers=8, first_kernel=3), triangle(1)),
        (lambda: PixelRNN(SHAPE, "row-lstm", channels=8, num_layers=8, first_kernel=3), triangle(1)),
        (lambda: PixelRNN(SHAPE, "row-lstm", channels=8, num_layers=8, first_kernel=5), triangle(2)),
        (lambda: GatedPixelCNN(SHAPE, channels=6, num_layers=8), everything),
        (lambda: PixelRNN(SHAPE, "diagonal-bilstm", channels=8, num_layers=1), from_both_sides),
        (lambda: RNN(SHAPE, hidden=8, num_layers=1), everything),
    ],
    ids=["pixelcnn", "row-lstm", "row-lstm-5", "gated-pixelcnn", "diagonal-bilstm", "rnn"],
)
def test_what_a_pixel_sees(model: Callable[[], RasterOrder], sees: Callable[[int, int, int, int], bool]) -> None:
    """Blind spots right of a triangle, in PixelCNN and Row LSTM; one hidden pixel, in Diagonal BiLSTM; or none."""
    torch.manual_seed(0)
    _, height, width = SHAPE
    network = model().double()
    for r, c in ((height - 1, 1), (height // 2, width // 2)):
        x = images(8).double().requires_grad_()
        network.logits(x)[:, r * width + c].sum().backward()
        seen = (x.grad.abs().sum((0, 1)) > 0).tolist()  # type: ignore[union-attr]
        for row in range(height):
            for column in range(width):
                assert seen[row][column] == sees(r, c, row, column), (r, c, row, column)


WIDE = {"channels": 4, "num_layers": 2, "kernel": 5, "first_kernel": 7}


@pytest.mark.parametrize(
    "model",
    [
        lambda: PixelCNN(SHAPE, **WIDE),
        lambda: GatedPixelCNN(SHAPE, **WIDE),
        lambda: PixelRNN(SHAPE, "row-lstm", channels=4, num_layers=2),
        lambda: PixelRNN(SHAPE, "diagonal-bilstm", channels=4, num_layers=2),
        lambda: RNN(SHAPE, hidden=6, num_layers=2, window=12),
    ],
    ids=["pixelcnn", "gated-pixelcnn", "row-lstm", "diagonal-bilstm", "rnn"],
)
def test_images_of_more_rows_than_a_layer_sees_are_drawn_as_by_one_pass_per_pixel(
    model: Callable[[], RasterOrder],
) -> None:
    torch.manual_seed(0)
    network = model()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
        assert_drawn_by_passes(network, images(40), 0)
        assert_drawn_by_passes(network, images(40), 22)


# ------------------------------------------------------------------------------------------ fast ways and plain ways


def is_fast(method: str) -> Callable[[Instance], bool]:
    return lambda instance: hasattr(getattr(instance.cls, method, None), "__wrapped__")


@having(Completable, where=is_fast("from_uniforms"))
def test_the_fast_way_draws_the_same_bits_as_the_plain_way(instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x, given = instance.build(), instance.data(100), instance.given(100)
    order = model.order(Streams(0, [0]))[0]
    mask = (order.argsort() < len(order) // 2).view(model.event_shape)  # what comes first

    def drawn() -> list[Tensor]:
        with torch.no_grad():
            completed = [model.complete(x, mask, generator=seeded(), **each) for each in (given, {})]
            return [model.draw(Streams(0, range(100)), **given), *completed]

    fast = drawn()
    monkeypatch.setattr(instance.cls, "from_uniforms", inspect.unwrap(instance.cls.from_uniforms))
    for one, other in zip(fast, drawn(), strict=True):
        assert torch.equal(one, other)


@having(TractableDensity, where=is_fast("log_prob"))
def test_a_few_images_at_a_time_have_the_same_likelihoods(instance: Instance) -> None:
    model, x, given = instance.build(), instance.data(60), instance.given(60)
    with torch.no_grad():
        plain = inspect.unwrap(instance.cls.log_prob)(model, x, **given)
        torch.testing.assert_close(model.log_prob(x, **given), plain)


@having(Conditional, RasterOrder)
def test_without_labels_a_class_is_inferred_from_what_is_known(instance: Instance) -> None:
    """What is completed and expected is that of the mixture of all classes, each as likely as any other."""
    model, states = instance.build(), instance.states()
    with torch.no_grad():
        model.classes.weight.mul_(5)  # so that a few pixels tell classes apart
        by_class = torch.stack([model.log_prob(states, labels=label) for label in range(model.num_classes)])
        mixture = by_class.double().logsumexp(0) - math.log(model.num_classes)
        expected = densities.enumerated(mixture, states, torch.arange(states[0].numel()))
        torch.testing.assert_close(model.expected(states).double(), expected, atol=1e-5, rtol=1e-4)
    mask = (torch.arange(states[0].numel()) < 4).view(instance.event_shape)
    completed = model.complete(states[-1].expand(20_000, *instance.event_shape), mask, generator=seeded())
    fits = ((states == states[-1]) | ~mask).flatten(1).all(1)
    follows(instance.counts(completed), mixture.where(fits, -math.inf).log_softmax(0))


# ----------------------------------------------------------------------------------------------------------- PixelRNN


@pytest.mark.parametrize("kind", ["row-lstm", "diagonal-bilstm"])
def test_lines_step_as_an_lstm_does_pixel_by_pixel(kind: str) -> None:
    """A layer against recursions over single pixels through torch's own cell."""
    torch.manual_seed(0)
    channels, (_, height, width) = 3, SHAPE
    layer = PixelRNN(SHAPE, kind, channels=channels, num_layers=1).layers[0].double()  # type: ignore[arg-type]
    gates = torch.randn(2, height, width, layer.input.out_channels, dtype=torch.float64)  # type: ignore[union-attr]
    # ours are o, f, i, g; torch's are i, f, g, o
    order = torch.arange(4 * channels).view(4, channels)[[2, 1, 3, 0]].flatten()
    expected = torch.zeros(2, height, width, channels, dtype=torch.float64)
    for direction, part in enumerate(gates.split(4 * channels, -1)):
        state = layer.state[direction]  # type: ignore[index]
        cell = nn.LSTMCell(4 * channels, channels, bias=False).double()
        with torch.no_grad():
            cell.weight_ih.copy_(torch.eye(4 * channels)[order])
            cell.weight_hh.zero_()
        zero = torch.zeros(2, channels, dtype=torch.float64)
        h: dict[tuple[int, int], Tensor] = {}
        c: dict[tuple[int, int], Tensor] = {}
        for row in range(height):
            for step in range(width):
                column = width - 1 - step if direction else step
                beside = column + 1 if direction else column - 1
                if kind == "row-lstm":
                    near, before = [(row - 1, column + i) for i in (-1, 0, 1)], (row - 1, column)
                else:
                    near, before = [(row - 1, column), (row, beside)], (row, beside)
                sums = part[:, row, column] + torch.cat([h.get(place, zero) for place in near], 1) @ state
                h[row, column], c[row, column] = cell(sums, (zero, c.get(before, zero)))
                if row + direction < height:
                    expected[:, row + direction, column] += h[row, column]
    torch.testing.assert_close(layer.states(gates), expected)  # type: ignore[operator]


@pytest.mark.parametrize("model", [PixelCNN, PixelRNN, GatedPixelCNN, ColorPixelCNN])
def test_kernels_are_odd(model: Callable[..., TractableDensity]) -> None:
    with pytest.raises(ConfigError, match=r"odd.*found.* 4"):
        model(first_kernel=4)


@pytest.mark.parametrize("model", [PixelCNN, PixelRNN, GatedPixelCNN])
def test_colours_are_refused_with_what_to_do(model: Callable[..., TractableDensity]) -> None:
    with pytest.raises(
        ConfigError, match=rf"^event_shape: {model.__name__} expected one channel, found 3; make .*grey"
    ):
        model((3, 8, 8))


@pytest.mark.parametrize("model", [MADE, NADE, EoNADE])
def test_only_images_can_be_shifted(model: Callable[..., TractableDensity]) -> None:
    with pytest.raises(ConfigError, match=r"expected images \(C, H, W\) to shift"):
        model([2, 3], max_shift=1)


def test_both_stacks_drop_units_of_their_own() -> None:
    torch.manual_seed(0)
    layer, (v, h) = GatedLayer(8, 3), torch.randn(2, 50, 8, 6, 6)
    nn.init.dirac_(layer.out.weight)
    nn.init.zeros_(cast(Tensor, layer.out.bias))
    pairs = zip(layer(v, h, 0.3, Streams(0, range(50))), (v, h), strict=True)
    of_v, of_h = (new == old for new, old in pairs)  # to what is dropped, nothing is added
    for dropped, rate in ((of_v, 0.3), (of_h, 0.3), (of_v & of_h, 0.09)):
        assert dropped.double().mean().item() == pytest.approx(rate, abs=0.02)


# ---------------------------------------------------------------------------------------------------------------- RNN


def rnn(forcing: str, **arguments: float) -> RNN:
    torch.manual_seed(0)
    return RNN(SHAPE, hidden=6, num_layers=2, window=3, forcing=forcing, **arguments)  # type: ignore[arg-type]


def test_scheduled_sampling_puts_draws_in_place_of_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = rnn("scheduled", sampled=0.4, ramp=100), images(400)
    streams = [Streams(0, range(len(x))) for _ in range(4)]
    assert torch.equal(model.training_log_prob(x, streams[0]), model.log_prob(x))  # at the first step there are none
    monkeypatch.setattr(RNN, "global_step", 50)
    mixed = model._mixed(x, None, streams[1])
    # half of the draws, which are as likely 1 as 0 and so are the pixels, differ
    assert (mixed != x).double().mean().item() == pytest.approx(0.2 / 2, abs=0.01)
    expected = log_likelihood(model.logits(mixed), x).sum(-1)
    torch.testing.assert_close(model.training_log_prob(x, streams[2]), expected)
    monkeypatch.setattr(RNN, "global_step", 10_000)
    assert (model._mixed(x, None, streams[3]) != x).double().mean().item() == pytest.approx(0.4 / 2, abs=0.01)


def test_draws_of_shifted_images_follow_what_is_expected_of_them() -> None:
    model, shifts = rnn("scheduled", max_shift=1), torch.cartesian_prod(*[torch.arange(-1, 2)] * 2)
    torch.nn.init.normal_(model.shift_biases)
    uniforms = torch.rand(9, *SHAPE)
    with torch.no_grad():
        x = model.from_uniforms(uniforms, shifts)
        assert torch.equal(x, (uniforms < model.logits(x, shifts).sigmoid().view_as(x)).to(x))
        assert not torch.equal(x, model.from_uniforms(uniforms))


@pytest.mark.parametrize("forcing", ["scheduled", "professor"])
def test_what_forcing_draws_is_told_its_shift(forcing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = rnn(forcing, max_shift=1, sampled=0.99, ramp=1), images(50)
    nn.init.normal_(model.shift_biases)
    monkeypatch.setattr(RNN, "global_step", 1)
    found = model.training_log_prob(x, Streams(0, range(50)))
    moved, shifts = shift(x, 1, streams := Streams(0, range(50)))
    uniforms = rand((50, *SHAPE), streams)
    if forcing == "scheduled":
        uniforms = forced(uniforms, moved, rand((50, *SHAPE), streams) >= 0.99)
    with torch.no_grad():
        drawn = model.from_uniforms(uniforms, shifts)
    if forcing == "scheduled":
        expected = log_likelihood(model.logits(drawn, shifts), moved).sum(1)
    else:
        (h, logits), (free, free_logits) = model.behaviour(moved, shifts), model.behaviour(drawn, shifts)
        real, fake = (
            model.discriminator(torch.cat([states, o.sigmoid()[..., None]], -1))
            for states, o in ((h, logits), (free, free_logits))
        )
        critic = F.logsigmoid(real) + F.logsigmoid(-fake)
        expected = log_likelihood(logits, moved).sum(1) + model.weight * F.logsigmoid(fake) + critic
    torch.testing.assert_close(found, expected)


# -------------------------------------------------------------------------------------------------------- distillation


def teachers() -> tuple[RNN, GatedPixelCNN]:
    """Two, of different architectures, who know shifts of up to three pixels and of up to one."""
    torch.manual_seed(1)
    other = RNN(SHAPE, hidden=6, num_layers=1, forcing="scheduled", max_shift=3)
    gated = GatedPixelCNN(SHAPE, channels=4, num_layers=2, hidden=4, max_shift=1, dropout=0.5)
    for parameter in (*gated.parameters(), *other.parameters()):
        nn.init.normal_(parameter, std=0.5)
    return other, gated


@pytest.mark.parametrize("max_shift", [1, 3])
def test_a_shift_means_the_same_to_models_that_know_larger_ones(max_shift: int) -> None:
    sides = torch.arange(-max_shift, max_shift + 1)
    biases = torch.cartesian_prod(sides, sides).float()  # that of each shift is the shift
    shifts = torch.cartesian_prod(*[torch.arange(-1, 2)] * 2)
    assert torch.equal(bias_of(shifts, biases), shifts.float())


@pytest.mark.parametrize("max_shift", [0, 2])
def test_a_pupil_learns_what_its_teachers_expect_of_each_pixel(max_shift: int) -> None:
    """The mean of its log-probability over pixels as drawn with the teachers' mean logits, given the image's pixels."""
    other, gated = teachers()
    torch.manual_seed(2)
    pupil, x = PixelCNN(SHAPE, channels=4, num_layers=1, hidden=4, max_shift=max_shift), images(40)
    if max_shift:
        nn.init.normal_(pupil.position.shifts)
    pupil.learn_from([other, gated])
    found = pupil.training_log_prob(x, Streams(0, range(40)))

    x, shifts = shift(x, min(max_shift, 1), Streams(0, range(40)))  # what all of them know
    assert shifts.any() == bool(max_shift)
    p = ((gated.logits(x, shifts) + other.logits(x, shifts)) / 2).sigmoid()
    of_pupil = torch.distributions.Bernoulli(logits=pupil.logits(x, shifts))
    on, off = (of_pupil.log_prob(torch.tensor(y)) for y in (1.0, 0.0))
    torch.testing.assert_close(found, (p * on + (1 - p) * off).sum(1))

    found.sum().backward()
    assert all(parameter.grad is None for each in (gated, other) for parameter in each.parameters())
    assert all(parameter.grad is not None for parameter in pupil.parameters())
    assert not any("teacher" in name for name in (*pupil.state_dict(), *dict(pupil.named_modules())))


def test_every_parameter_has_a_gradient_though_a_teacher_knows_no_shifts() -> None:
    """Processes that train together wait for the gradient of each."""
    pupil = PixelCNN(SHAPE, channels=4, num_layers=1, hidden=4, max_shift=2)
    pupil.learn_from([rnn("teacher")])
    pupil.training_log_prob(images(5), Streams(0, range(5))).sum().backward()
    assert all(parameter.grad is not None for parameter in pupil.parameters())
    assert not pupil.position.shifts.grad.any()


def test_teachers_stay_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even a move to where they are lays out the weights of a GRU anew."""
    pupil, teacher = rnn("teacher"), rnn("scheduled")
    pupil.learn_from([teacher])
    monkeypatch.setattr(RNN, "_apply", lambda *_, **__: pytest.fail("moved"))
    pupil.training_log_prob(images(5), Streams(0, range(5)))


def test_teachers_in_low_precision() -> None:
    pupil, x = PixelCNN(SHAPE, channels=4, num_layers=1, hidden=4), images(5)
    pupil.learn_from(teachers())
    with torch.autocast("cpu", torch.bfloat16):
        low = pupil.training_log_prob(x, Streams(0, range(5)))
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, pupil.training_log_prob(x, Streams(0, range(5))), rtol=0.02, atol=0.0)


def test_a_pupil_becomes_its_teacher_whatever_the_images_are() -> None:
    torch.manual_seed(0)
    teacher, pupil = (GatedPixelCNN([1, 2, 3], channels=6, num_layers=2, hidden=6) for _ in range(2))
    for parameter in teacher.parameters():
        nn.init.normal_(parameter, std=0.5)
    states = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 6).view(-1, 1, 2, 3)

    def divergence() -> float:
        p, q = teacher.log_prob(states).double(), pupil.log_prob(states).double()
        return (p.exp() * (p - q)).sum().item()

    before, optimizer = divergence(), torch.optim.Adam(pupil.parameters(), lr=0.02)
    pupil.learn_from([teacher])
    for step in range(300):
        optimizer.zero_grad()
        (-pupil.training_log_prob(states, Streams(0, range(64), step)).mean()).backward()  # all are as likely
        optimizer.step()
    assert divergence() < 0.01 * before


def test_who_teaches_whom() -> None:
    other, gated = teachers()
    small = PixelCNN([1, 4, 4], channels=4, num_layers=1, hidden=4)
    for pupil, masters, message in (
        (gated, [other, small], r"teachers: expected .* of event_shape \[1, 7, 9\], found a PixelCNN of \[1, 4, 4\]$"),
        (
            gated,
            [MADE(SHAPE, hidden=4)],
            r"teachers: expected .* of event_shape .*, found a MADE of \[1, 7, 9\]$",
        ),
        (MADE(SHAPE, hidden=4), [gated], r"teachers: MADE learns from the data alone; leave them out$"),
        (other, [gated], r"teachers: expected an RNN of forcing teacher, found scheduled; leave them out$"),
    ):
        with pytest.raises(ConfigError, match=message):
            pupil.learn_from(masters)
        assert not getattr(pupil, "teachers", ())
    (pupil := rnn("teacher")).learn_from([gated, other])
    assert pupil.teachers == (gated, other)


@pytest.mark.parametrize("forcing", ["teacher", "scheduled", "professor"])
def test_training_drops_units_out_and_the_density_does_not(forcing: str) -> None:
    (model, plain), x = (rnn(forcing, dropout=rate) for rate in (0.5, 0.0)), images(20)
    dropped, whole = (each.training_log_prob(x, Streams(0, range(20))) for each in (model, plain))
    assert not torch.isclose(dropped, whole).any()
    torch.testing.assert_close(model.log_prob(x), plain.log_prob(x))


def test_professor_forcing_trains_both_sides_by_their_own_losses() -> None:
    model, x = rnn("professor", weight=0.7), images(5)
    streams = Streams(3, range(5))
    free = model.draw(Streams(3, range(5)))
    (-model.training_log_prob(x, streams).mean()).backward()
    found = {name: parameter.grad for name, parameter in model.named_parameters()}
    model.zero_grad()

    def judged(images: Tensor) -> Tensor:
        h, logits = model.behaviour(images)
        return model.discriminator(torch.cat([h, logits.sigmoid()[..., None]], -1)).sigmoid()

    critic = -(judged(x).log() + (1 - judged(free)).log()).mean()
    own = -(model.log_prob(x) + 0.7 * judged(free).log()).mean()
    for name, parameter in model.named_parameters():
        loss = critic if name.startswith("discriminator") else own
        (expected,) = torch.autograd.grad(loss, parameter, retain_graph=True)
        torch.testing.assert_close(found[name], expected, atol=1e-5, rtol=1e-4)
    assert math.isfinite(model.log_prob(x).sum().item())


# ------------------------------------------------------------------------------------------------------------ pictures


def test_receptive_fields_show_the_blind_spot() -> None:
    torch.manual_seed(0)
    models = PixelCNN(SHAPE, channels=8, num_layers=8, first_kernel=3), GatedPixelCNN(SHAPE, channels=6, num_layers=8)
    for model, sees in zip(models, (triangle(1), everything), strict=True):
        (field,), (before,) = receptive_field(model, 5, 3, generator=torch.Generator().manual_seed(0))
        picture = field_of_sight(field, before, 5, 3)
        assert field.shape == tuple(SHAPE) and picture.shape == (3, *SHAPE[1:])
        assert model.output.weight.dtype == torch.float32  # of a copy was it taken
        for row in range(SHAPE[1]):
            for column in range(SHAPE[2]):
                red, green, blue = picture[:, row, column].tolist()
                assert (field[0, row, column] > 0) == sees(5, 3, row, column)
                if (row, column) == (5, 3):
                    assert red > 2 * green and red > 2 * blue
                elif sees(5, 3, row, column):
                    assert red == green == blue >= 0.25
                elif everything(5, 3, row, column):
                    assert blue > 2 * green > red
                else:
                    assert red == green == blue < 0.2


def test_the_shipped_gated_pixelcnn_sees_everything_from_the_middle_of_the_image() -> None:
    recipe = load_recipe(RECIPES[0].parent.parent / "checkpoints" / "gated-pixelcnn-binarized-mnist" / "recipe.yaml")
    model = build_model({**recipe["model"], "channels": 4}, seed=0)
    fields, _ = receptive_field(model, 14, 14, num=4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(fields.flatten() > 0, torch.arange(28 * 28) < 14 * 28 + 14)


def test_receptive_fields_are_derivatives() -> None:
    """Of a logistic regression they are its weights times p (1 - p), whose mean over all images is known."""
    model, shape = FVSBN(event_shape=[1, 3, 4]), (3, 4)
    with torch.no_grad():
        model.weight.normal_(generator=torch.Generator().manual_seed(0))
    pixel, num = 6, 400
    fields, before = receptive_field(model, 1, 2, num=num, generator=torch.Generator().manual_seed(0))
    assert torch.equal(before.flatten(), torch.arange(12) < pixel) and fields.shape == (1, 1, *shape)
    weight = model.matrix()[pixel, :pixel].detach().double()
    states = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * pixel).double()
    p = (states @ weight).sigmoid()
    slope = p * (1 - p)
    error = (slope.std() / num**0.5).item()
    ratios = fields.flatten()[:pixel] / weight.abs()
    torch.testing.assert_close(ratios, ratios[:1].expand(pixel))
    assert ratios[0].item() == pytest.approx(slope.mean().item(), abs=4 * error)
    assert not fields.flatten()[pixel:].any()


@pytest.mark.parametrize("model", [MADE([2, 2, 3], hidden=12, num_masks=3), EoNADE([1, 3, 3], hidden=6)])
def test_receptive_fields_are_differences(model: MADE | EoNADE) -> None:
    """Zero for what changes nothing of what is expected, and for nothing else."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    fields, before = receptive_field(model, 1, 1, generator=torch.Generator().manual_seed(3))
    order = model.order(Streams(seed_from(torch.Generator().manual_seed(3)), [0])).expand(20, -1)
    x = (torch.rand(20, *model.event_shape, generator=torch.Generator().manual_seed(0)) < 0.5).float()
    with torch.no_grad():
        expected = model.expected(x, order)[:, :, 1, 1]
        for place in range(x[0].numel()):
            other = x.flatten(1).clone()
            other[:, place] = 1 - other[:, place]
            moved = ((model.expected(other.view_as(x), order)[:, :, 1, 1] - expected).abs() > 1e-7).any(0)
            assert torch.equal(moved, (fields > 0).flatten(1)[:, place])
            assert torch.equal(moved, before.flatten(1)[:, place])


def test_pictures_of_what_is_no_picture() -> None:
    flat, model = MADE([2, 3], hidden=4), MADE(SHAPE, hidden=4)
    with pytest.raises(
        ConfigError, match=r"expected a model of images .*, found an event_shape of \[2, 3\] and num 16$"
    ):
        receptive_field(flat, 0, 0)
    for num in (0, -1):
        with pytest.raises(ConfigError, match=rf"and num at least 1, found an event_shape of .* and num {num}$"):
            receptive_field(model, 0, 0, num=num)
    with pytest.raises(
        DataError, match=r"^probabilities: expected images of shape \[B, 1, 7, 9\], found \[2, 1, 7, 8\]$"
    ):
        probabilities(model, torch.zeros(2, 1, 7, 8))
    whole = images(2).to(torch.uint8)
    torch.testing.assert_close(probabilities(model, whole), probabilities(model, whole.float()))
    assert drawing(images(0), 3).shape == (3, 0, *SHAPE)


def test_a_drawing_goes_from_nothing_to_the_image() -> None:
    x = images(3)
    frames = drawing(x, 22).flatten(2)  # 63 pixels, three a frame
    assert torch.equal(frames[-1], x.flatten(1)) and (frames[0] == 0.5).all()
    for i, frame in enumerate(frames):
        assert torch.equal(frame[:, : 3 * i], x.flatten(1)[:, : 3 * i]) and (frame[:, 3 * i :] == 0.5).all()


def test_pictures_from_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*words: object) -> int:
        return main([str(word) for word in words])

    torch.manual_seed(0)
    model = GatedPixelCNN([1, 8, 6], channels=2, num_layers=1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    Zoo.save(model, tmp_path / "gated")
    gated = f"local-dir:{tmp_path / 'gated'}"
    assert run("probabilities", gated, "-n", 4, "--out", tmp_path / "p.png") == 0
    picture = np.asarray(Image.open(tmp_path / "p.png"))[::2, ::2]
    above, below = picture[2:10, 2:8], picture[12:20, 2:8]
    with torch.no_grad():
        expected = model.logits(torch.tensor(above / 255.0).float()[None, None]).sigmoid().view(1, 1, 8, 6)
    assert set(np.unique(above)) == {0, 255} and np.array_equal(below, pixels(expected)[0, 0].numpy())
    assert run("animate", gated, "-n", 2, "--frames", 5, "--out", tmp_path / "a.gif") == 0
    with Image.open(tmp_path / "a.gif") as film:
        assert film.n_frames == 5 and film.info["duration"] == 40
        sizes = [(np.asarray(frame.convert("L")) == 128).mean() for frame in ImageSequence.Iterator(film)]
    assert sizes == sorted(sizes, reverse=True) and sizes[-1] < 0.05 < sizes[0]
    recipe = tmp_path / "pixelcnn.yaml"
    recipe.write_text(
        "data: {class: Digits, binarize: true}\n"
        "model: {class: zoo.autoregressive.pixelcnn.PixelCNN, event_shape: [1, 8, 8], channels: 2, num_layers: 1}\n"
    )
    for source, pixel in ((gated, "7,5"), (recipe, "3,2")):
        words = (source, "--pixel", pixel, "-n", 2, "--out", tmp_path / "f.png", "--overwrite")
        assert run("receptive-field", *words) == 0
        assert len(np.unique(np.asarray(Image.open(tmp_path / "f.png")))) > 4
    torch.manual_seed(0)
    color = ColorPixelCNN([3, 5, 6], levels=5, channels=4, num_layers=1, hidden=5)
    Zoo.save(color, tmp_path / "color")
    for channel, shown in (((), 3), (("--channel", 1), 1)):
        words = (f"local-dir:{tmp_path / 'color'}", "--pixel", "3,3", "-n", 2, *channel)
        assert run("receptive-field", *words, "--out", tmp_path / f"c{shown}.png") == 0
        with Image.open(tmp_path / f"c{shown}.png") as image:
            assert image.size == (10 * (2 + 8 * shown), 10 * (2 + 7))
    every, one = (np.asarray(Image.open(tmp_path / f"c{shown}.png")) for shown in (3, 1))
    assert np.array_equal(every[:, 80:180], one) and not np.array_equal(every[:, :100], one)
    capsys.readouterr()
    for words, message in (
        ((gated, "--pixel", "8,0"), "a pixel between 0,0 and 7,5, found 8,0"),
        ((gated, "--pixel", "middle"), "expected ROW,COLUMN"),
        ((gated, "--pixel", "1,1", "--channel", 1), "--channel: expected one between 0 and 0, found 1"),
        (("gan-mnist",), "a model that draws one after another"),
    ):
        assert run("receptive-field", *words, "--out", tmp_path / "no.png") == 1
        assert message in capsys.readouterr().err
    for command in ("probabilities", "animate"):
        assert run(command, "gan-mnist", "-n", 1, "--out", tmp_path / "no.gif") == 1
        assert "a model that draws one after another" in capsys.readouterr().err
        assert run(command, recipe, "-n", 1, "--out", tmp_path / "no.gif") == 1
        said = f"{command}: expected a checkpoint, found {recipe}, a recipe; train it first with `zoo fit {recipe}"
        assert said in capsys.readouterr().err
    with monkeypatch.context() as patch:
        patch.setattr(GatedPixelCNN, "from_uniforms", None)  # nothing is drawn
        for frames in (1, 0, -2):
            assert run("animate", gated, "--frames", frames, "--out", tmp_path / "no.gif") == 1
            assert f"--frames: expected at least 2, found {frames}" in capsys.readouterr().err
    for name in ("no.png", "no"):
        assert run("animate", gated, "--out", tmp_path / name) == 1
        assert f"a name that ends in .gif, found {tmp_path / name}" in capsys.readouterr().err
    assert not (tmp_path / "no.png").exists() and not (tmp_path / "no.gif").exists()


# ------------------------------------------------------------------------------------------------------------- recipes


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_that_await_a_gpu(path: Path, tmp_path: Path) -> None:
    """Each parses in full, fits the size of a checkpoint, and takes a step on an image."""
    recipe = load_recipe(path)
    assert recipe["name"] == path.stem
    data = build_data(recipe["data"])
    model = beginning(recipe, tmp_path)
    assert isinstance(model, GenerativeModel) and model.event_shape == data.event_shape
    halves = sum(value.numel() for value in model.state_dict().values())
    assert recipe["dtype"] == "float16" and 2 * halves < 8e6
    Trainer(tmp_path, **{**recipe["trainer"], "accelerator": "cpu", "precision": "32-true", "progress": False})
    optimizer = Optimization(**recipe["optimization"]).build(model)
    x = torch.rand(1, *data.event_shape, generator=torch.Generator().manual_seed(0)).round()
    labels = torch.zeros(1, dtype=torch.long) if isinstance(model, Conditional) else None
    model.training_step(Batch(x, labels, torch.arange(1)), 0)["loss"].backward()
    optimizer.step()
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_there_are_such_recipes() -> None:
    assert RECIPES


def test_the_prior_of_fvsbn_weighs_far_and_varying_pixels_more() -> None:
    """Training sees it, in the paper's terms pixel by pixel; the density does not."""
    plain, held = (FVSBN(event_shape=[1, 3, 4], prior=prior).double() for prior in (0.0, 0.7))
    for model in (plain, held):
        model.weight.data.normal_(generator=torch.Generator().manual_seed(0))
    weight = plain.matrix().detach()
    assert weight.tril(-1).equal(weight) and weight.count_nonzero() == 66
    x = (torch.rand(5, 1, 3, 4, generator=torch.Generator().manual_seed(1)) < 0.5).double()
    s = x.flatten(1).numpy().std(0)
    penalty = sum(
        math.hypot(d // 4 - j // 4, d % 4 - j % 4) * s[d] * s[j] * weight[d, j].item() ** 2
        for d in range(12)
        for j in range(d)
    )
    streams = Streams(0, torch.arange(5))
    torch.testing.assert_close(held.log_prob(x), plain.log_prob(x))
    torch.testing.assert_close(plain.training_log_prob(x, streams), plain.log_prob(x))
    torch.testing.assert_close(held.training_log_prob(x, streams), held.log_prob(x) - 0.35 * penalty)
