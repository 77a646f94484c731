"""Compares the kernels of `zoo.autoregressive.fast.scans` with the plain layers, on the CPU.

Run it with TRITON_INTERPRET=1. It prints the name of each layer whose states and gradients agree, and stops with an
error at the first that does not.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.autoregressive.fast import scans
from zoo.autoregressive.pixelrnn import _lstm


def random(*shape: int, scale: float = 1.0) -> Tensor:
    return (torch.randn(shape) * scale).requires_grad_()


def compare(found: Tensor, expected: Tensor, inputs: list[Tensor]) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    direction = torch.randn_like(expected)
    gradients = (torch.autograd.grad(states, inputs, direction, retain_graph=True) for states in (found, expected))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def main() -> None:
    torch.manual_seed(0)
    for before, after, channels, places in ((1, 1, 16, 5), (1, 0, 16, 32), (1, 1, 32, 5)):
        inputs = random(4, 2, 3, places, 4 * channels)
        weight = random(2, (before + 1 + after) * channels, 4 * channels, scale=0.3)
        states = scans.lstm(inputs, weight, before, after)
        compare(states, _lstm(inputs, weight, before, after), [inputs, weight])
        print("lstm")
    layer = nn.GRU(16, 16, batch_first=True)
    for batch in (3, 18):  # fewer images than a program takes, and more
        x = random(batch, 6, 16)
        states = scans.gru(F.linear(x, layer.weight_ih_l0, layer.bias_ih_l0), layer.weight_hh_l0, layer.bias_hh_l0)
        compare(states, layer(x)[0], [x, *layer.parameters()])
        print("gru")


if __name__ == "__main__":
    main()
