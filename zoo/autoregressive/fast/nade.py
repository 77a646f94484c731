"""NADE on the CPU: hidden states are computed only after pixels that are on, since other pixels do not change them."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from zoo.progress import steps

if TYPE_CHECKING:
    from zoo.autoregressive.nade import NADE


def from_uniforms(model: NADE, uniforms: Tensor) -> Tensor:
    """Fast version of `NADE.from_uniforms`."""
    limits = (uniforms.flatten(1).clamp(0, 1).logit() - model.bias).T.contiguous()  # [D, B], so that a pixel is a row
    x = torch.zeros_like(limits)
    sums = model.hidden_bias.expand(len(uniforms), -1).clone()
    h, logit = sums.sigmoid(), limits.new_empty(len(uniforms))
    weight, output, limit = model.weight.unbind(), model.output.unbind(), limits.unbind()  # indexing would cost 10 %
    for d in steps(range(model.size), "pixel"):
        on = torch.gt(torch.mv(h, output[d], out=logit), limit[d]).nonzero().view(-1)
        if on.shape[0]:
            x[d].index_fill_(0, on, 1)
            changed = sums.index_select(0, on).add_(weight[d])
            sums.index_copy_(0, on, changed)
            h.index_copy_(0, on, changed.sigmoid_())
    return x.T.reshape(uniforms.shape)


def products(x: Tensor, c: Tensor, weight: Tensor, output: Tensor, keep: Tensor | None) -> Tensor | None:
    """Fast version of `_products` in `zoo.autoregressive.nade` for the CPU, unless x needs a gradient."""
    if not len(x) or x.device.type != "cpu" or x.requires_grad:
        return None
    return _Products.apply(x, c, weight, output, keep)


class _Products(torch.autograd.Function):
    """V_d sigmoid(c + W_<d x_<d) for every pixel d; see `_products` in `zoo.autoregressive.nade`.

    The S states of all images are the rows of one matrix. Its first part holds each image's state before any pixel is
    on, the second part the states after the first such pixel, the third part those after the second, and so on. Images
    with more pixels on come first, so that the images of a part are the first images of the part before it. A part is
    thus the first rows of the part before it, plus a row of W for each.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, c: Tensor, weight: Tensor, output: Tensor, keep: Tensor | None) -> Tensor:
        states = _states(x)
        a = c[states.order]
        memory, h = torch.empty_like(a), a.new_empty(len(states.after), a.shape[1])
        for part, pixels in zip(h.split(states.sizes), states.after.split(states.sizes), strict=True):
            a, memory = a[: len(part)], memory[: len(part)]
            if pixels[0] >= 0:
                a += torch.index_select(weight, 0, pixels, out=memory)
            torch.sigmoid(a, out=part)
        kept = None if keep is None else keep[states.order].index_select(0, states.image)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sparse CSR tensor support")  # warns that it is in beta state
            seen = torch.sparse_csr_tensor(
                states.first, states.pixels, x.new_zeros(x.numel()), (len(h), x.shape[1]), check_invariants=False
            )
        products = torch.sparse.sampled_addmm(seen, h if kept is None else h * kept, output.T, beta=0.0).values()
        ctx.save_for_backward(output)
        ctx.rest = h, kept, states
        return torch.empty_like(x).index_copy_(0, states.order, products[states.place])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (output,) = ctx.saved_tensors
        h, kept, states = ctx.rest
        gradient = gradient[states.order]
        to_output = F.embedding_bag(
            states.of.T.contiguous(),
            h if kept is None else h * kept,
            mode="sum",
            per_sample_weights=gradient.T.contiguous(),
        )
        chosen = gradient.new_empty(gradient.numel()).scatter_(0, states.place.flatten(), gradient.flatten())
        to_h = F.embedding_bag(
            states.pixels, output, states.first, mode="sum", per_sample_weights=chosen, include_last_offset=True
        )
        if kept is not None:
            to_h *= kept
        torch.ops.aten.sigmoid_backward.grad_input(to_h, h, grad_input=to_h)
        parts = to_h.split(states.sizes)
        for part, later in zip(parts[-2::-1], parts[:0:-1], strict=True):  # later states of the image hold c, too
            part[: len(later)] += later
        begun, order = states.after[len(gradient) :].sort()
        to_weight = F.embedding_bag(
            order + len(gradient),
            to_h,
            torch.searchsorted(begun, torch.arange(len(output))),
            mode="sum",
        )
        return None, torch.empty_like(parts[0]).index_copy_(0, states.order, parts[0]), to_weight, to_output, None


class _States(NamedTuple):
    """The S states that images go through."""

    order: Tensor  # [B], indices of the images, those with more pixels on first; the fields below use this order
    sizes: list[int]  # number of states in each part of the matrix of `_Products`
    image: Tensor  # [S], the image that each state belongs to
    after: Tensor  # [S], the pixel that is on, after which each state begins; -1 for none
    of: Tensor  # [B, D], the state of each pixel
    pixels: Tensor  # [B * D], all pixels, sorted by their states
    first: Tensor  # [S + 1], where the pixels of each state begin in `pixels`
    place: Tensor  # [B, D], where each pixel is in `pixels`


def _states(x: Tensor) -> _States:
    """The states of images, [B, D] with values in {0, 1}."""
    on = x[:, :-1] > 0  # no pixel follows the last one
    order = on.sum(1).argsort(descending=True)
    on = on[order]
    number = F.pad(on.cumsum(1), (1, 0))  # of pixels that are on before each
    most = number[:, -1]
    widths = len(x) - torch.searchsorted(most.flip(0), torch.arange(int(most[0]) + 1))
    starts, sizes = F.pad(widths.cumsum(0), (1, 0)), widths.tolist()
    images, pixels = torch.arange(len(x)), torch.arange(x.shape[1])
    of = starts[number] + images[:, None]
    image, pixel = on.nonzero().unbind(1)
    after = torch.full((sum(sizes),), -1).index_copy_(0, of[image, pixel + 1], pixel)
    first = F.pad(torch.bincount(of.flatten(), minlength=len(after)).cumsum(0), (1, 0))
    place = (first[:-1] - after - 1)[of] + pixels
    flat = torch.empty_like(place.flatten()).scatter_(0, place.flatten(), pixels.repeat(len(x)))
    return _States(order, sizes, torch.cat([images[:size] for size in sizes]), after, of, flat, first, place)
