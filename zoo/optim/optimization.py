"""The settings of optimisation as one plain record: optimiser, learning-rate schedule and gradient clipping."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch.nn import Module

from zoo.errors import ConfigError
from zoo.optim.muon import Muon, matrices


@dataclass(frozen=True)
class Optimization:
    """Settings of the optimiser. They are the section `optimization` of a recipe.

    Attributes:
        optimizer: Optimiser: `adam`, `adamw` (decoupled weight decay), `muon` (see `zoo.optim.muon`) or `sgd` (with
            momentum `beta1`).
        lr: Peak learning rate.
        critic_lr: Learning rate of the critic of an adversarial model; None for `lr`.
        beta1: Decay rate of the first moment.
        beta2: Decay rate of the second moment.
        weight_decay: Weight decay of all parameters with two or more dimensions.
        schedule: Learning rate after the warmup. `constant` keeps it at `lr`; `linear` and `cosine` bring it to zero at
            the end of training, along a line or half a cosine.
        warmup: Number of steps over which the learning rate rises from zero.
        gradient_clip: Largest norm of the gradient; None for no limit.
    """

    optimizer: Literal["adam", "adamw", "muon", "sgd"] = "adam"
    lr: float = 1e-3
    critic_lr: float | None = None
    beta1: float = 0.9
    beta2: float = 0.999
    weight_decay: float = 0.0
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup: int = 0
    gradient_clip: float | None = None

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            ConfigError: A value is out of range.
        """
        for name in ("lr", "critic_lr", "gradient_clip"):
            if (value := getattr(self, name)) is not None and value <= 0:
                raise ConfigError(f"optimization: {name} must be positive, found {value}")
        for name in ("weight_decay", "warmup"):
            if getattr(self, name) < 0:
                raise ConfigError(f"optimization: {name} must not be negative, found {getattr(self, name)}")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"optimization: {name} must lie in [0, 1), found {getattr(self, name)}")

    def build(self, module: Module, lr: float | None = None) -> torch.optim.Optimizer:
        """Makes the optimiser of a module. Weight decay does not apply to biases and gains.

        Args:
            module: Module whose trainable parameters are optimised.
            lr: Peak learning rate in place of `self.lr`.
        """
        trained = [p for p in module.parameters() if p.requires_grad]
        decayed = [p for p in trained if p.ndim >= 2] if self.weight_decay else []
        spared = [p for p in trained if p.ndim < 2] if self.weight_decay else trained
        groups = [{"params": decayed, "weight_decay": self.weight_decay}, {"params": spared, "weight_decay": 0.0}]
        groups = [group for group in groups if group["params"]]  # each group is one fused call
        rate = self.lr if lr is None else lr
        if self.optimizer == "sgd":
            return torch.optim.SGD(groups, lr=rate, momentum=self.beta1)
        if self.optimizer == "muon":
            return Muon(groups, matrices(module), lr=rate, betas=(self.beta1, self.beta2))
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[self.optimizer]
        return kind(groups, lr=rate, betas=(self.beta1, self.beta2), fused=True)

    def clip(self, optimizer: torch.optim.Optimizer) -> None:
        """Scales the gradients of an optimiser's parameters down, so that their norm is at most `gradient_clip`."""
        if self.gradient_clip is not None:
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            torch.nn.utils.clip_grad_norm_(parameters, self.gradient_clip)

    def scale(self, step: int, num_steps: float) -> float:
        """Returns the learning rate at `step` of `num_steps` as a fraction of its peak, in [0, 1]."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        if self.schedule == "constant" or not math.isfinite(num_steps):
            return 1.0
        progress = min(1.0, (step - self.warmup) / max(1.0, num_steps - self.warmup))
        return 1 - progress if self.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * progress))

    def scheduled(self, optimizer: torch.optim.Optimizer, num_steps: float) -> dict[str, Any]:
        """Returns an optimiser and its schedule, if any, in the form of Lightning's `configure_optimizers`."""
        if self.schedule == "constant" and not self.warmup:
            return {"optimizer": optimizer}
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: self.scale(step, num_steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
