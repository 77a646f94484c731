"""Half precision with loss scaling (`16-mixed`), for one optimiser and for two: on the CPU, with torch's own scaler."""

from __future__ import annotations

from typing import Any

import lightning
import pytest
import torch
from instances import INSTANCES, Instance
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor
from torch.utils.data import DataLoader

from zoo.capabilities import Adversarial
from zoo.optim import Optimization

PLAYERS = ["VAE", "DCGAN"]
LR, CLIP = 0.02, 0.05


def instance_of(name: str) -> Instance:
    return next(i for i in INSTANCES if i.cls.__name__ == name)


def trained(
    instance: Instance, scale: float | None, clip: float | None = None
) -> tuple[dict[str, Tensor], float | None]:
    """How far a step of SGD moves the weights, and the scale of losses after it; single precision without a scale."""
    model: Any = instance.build().train()
    model.optimization = Optimization(optimizer="sgd", lr=LR, beta1=0.0, gradient_clip=clip)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    scaler = None if scale is None else torch.amp.GradScaler("cpu", init_scale=scale)
    plugins = [] if scaler is None else [MixedPrecision("16-mixed", "cpu", scaler)]
    quiet = ("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing")
    options: Any = {"plugins": plugins, "max_steps": 1, **dict.fromkeys(quiet, False)}
    trainer = lightning.Trainer(accelerator="cpu", devices=1, **options)
    trainer.fit(model, DataLoader(instance.data(12), batch_size=12))  # type: ignore[arg-type]
    moved = {name: parameter.detach() - before[name] for name, parameter in model.named_parameters()}
    return moved, None if scaler is None else scaler.get_scale()


def norm(moved: dict[str, Tensor], part: str = "") -> float:
    return float(torch.cat([value.flatten() for name, value in moved.items() if name.startswith(part)]).norm())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", PLAYERS)
def test_a_step_is_that_of_single_precision(name: str) -> None:
    single, _ = trained(instance_of(name), None)
    half, scale = trained(instance_of(name), 2.0**6)
    assert scale == 2.0**6  # no gradient was infinite
    for part in ("generator", "critic") if name == "DCGAN" else ("",):
        difference = {key: half[key] - value for key, value in single.items()}
        assert 0 < norm(difference, part) < 0.05 * norm(single, part)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", PLAYERS)
@pytest.mark.parametrize("scale", [None, 2.0**6])
def test_gradients_are_clipped_as_they_are_and_not_as_they_are_scaled(name: str, scale: float | None) -> None:
    moved, _ = trained(instance_of(name), scale, CLIP)
    for part in ("generator", "critic") if issubclass(instance_of(name).cls, Adversarial) else ("",):
        assert norm(moved, part) == pytest.approx(LR * CLIP, rel=1e-2)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", PLAYERS)
def test_a_step_with_an_infinite_gradient_is_left_out(name: str) -> None:
    moved, scale = trained(instance_of(name), 2.0**100)
    assert norm(moved) == 0 and scale is not None and scale < 2.0**100
