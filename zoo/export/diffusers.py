"""Diffusion models as pipelines of diffusers (https://huggingface.co/docs/diffusers).

Diffusers calls a network eps(x_t, t) and leaves the noise levels to a scheduler. Any `DiffusionModel` gives one for the
schedule of DDPM, abar_t = prod (1 - beta_s):

    eps(x_t, t) = (y - D(y; sigma))/sigma,    sigma^2 = (1 - abar_t)/abar_t,    y = x_t/sqrt(abar_t)

So all schedulers of diffusers that take predictions of the noise can draw from it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from zoo.diffusion.denoiser import DiffusionModel
from zoo.errors import ConfigError, ZooError
from zoo.files import expand, write_atomically
from zoo.module import ZooModule
from zoo.store.names import find_class, name_of

try:
    from diffusers import ConfigMixin, DDIMPipeline, DDIMScheduler, ModelMixin
    from diffusers.configuration_utils import register_to_config
except ImportError as error:
    raise ZooError("diffusers is not installed; run `pip install 'generative-zoo[diffusers]'`") from error

NUM_STEPS, BETA_MIN, BETA_MAX = 1000, 1e-4, 0.02  # the schedule of Ho et al. 2020


class Predicted(NamedTuple):
    """What diffusers expects of a network: the predicted noise, [B, C, H, W]."""

    sample: Tensor


class NoisePredictor(ModelMixin, ConfigMixin):
    """A diffusion model of the zoo, as the component `unet` of a pipeline.

    Args:
        name: Name of the class of the model, such as "diffusion.EDM".
        arguments: Arguments of its constructor, JSON-plain.
        in_channels: Number of channels of its images.
        sample_size: Height and width of its images.
    """

    @register_to_config
    def __init__(self, name: str, arguments: dict[str, Any], in_channels: int, sample_size: list[int]) -> None:
        super().__init__()
        denoiser = find_class(name, "config.json")(**arguments)
        assert isinstance(denoiser, DiffusionModel)
        self.denoiser = denoiser

    def forward(
        self, sample: Tensor, timestep: Tensor | float, class_labels: Tensor | None = None, return_dict: bool = True
    ) -> Predicted | tuple[Tensor]:
        """Predicts the noise.

        Args:
            sample: x_t, [B, C, H, W], images in [-1, 1] with noise.
            timestep: t, one or [B], from 0 to 999.
            class_labels: Labels, [B], for a conditional model; none for examples of any class.
            return_dict: Whether to return an object with the field `sample` instead of a tuple.
        """
        steps = torch.as_tensor(timestep, device=sample.device).long().expand(len(sample))
        sigma = sigmas().to(sample.device)[steps]
        scale = sigma.view(-1, *[1] * (sample.ndim - 1))
        y = sample.float() * (1 + scale**2).sqrt()
        given = {} if class_labels is None else {"labels": class_labels}
        noise = ((y - self.denoiser.denoise(y, sigma, **given)) / scale).to(sample.dtype)
        return Predicted(noise) if return_dict else (noise,)


def sigmas() -> Tensor:
    """The noise level of each step of the schedule: [1000], float32."""
    abar = (1 - torch.linspace(BETA_MIN, BETA_MAX, NUM_STEPS, dtype=torch.float64)).cumprod(0)
    return ((1 - abar) / abar).sqrt().float()


def pipeline(model: ZooModule) -> Any:
    """A diffusion model of images as a pipeline that draws by DDIM; pass its `scheduler` another one to draw otherwise.

    Raises:
        ConfigError: The model is no diffusion model of images.
    """
    if not isinstance(model, DiffusionModel) or not model.is_image:
        raise ConfigError(f"diffusers: expected a diffusion model of images, found {type(model).__name__}")
    channels, *size = model.event_shape
    network = NoisePredictor(name_of(type(model)), json.loads(json.dumps(dict(model.hparams))), channels, size)
    network.denoiser.load_state_dict(model.state_dict())
    scheduler = DDIMScheduler(
        num_train_timesteps=NUM_STEPS, beta_start=BETA_MIN, beta_end=BETA_MAX, beta_schedule="linear", clip_sample=False
    )
    return DDIMPipeline(network.eval(), scheduler)


def export_diffusers(model: ZooModule, folder: str | Path) -> Path:
    """Writes a pipeline that `diffusers.DDIMPipeline.from_pretrained` loads where the zoo is installed.

    Args:
        model: A diffusion model of images.
        folder: A new folder.

    Returns:
        The folder.

    Raises:
        ConfigError: The model is no diffusion model of images, or the folder exists already.
    """
    place = expand(folder)
    if place.exists():
        raise ConfigError(f"{place}: exists already; choose a new folder")
    partial = place.with_name(f"{place.name}.partial")
    pipeline(model).save_pretrained(partial)
    index = partial / "model_index.json"
    components = json.loads(index.read_text())
    components["unet"] = [__name__, NoisePredictor.__name__]
    write_atomically(index, (json.dumps(components, indent=2) + "\n").encode())
    partial.rename(place)  # all of it or nothing
    return place
