"""Grey levels and colours: what the model of binary pixels cannot show."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from instances import Instance

from zoo.autoregressive.color_pixelcnn import ColorPixelCNN
from zoo.errors import ConfigError, DataError
from zoo.laws.densities import enumerated
from zoo.laws.law import follows, seeded
from zoo.pixelwise import receptive_field
from zoo.random import Streams, rand
from zoo.store.zoo import Zoo

SMALL = {"channels": 4, "num_layers": 2, "hidden": 6}
STATES = Instance(ColorPixelCNN, {"event_shape": [2, 1, 2], "levels": 3, **SMALL}, 3)
VECTORS = Instance(ColorPixelCNN, {**STATES.arguments, "embedding": 2}, 3)
MIXED = Instance(ColorPixelCNN, {**STATES.arguments, "num_logistics": 3}, 3)
LINEAR = Instance(ColorPixelCNN, {**MIXED.arguments, "linear": True}, 3)
COLORS = Instance(ColorPixelCNN, {"event_shape": [3, 3, 4], "levels": 5, **SMALL}, 5)
PLANES = Instance(ColorPixelCNN, {**COLORS.arguments, "num_logistics": 2, "linear": True}, 5)
SEEN = Instance(ColorPixelCNN, {**COLORS.arguments, "embedding": 3}, 5)


def place(x: torch.Tensor) -> torch.Tensor:
    """Positions of x in `STATES.states()`."""
    return ((x.flatten(1) * 2).round().long() * 3 ** torch.arange(3, -1, -1)).sum(1)


@pytest.mark.parametrize("instance", [STATES, VECTORS, MIXED, LINEAR])
def test_probabilities_of_all_colours_sum_to_one_and_samples_follow_them(instance: Instance) -> None:
    model, states = instance.build(), instance.states()
    with torch.no_grad():
        log_probs = model.log_prob(states)
        assert log_probs.double().logsumexp(0).abs() < 1e-5
        follows(torch.bincount(place(model.sample(20_000, generator=seeded())), minlength=81), log_probs)


@pytest.mark.parametrize("instance", [STATES, VECTORS, MIXED, LINEAR])
def test_expected_levels_are_the_enumerated_ones(instance: Instance) -> None:
    model, states = instance.build(), instance.states()
    (order,) = model.order(Streams(0, [0]))
    assert order.tolist() == [0, 2, 1, 3], "both channels of the first pixel, then of the second"
    with torch.no_grad():
        expected = enumerated(model.log_prob(states), states, order)
        torch.testing.assert_close(model.expected(states).double(), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("instance", [STATES, VECTORS, LINEAR])
def test_completions_follow_the_conditional_of_what_comes_first(instance: Instance) -> None:
    model, states = instance.build(), instance.states()
    mask = torch.tensor([[[True, False]], [[False, False]]])  # the first channel of the first pixel
    x = states[60].expand(20_000, -1, -1, -1)
    with torch.no_grad():
        drawn = model.complete(x, mask, generator=seeded())
        fits = states[:, 0, 0, 0] == states[60, 0, 0, 0]
        follows(
            torch.bincount(place(drawn), minlength=81), model.log_prob(states).where(fits, -math.inf).log_softmax(0)
        )
    with pytest.raises(ConfigError, match="mark as known only the first"):
        model.complete(x, torch.tensor([[[True, True]], [[False, False]]]))


@pytest.mark.parametrize("instance", [COLORS, PLANES, SEEN])
def test_a_channel_sees_earlier_pixels_and_the_earlier_channels_of_its_own(instance: Instance) -> None:
    model, x = instance.build(), instance.data(2)
    order = [(c, i, j) for i in range(3) for j in range(4) for c in range(3)]
    seen = torch.zeros(36, 36, dtype=torch.bool)
    before = model.logits(x)
    for source, (c, i, j) in enumerate(order):
        changed = x.clone()
        changed[0, c, i, j] = 1 - changed[0, c, i, j] + 0.25 * (changed[0, c, i, j] == 0.5)
        after = model.logits(changed)
        assert torch.equal(before[1], after[1])
        moved = (before[0] != after[0]).any(1)  # [C, H, W]
        seen[:, source] = torch.stack([moved[place] for place in order])
    assert torch.equal(seen, torch.ones_like(seen).tril(-1)), "everything before, and nothing else"


@pytest.mark.parametrize("instance", [COLORS, PLANES, SEEN])
def test_receptive_fields_of_the_channels(instance: Instance) -> None:
    """They hold what comes before; but for the pixel's own channels where these enter as choices alone."""
    model = instance.build()
    fields, before = receptive_field(model, 1, 2, num=20, generator=seeded())
    places = torch.arange(36).view(3, 4, 3).permute(2, 0, 1)  # channels of a pixel in turn
    for channel in range(3):
        earlier = places < places[channel, 1, 2]
        assert torch.equal(before[channel], earlier)
        if instance is not PLANES:
            earlier[:, 1, 2] = False
        assert torch.equal(fields[channel] > 0, earlier)


@pytest.mark.parametrize("wrong", [0.3, 1.25, -0.25, 128.0])
def test_known_pixels_are_levels(wrong: float) -> None:
    model, x = SEEN.build(), SEEN.data(2)
    mask = torch.zeros(SEEN.event_shape, dtype=torch.bool)
    mask[0, 0, 0] = True
    x[1, 0, 0, 0] = wrong
    with pytest.raises(DataError, match="a model of pixels of 5 grey levels from 0 to 1, but a known one is none"):
        model.complete(x, mask)
    x[1, 0, 0, 0] = 0.75
    assert model.complete(x.double(), mask)[1, 0, 0, 0] == 0.75


@pytest.mark.parametrize("shape", [(3, 1, 1), (3, 3, 1), (1, 3, 4), (3, 4, 4)])
def test_images_of_another_shape(shape: tuple[int, ...]) -> None:
    model = COLORS.build()
    for refuse in (model.log_prob, model.expected, model.logits):
        with pytest.raises(DataError, match=r"^ColorPixelCNN\S*: expected images of shape \[B, 3, 3, 4\], found \[2, "):
            refuse(torch.zeros(2, *shape))


def test_evaluation_keeps_the_logits_of_few_images_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x, sizes, original = COLORS.build(), COLORS.data(70), [], ColorPixelCNN._outputs

    def outputs(self: ColorPixelCNN, x: torch.Tensor, streams: Streams | None) -> torch.Tensor:
        sizes.append(len(x))
        return original(self, x, streams)

    monkeypatch.setattr(ColorPixelCNN, "_outputs", outputs)
    together = model.log_prob(x)
    with torch.no_grad():
        torch.testing.assert_close(model.log_prob(x), together)
    assert sizes == [70, 32, 32, 6]


def test_a_linear_prediction_begins_by_continuing_planes_with_the_step_of_the_last_channel() -> None:
    torch.manual_seed(0)
    model = ColorPixelCNN([3, 8, 8], 256, num_logistics=3, linear=True, **SMALL)
    down, right = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
    x = torch.stack([40 + 3 * down + 5 * right, 90 + 3 * down + 5 * right, 60 + 3 * down + 5 * right])[None] / 255
    with torch.no_grad():
        likely = model.logits(x).argmax(2) / 255
    inside = (slice(None), slice(None), slice(1, None), slice(1, None))
    assert (likely - x)[inside].abs().max() < 0.08, "the three centres and a little noise of the network"
    with pytest.raises(ConfigError, match="give num_logistics"):
        ColorPixelCNN([3, 8, 8], linear=True)


def test_a_linear_prediction_is_neither_rounded_nor_computed_in_low_precision(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    model, x, original, modes = PLANES.build(), PLANES.data(2), ColorPixelCNN._begin, []

    def begin(self: ColorPixelCNN, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        modes.append((torch.is_autocast_enabled("cpu"), torch.backends.cudnn.allow_tf32))
        return original(self, x)

    monkeypatch.setattr(ColorPixelCNN, "_begin", begin)
    before = torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    with torch.autocast("cpu", torch.bfloat16):
        model.log_prob(x)
    assert modes == [(False, False)] and torch.backends.cudnn.allow_tf32
    monkeypatch.undo()
    assert before == (torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark)
    loaded = Zoo.load(f"local-dir:{Zoo.save(model, tmp_path / 'half', dtype='float16')}").state_dict()
    whole = {key for key, value in model.state_dict().items() if not torch.equal(value, value.half().float())}
    kept = {key for key, value in model.state_dict().items() if torch.equal(value, loaded[key])} & whole
    assert kept == {"above.weight", "left.weight", "across.0", "across.1"} & whole and len(kept) >= 2


@pytest.mark.parametrize("instance", [COLORS, PLANES, SEEN])
def test_draws_are_those_of_one_pass_per_channel(instance: Instance) -> None:
    model, (colors, height, width) = instance.build(), COLORS.event_shape
    uniforms, x = rand((50, height, width, colors), Streams(0, range(50))), torch.zeros(50, colors, height, width)
    with torch.no_grad():
        for i, j, c in torch.cartesian_prod(torch.arange(height), torch.arange(width), torch.arange(colors)).tolist():
            cumulative = model.logits(x)[:, c, :, i, j].softmax(1).cumsum(1)
            x[:, c, i, j] = (uniforms[:, i, j, c, None] * cumulative[:, -1:] >= cumulative).sum(1) / 4
        assert torch.equal(model.draw(Streams(0, range(50))), x)
