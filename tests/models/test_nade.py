"""NADE and its relatives: what they compute at once is what a loop over pixels computes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from zoo.autoregressive.nade import NADE
from zoo.autoregressive.regularization import dropout
from zoo.random import Streams


def loop(model: NADE, x: Tensor, keep: Tensor) -> Tensor:
    """Equations 2 and 3, one pixel after the other."""
    x, a, logits = x.flatten(1), model.hidden_bias.expand(len(x), -1), []
    for d in range(model.size):
        logits.append((a.sigmoid() * keep) @ model.output[d] + model.bias[d])
        a = a + x[:, d, None] * model.weight[d]
    return torch.stack(logits, 1)


@pytest.mark.parametrize("of_pixels", [False, True])
@pytest.mark.parametrize("rate", [0.0, 0.3])
@pytest.mark.parametrize("event_shape", [[1, 5, 7], [1, 8, 8], [1, 1, 3], [1, 1, 1]])
def test_nade_has_the_gradients_of_the_loop_over_pixels(event_shape: list[int], rate: float, of_pixels: bool) -> None:
    torch.manual_seed(0)
    model = NADE(event_shape, hidden=9, dropout=rate)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
    x = (torch.rand(20, *event_shape) < torch.linspace(0, 1, 20)[:, None, None, None]).float()
    noise = Streams(0, range(20)) if rate else None
    keep = dropout(torch.ones(20, 9), rate, Streams(0, range(20)) if rate else None)
    x.requires_grad_(of_pixels)
    found, gradients = [], []
    for logits in (model.logits(x, streams=noise), loop(model, x, keep)):
        loss = binary_cross_entropy_with_logits(logits, x.detach().flatten(1), reduction="sum")
        found.append(logits)
        wanted = [*model.parameters(), x] if of_pixels else [*model.parameters()]
        gradients.append(torch.autograd.grad(loss, wanted, materialize_grads=True))
    torch.testing.assert_close(*found, atol=1e-5, rtol=1e-5)
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5 * float(theirs.abs().max()) + 1e-7, rtol=1e-5)
