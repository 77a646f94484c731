"""Exported pipelines draw the same images as the zoo."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from zoo import Zoo
from zoo.cli import main
from zoo.diffusion import DDPM, ConditionalEDM
from zoo.diffusion.denoiser import DiffusionModel
from zoo.errors import ConfigError
from zoo.samplers import DDIM

diffusers = pytest.importorskip("diffusers")

from zoo.export.diffusers import export_diffusers, sigmas  # noqa: E402


@dataclass(frozen=True)
class Scheduled(DDIM):
    """DDIM at the noise levels of a scheduler."""

    at: tuple[float, ...] = ()

    def levels(self, first: float, last: float) -> list[float]:
        return list(self.at)


@pytest.mark.parametrize("name", ["ddpm-fashion-mnist", "conditional-edm-mnist"])
def test_a_pipeline_draws_what_the_zoo_draws_from_the_same_noise(name: str, tmp_path: Path) -> None:
    model = Zoo.load(name)
    assert isinstance(model, DiffusionModel)
    export_diffusers(model, tmp_path / "pipeline")
    found = diffusers.DDIMPipeline.from_pretrained(tmp_path / "pipeline")
    images = found(
        batch_size=3, num_inference_steps=10, generator=torch.Generator().manual_seed(0), output_type="np"
    ).images
    x = torch.randn(3, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    levels = sigmas()[found.scheduler.timesteps]
    z = x * (1 + levels[0] ** 2).sqrt() / levels[0]
    sampler = Scheduled(steps=10, at=tuple(levels.tolist()))
    with torch.no_grad():
        expected = sampler.from_noise(model, z).permute(0, 2, 3, 1)
    assert (torch.from_numpy(images) - expected).abs().max() < 1e-4


def test_other_schedulers_draw_from_a_pipeline_and_labels_reach_the_network(tmp_path: Path) -> None:
    model = ConditionalEDM(3, event_shape=[2, 8, 4], channels=[4, 8])
    torch.nn.init.normal_(model.network.outputs.weight)
    export_diffusers(model, tmp_path / "pipeline")
    unet = diffusers.DiffusionPipeline.from_pretrained(tmp_path / "pipeline").unet
    x, labels = torch.randn(4, 2, 8, 4), torch.tensor([0, 1, 2, 0])
    sigma = sigmas()[500].expand(4)
    with torch.no_grad():
        y = x * (1 + sigma[0] ** 2).sqrt()
        expected = (y - model.denoise(y, sigma, labels=labels)) / sigma[0]
        torch.testing.assert_close(unet(x, 500, class_labels=labels).sample, expected)
        torch.testing.assert_close(unet(x, torch.tensor([500] * 4), labels, return_dict=False)[0], expected)
    pipeline = diffusers.DDPMPipeline(unet, diffusers.DPMSolverMultistepScheduler(beta_start=1e-4, beta_end=0.02))
    assert pipeline(num_inference_steps=3, output_type="np").images.shape == (1, 8, 4, 2)


def test_the_command_writes_a_pipeline_or_says_why_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = tmp_path / "pipeline"
    assert main(["export", "ddpm-fashion-mnist", "--to", "diffusers", "--out", str(place)]) == 0
    assert capsys.readouterr().out == f"{place}\n" and (place / "model_index.json").exists()
    assert main(["export", "ddpm-fashion-mnist", "--to", "diffusers", "--out", str(place)]) != 0
    assert "exists already; choose a new folder" in capsys.readouterr().err
    assert main(["export", "vae-mnist", "--to", "diffusers", "--out", str(tmp_path / "other")]) != 0
    assert "expected a diffusion model of images, found VAE" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="expected a diffusion model of images, found DDPM"):
        export_diffusers(DDPM([2], [8]), tmp_path / "points")
