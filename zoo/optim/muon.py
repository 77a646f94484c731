"""Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/), which takes equal steps in all directions.

    M <- b M + (1 - b) G                              G: gradient of a matrix W, b: momentum
    W <- W - lr 0.2 sqrt(max(rows, columns)) U V^T    U S V^T: singular value decomposition of (1 - b) G + b M

Five steps of a polynomial bring every singular value near one, and so give U V^T. The factor before U V^T makes the
step as large as a step of Adam (Liu et al. 2025, https://arxiv.org/abs/2502.16982, eq. 4). Muon is meant for weights of
linear layers and convolutions, and AdamW optimises all other parameters with the same learning rate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import Parameter
from torch.nn.modules.conv import _ConvNd
from torch.optim.adamw import adamw

MOMENTUM = 0.95
COEFFICIENTS = 3.4445, -4.775, 2.0315  # coefficients of s, s^3, s^5; five steps bring s from [0.003, 1] to [0.68, 1.21]
NUM_STEPS = 5


def orthogonalize(m: Tensor) -> Tensor:
    """Approximates U V^T for matrices m = U S V^T, [..., R, C]; its singular values lie within about 0.3 of one."""
    is_tall = m.shape[-2] > m.shape[-1]
    x = m.mT if is_tall else m
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-20)
    a, b, c = COEFFICIENTS
    for _ in range(NUM_STEPS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if is_tall else x


def matrices(module: nn.Module) -> set[Parameter]:
    """Returns the weights of linear layers and convolutions that are matrices with several rows and columns.

    The weight of a convolution counts as a matrix [first dimension, product of the others].
    """
    layers = [layer for layer in module.modules() if isinstance(layer, nn.Linear | _ConvNd)]
    weights = [weight for layer in layers if (weight := layer._parameters.get("weight")) is not None]
    return {weight for weight in weights if min(len(weight), weight[0].numel()) > 1}


class Muon(torch.optim.Optimizer):
    """Optimises some parameters by Muon and the rest by AdamW.

    Args:
        groups: Groups of parameters, each with `params` and `weight_decay`.
        orthogonal: Parameters that Muon optimises; see `matrices`.
        lr: Learning rate.
        betas: Decay rates of AdamW's moments.
    """

    def __init__(
        self, groups: Iterable[dict[str, Any]], orthogonal: set[Parameter], lr: float, betas: tuple[float, float]
    ) -> None:
        split = [
            {**group, "params": chosen, "orthogonal": is_orthogonal}
            for group in groups
            for is_orthogonal in (True, False)
            if (chosen := [p for p in group["params"] if (p in orthogonal) == is_orthogonal])
        ]
        super().__init__(split, {"lr": lr, "betas": betas, "weight_decay": 0.0, "capturable": False})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            trained = [p for p in group["params"] if p.grad is not None]
            if trained and group["orthogonal"]:
                self._orthogonal(group, trained)
            elif trained:
                self._adamw(group, trained)
        return loss

    def _orthogonal(self, group: dict[str, Any], trained: list[Parameter]) -> None:
        lr, of_shape = group["lr"], dict[torch.Size, list[tuple[Parameter, Tensor]]]()
        for p in trained:
            grad, state = cast(Tensor, p.grad), self.state[p]
            if not state:
                state["momentum"] = torch.zeros_like(p)
            mean = state["momentum"].lerp_(grad, 1 - MOMENTUM)
            update = torch.lerp(grad, mean, MOMENTUM).flatten(1)
            of_shape.setdefault(update.shape, []).append((p, update))
        for shape, pairs in of_shape.items():  # matrices of one shape are processed in one batch
            updates = orthogonalize(torch.stack([update for _, update in pairs])).mul_(0.2 * math.sqrt(max(shape)) * lr)
            for (p, _), update in zip(pairs, updates, strict=True):
                p.mul_(1 - lr * group["weight_decay"]).sub_(update.view_as(p))

    def _adamw(self, group: dict[str, Any], trained: list[Parameter]) -> None:
        capturable = group["capturable"]
        for p in trained:
            if not self.state[p]:
                step = torch.zeros((), device=p.device if capturable else "cpu")
                self.state[p] |= {"step": step, "mean": torch.zeros_like(p), "square": torch.zeros_like(p)}
        states = [self.state[p] for p in trained]
        adamw(
            list[Tensor](trained),
            [cast(Tensor, p.grad) for p in trained],
            [state["mean"] for state in states],
            [state["square"] for state in states],
            [],
            [state["step"] for state in states],
            capturable=capturable,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=1e-8,
            maximize=False,
        )
