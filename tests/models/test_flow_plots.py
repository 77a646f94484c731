"""Pictures of flows of points in the plane: their layers in turn, and the grid that they bend."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from zoo import Zoo
from zoo.cli import main
from zoo.flows import Glow, RealNVP, SplineFlow
from zoo.plots import has_layers, layer_by_layer


@pytest.fixture
def flow() -> Any:
    torch.manual_seed(0)
    model = RealNVP([2], num_couplings=2, hidden=4)
    for parameter in model.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape)
    return model.eval()


def test_frames_lead_from_latents_to_data(flow: RealNVP, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[tuple[torch.Tensor, str]] = []
    monkeypatch.setattr("zoo.plots._frame", lambda points, num_grid, half, title: shown.append((points, title)))
    layer_by_layer(flow, 9, num_samples=50, seed=3)
    assert [title for _, title in shown[::2]] == [
        "latents",
        "layer 1 of 4: Coupling",
        "layer 2 of 4: ActNorm",
        "layer 3 of 4: Coupling",
        "layer 4 of 4: ActNorm",
    ]
    x = flow.sample(50, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(shown[-1][0][-50:], x)
    first, middle, last = (points for points, _ in shown[:3])
    torch.testing.assert_close(middle, (first + last) / 2)
    torch.testing.assert_close(first[-50:], flow.to_latent(x)[0])


def test_linear_maps_do_not_pass_through_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Halfway to a reflection, all points would lie on its axis."""
    shown: list[torch.Tensor] = []
    monkeypatch.setattr("zoo.plots._frame", lambda points, *_: shown.append(points))
    torch.manual_seed(0)
    layer_by_layer(SplineFlow([2], num_couplings=3, hidden=4).eval(), 37)
    assert min(float(torch.linalg.svdvals(points - points.mean(0))[1]) for points in shown) > 1


def test_commands(flow: RealNVP, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = f"local-dir:{Zoo.save(flow, tmp_path / 'flow')}"
    assert main(["animate", source, "--frames", "3", "--out", str(tmp_path / "layers.gif")]) == 0
    with Image.open(tmp_path / "layers.gif") as film:
        assert film.n_frames == 3
    assert main(["landscape", source, "--out", str(tmp_path / "landscape.png")]) == 0


def test_flows_of_images_have_no_film() -> None:
    assert not has_layers(Glow([1, 4, 4], num_steps=[1], hidden=[2]))
