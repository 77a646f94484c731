"""MADE pixel by pixel: each hidden unit is computed once, as soon as the pixels that it sees are known."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.progress import steps

if TYPE_CHECKING:
    from zoo.autoregressive.made import MADE

BLOCK = 28  # pixels in a block; every size gives the same samples, and this one is about the fastest


def from_uniforms(model: MADE, uniforms: Tensor, masks: Tensor) -> Tensor:
    """Fast version of `MADE.from_uniforms`.

    A unit of degree m is complete after pixel m. One matrix product per layer adds the contributions of earlier blocks
    to the pixels and units of a block. Only the few units that complete inside the block are updated pixel by pixel.
    """
    if not len(uniforms):
        return uniforms
    w, biases = model._matrices(), model.biases
    used, group = masks.unique(return_inverse=True)  # images with equal masks make a group
    place = F.one_hot(group, len(used)).cumsum(0)[torch.arange(len(group)), group] - 1
    # [K, D, G]: pixels and units in rows
    u = uniforms.new_zeros(len(used), model.size, int(place.max()) + 1)
    u[group, :, place] = uniforms.flatten(1)
    pixels = torch.zeros_like(u)
    first, second = model.degrees[used].long().unbind(1)  # [K, H]
    h1, h2 = (u.new_zeros(*m.shape, u.shape[-1]) for m in (first, second))
    pixel = torch.arange(1, model.size + 1, device=u.device)
    for block in steps(pixel.split(BLOCK), "block"):
        n, start, stop = len(block), int(block[0]) - 1, int(block[-1])
        new1, m1, is1 = _completed(first, start, stop)
        new2, m2, is2 = _completed(second, start, stop)
        # sums in rows: the block's logits, the inputs of the first layer's new units, those of the second's
        rows = [n, new1.shape[1], new2.shape[1]]
        block = block.expand(len(used), -1)
        degrees = torch.cat([block - 1, m1, m2], 1)[..., None]
        weights = w["direct"][block - 1, :stop], w["first"][new1, :stop], w["pixels_to_second"][new2, :stop]
        weight = torch.cat(weights, 1) * (degrees >= pixel[:stop])
        bias = torch.cat([biases["output"][block - 1], biases["first"][new1], biases["second"][new2]], 1)
        sums = torch.baddbmm(bias[..., None], weight[..., :start], pixels[:, :start])
        logits, inputs1, inputs2 = sums.split(rows, 1)
        # contributions of units of earlier blocks
        logits.baddbmm_(w["first_to_output"][block - 1], h1).baddbmm_(w["output"][block - 1], h2)
        inputs2.baddbmm_(w["second"][new2], h1)
        # contributions from inside the block
        weight = weight[..., start:]
        weight2 = w["second"][new2[..., None], new1[:, None]] * (m2[..., None] >= m1[:, None])
        output1 = w["first_to_output"][block[..., None] - 1, new1[:, None]] * (block[..., None] > m1[:, None])
        output2 = w["output"][block[..., None] - 1, new2[:, None]] * (block[..., None] > m2[:, None])
        for d in range(n):
            new_h1 = inputs1.relu()
            new_h2 = torch.baddbmm(inputs2, weight2, new_h1).relu_()
            logit = torch.baddbmm(logits[:, d : d + 1], output1[:, d : d + 1], new_h1)
            logit.baddbmm_(output2[:, d : d + 1], new_h2)
            pixels[:, start + d] = u[:, start + d] < logit[:, 0].sigmoid_()
            sums.addcmul_(weight[..., d : d + 1], pixels[:, start + d : start + d + 1])
        complete = inputs1.relu()
        h1[is1.nonzero()[:, 0], new1[is1]] = complete[is1]
        h2[is2.nonzero()[:, 0], new2[is2]] = torch.baddbmm(inputs2, weight2, complete).relu_()[is2]
    return pixels[group, :, place].view(uniforms.shape)


def _completed(degrees: Tensor, start: int, stop: int) -> tuple[Tensor, Tensor, Tensor]:
    """Indices and degrees of the units with degrees from start + 1 to stop, and whether an entry is one of them.

    All three are [K, width]. Masks with fewer such units are padded with other units, given a degree that nothing sees.
    """
    inside = (degrees > start) & (degrees <= stop)  # [K, H]
    is_one, index = inside.byte().topk(int(inside.sum(1).max()))
    return index, degrees.gather(1, index).where(is_one > 0, torch.iinfo(degrees.dtype).max), is_one > 0
