"""Plots of models of points on the line or in the plane: samples, densities, and how a bijection bends the plane."""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING, Any, TypeGuard

import torch
from torch import Tensor

from zoo.capabilities import Bijection, GenerativeModel, TractableDensity, UnnormalizedDensity
from zoo.errors import ConfigError
from zoo.flows.flow import Flow
from zoo.flows.layers import InvertibleLinear, stages

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL.Image import Image

_SIDE = 3.2  # of a panel, in inches of 100 pixels
_TICKS = 200  # along each axis of a grid
_NATS = (0, 0.5, 1, 2, 3, 4, 5, 7, 10, 15, 20, 30)  # contours of energies
_NUM_LINES, _POINTS = 11, 300  # of the grid of a latent, and along each line
_COLOUR, _LINES = "#1f5fa8", ("#c8501e", "#3c8c46")


def has_plot(model: GenerativeModel) -> bool:
    """Whether `plot` can draw the model: its examples are vectors of one or two numbers."""
    return model.event_shape in ((1,), (2,))


@torch.no_grad()
def plot(model: GenerativeModel, num_samples: int = 2000, seed: int = 0, **given: Any) -> bytes:
    """Draws a model of one or two numbers.

    Args:
        model: A model whose examples are vectors of one or two numbers.
        num_samples: Number of samples to show.
        seed: Seed for the samples.
        given: What else `sample` takes, such as a sampler.

    Returns:
        A PNG. On the line: a histogram of samples with the density. In the plane, side by side: samples; the density,
        if the model has one; for a bijection, the lines on which one of the latents is constant.
    """
    from matplotlib.figure import Figure

    x = model.sample(num_samples, generator=torch.Generator().manual_seed(seed), batch_size=num_samples, **given).cpu()
    panels = [_histogram] if model.event_shape == (1,) else [_samples]
    if model.event_shape == (2,):
        panels += [_density] if isinstance(model, TractableDensity | UnnormalizedDensity) else []
        panels += [_bent_grid] if isinstance(model, Bijection) else []
    figure = Figure(figsize=(_SIDE * len(panels), _SIDE + 0.2), dpi=100, layout="constrained")
    low, high = torch.quantile(x, 0.001, dim=0), torch.quantile(x, 0.999, dim=0)
    middle, half = (low + high) / 2, 0.6 * float((high - low).max())  # a square, a little wider than the samples
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for draw, ax in zip(panels, axes, strict=True):
        ax.set_xlim(float(middle[0] - half), float(middle[0] + half))
        if model.event_shape == (2,):
            ax.set_ylim(float(middle[1] - half), float(middle[1] + half))
            ax.set_aspect("equal")
        ax.tick_params(labelsize=7)
        draw(ax, model, x)
    return _png(figure)


def _png(figure: Figure) -> bytes:
    from PIL import Image

    drawn, content = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png")
    Image.open(drawn).convert("RGB").quantize(256).save(content, "PNG", optimize=True)  # a third of the bytes
    return content.getvalue()


@torch.no_grad()
def landscape(model: GenerativeModel, num_samples: int = 500, seed: int = 0, **given: Any) -> bytes:
    """Draws the energy of a model of points in the plane as contours, with samples of the model.

    The energy is -log p(x), up to a constant: lines are one nat apart near its minimum, and then further. For a
    bijection, it also draws the lines on which one of the latents is constant.

    Args:
        model: A model of points in the plane with a `log_prob` or an `energy`.
        num_samples: Number of samples to show.
        seed: Seed for the samples.
        given: What else `sample` takes, such as a sampler.

    Returns:
        A PNG.

    Raises:
        ConfigError: The model has no energy, or its examples are no points in the plane.
    """
    if model.event_shape != (2,) or not isinstance(model, TractableDensity | UnnormalizedDensity):
        raise ConfigError(
            f"landscape: expected a model of points in the plane with a density or an energy, found "
            f"{type(model).__name__} of shape {list(model.event_shape)}; `zoo list '*-toy2d'` shows candidates"
        )
    from matplotlib.figure import Figure

    x = model.sample(num_samples, generator=torch.Generator().manual_seed(seed), batch_size=num_samples, **given).cpu()
    figure = Figure(figsize=(2 * _SIDE, 1.75 * _SIDE), dpi=100, layout="constrained")
    ax = figure.subplots()
    low, high = x.amin(0), x.amax(0)
    middle, half = (low + high) / 2, 0.65 * float((high - low).max())
    ax.set_xlim(float(middle[0] - half), float(middle[0] + half))
    ax.set_ylim(float(middle[1] - half), float(middle[1] + half))
    ax.set_aspect("equal")
    energy = _energies(ax, model)
    height = (energy - energy.min()).numpy()
    ticks = torch.linspace(*ax.get_xlim(), _TICKS).numpy(), torch.linspace(*ax.get_ylim(), _TICKS).numpy()
    filled = ax.contourf(*ticks, height, levels=_NATS, cmap="magma_r", extend="max")
    ax.contour(*ticks, height, levels=_NATS, colors="white", linewidths=0.4, alpha=0.6)
    if isinstance(model, Bijection):
        _bent_grid(ax, model, x)
    ax.scatter(x[:, 0].numpy(), x[:, 1].numpy(), s=4, color=_COLOUR, edgecolors="white", linewidths=0.2)
    figure.colorbar(filled, ax=ax, label="energy above its minimum, nats")
    return _png(figure)


def _histogram(ax: Axes, model: GenerativeModel, x: Tensor) -> None:
    ax.hist(x[:, 0].numpy(), bins=40, density=True, color=_COLOUR, alpha=0.4)
    if isinstance(model, TractableDensity):
        line = torch.linspace(*ax.get_xlim(), 500)
        density = model.log_prob(line[:, None].to(model.device)).exp().cpu()
        ax.plot(line.numpy(), density.numpy(), color=_LINES[0])
    ax.set_title("samples and density", fontsize=8)


def _samples(ax: Axes, model: GenerativeModel, x: Tensor) -> None:
    ax.scatter(x[:, 0].numpy(), x[:, 1].numpy(), s=2, color=_COLOUR, alpha=0.5, linewidths=0)
    ax.set_title("samples", fontsize=8)


def _density(ax: Axes, model: GenerativeModel, x: Tensor) -> None:
    energy = _energies(ax, model)
    density = (energy.min() - energy).exp()  # up to a factor
    top = float(torch.quantile(density, 0.995))  # a few bright points would darken all others
    extent = (*ax.get_xlim(), *ax.get_ylim())
    ax.imshow(density.numpy(), extent=extent, origin="lower", vmin=0, vmax=top, cmap="magma", interpolation="bilinear")
    ax.set_title("density", fontsize=8)


def _energies(ax: Axes, model: GenerativeModel) -> Tensor:
    """-log p(x), up to a constant, on a grid of the panel: [_TICKS, _TICKS], rows from below."""
    rows, columns = torch.linspace(*ax.get_ylim(), _TICKS), torch.linspace(*ax.get_xlim(), _TICKS)
    points = torch.cartesian_prod(rows, columns).flip(1).to(model.device)
    if isinstance(model, TractableDensity):
        energy = -model.log_prob(points)
    else:
        assert isinstance(model, UnnormalizedDensity)
        energy = model.energy(points)
    return energy.view(_TICKS, _TICKS).cpu()


def _bent_grid(ax: Axes, model: GenerativeModel, x: Tensor) -> None:
    assert isinstance(model, Bijection)
    _lines(ax, model.from_latent(_latent_grid(model).flatten(0, 1)))
    ax.set_title("grid of the latents", fontsize=8)


def _latent_grid(model: GenerativeModel) -> Tensor:
    """Points on the lines on which one of the latents is constant: [lines, points, 2]."""
    along = torch.linspace(-3, 3, _POINTS)
    across = torch.linspace(-2.5, 2.5, _NUM_LINES)
    lines = torch.stack(torch.broadcast_tensors(along, across[:, None]), 2)  # of the first latent
    return torch.cat([lines, lines.flip(2)]).to(model.device)


def _lines(ax: Axes, points: Tensor) -> None:
    """Draws the lines of `_latent_grid` from their points, [lines * points, 2]."""
    for number, line in enumerate(points.view(-1, _POINTS, 2).cpu()):
        ax.plot(*line.T.numpy(), color=_LINES[number // _NUM_LINES], linewidth=0.6)


def has_layers(model: object) -> TypeGuard[Flow]:
    """Whether `layer_by_layer` can draw the model: it is a flow of layers over points in the plane."""
    return isinstance(model, Flow) and model.event_shape == (2,) and hasattr(model, "bijector")


@torch.no_grad()
def layer_by_layer(
    model: Flow, num_frames: int, *, num_samples: int = 1000, seed: int = 0, **given: Any
) -> list[Image]:
    """Draws how the layers of a flow move codes to points in the plane, one layer after the other.

    Args:
        model: A flow for which `has_layers` holds.
        num_frames: Number of frames, at least 2. A layer moves points along straight lines, except for a linear map,
            which would let them meet on the way if it turns the plane over.
        num_samples: Number of samples to show.
        seed: Seed for the samples.
        given: What else `sample` takes, such as a sampler.

    Returns:
        Pictures of samples and of the grid of the latents; the first one shows the latents, the last one the data.
    """
    x = model.sample(num_samples, generator=torch.Generator().manual_seed(seed), batch_size=num_samples, **given)
    grid = _latent_grid(model).flatten(0, 1)
    layers, moved = zip(*stages(model.bijector, torch.cat([grid, model.to_latent(x)[0]])), strict=True)
    states = torch.stack(moved).cpu()
    half = 1.15 * states[:, len(grid) :].abs().flatten(1).quantile(0.999, dim=1)  # of the square that is shown
    frames = []
    for time in torch.linspace(0, len(states) - 1, num_frames).tolist():
        number = max(0, math.ceil(time) - 1)
        layer, part = layers[number + 1], time - number
        part = round(part) if isinstance(layer, InvertibleLinear) else part
        points, side = (torch.lerp(values[number], values[number + 1], part) for values in (states, half))
        title = f"layer {number + 1} of {len(states) - 1}: {type(layer).__name__}" if time else "latents"
        frames.append(_frame(points, len(grid), float(side), title))
    return frames


def _frame(points: Tensor, num_grid: int, half: float, title: str) -> Image:
    from matplotlib.figure import Figure
    from PIL import Image

    figure = Figure(figsize=(1.25 * _SIDE, 1.25 * _SIDE), dpi=100, layout="constrained")
    ax = figure.subplots()
    ax.set_xlim(-half, half)
    ax.set_ylim(-half, half)
    ax.set_aspect("equal")
    ax.tick_params(labelsize=7)
    _lines(ax, points[:num_grid])
    x, y = points[num_grid:].T.numpy()
    ax.scatter(x, y, s=3, color=_COLOUR, alpha=0.6, linewidths=0)
    ax.set_title(title, fontsize=8)
    return Image.open(io.BytesIO(_png(figure))).convert("RGB")
