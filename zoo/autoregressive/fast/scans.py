"""Triton kernels that run all steps of an LSTM over lines, or of a gated recurrent unit, on GPUs in mixed precision.

Step by step, such a layer takes thousands of small kernels, each of which takes longer to start than to run. Here the
states stay in registers from the first step to the last, forwards and backwards (as in Diamos et al. 2016, Persistent
RNNs, https://proceedings.mlr.press/v48/diamos16.html). Products are computed in the type of the inputs, and sums and
states in float32.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

PLACES = 32  # largest number of places in a line: one tile of the kernels
IMAGES = 16  # images per program of the GRU kernels: the fewest rows that a product can have


@triton.jit
def _sigmoid(x):
    return 1 / (1 + tl.exp(-x))


@triton.jit
def _tanh(x):
    return 2 / (1 + tl.exp(-2 * x)) - 1


@triton.jit
def _four(weight, channels: tl.constexpr):
    """The columns of a weight, [C, 4C], for each of the four gates."""
    at = weight + tl.arange(0, channels)[:, None] * (4 * channels) + tl.arange(0, channels)[None, :]
    return tl.load(at), tl.load(at + channels), tl.load(at + 2 * channels), tl.load(at + 3 * channels)


@triton.jit
def _moved(h, by: tl.constexpr, tile: tl.constexpr):
    """Moves h along the line by `by` places. A product with a matrix of zeros and ones does so exactly."""
    place = tl.arange(0, tile)
    return tl.dot((place[:, None] == place[None, :] + by).to(h.dtype), h).to(h.dtype)


@triton.jit
def _lstm_forward(
    inputs,
    weight,
    states,
    cells,
    gates,
    lines,
    batch,
    places,
    channels: tl.constexpr,
    before: tl.constexpr,
    after: tl.constexpr,
    tile: tl.constexpr,
):
    image, direction = tl.program_id(0).to(tl.int64), tl.program_id(1)  # 32 bits may be too few for an address
    stride = tl.num_programs(1).to(tl.int64) * batch * places  # of lines, in places
    place = tl.arange(0, tile)[:, None]
    inside = place < places
    at = (direction * batch + image) * places + place
    column = tl.arange(0, channels)[None, :]
    weight += direction * (before + 1 + after) * channels * 4 * channels
    ow, fw, iw, gw = _four(weight + before * 4 * channels * channels, channels)
    if before:
        ob, fb, ib, gb = _four(weight, channels)
    if after:
        oa, fa, ia, ga = _four(weight + (before + 1) * 4 * channels * channels, channels)
    h = tl.zeros([tile, channels], states.dtype.element_ty)
    c = tl.zeros([tile, channels], tl.float32)
    for _ in range(lines):
        total = at * (4 * channels) + column
        o = tl.load(inputs + total, inside, 0).to(tl.float32)
        f = tl.load(inputs + total + channels, inside, 0).to(tl.float32)
        i = tl.load(inputs + total + 2 * channels, inside, 0).to(tl.float32)
        g = tl.load(inputs + total + 3 * channels, inside, 0).to(tl.float32)
        o, f, i, g = tl.dot(h, ow, o), tl.dot(h, fw, f), tl.dot(h, iw, i), tl.dot(h, gw, g)
        if before:
            near = _moved(h, 1, tile)
            o, f, i, g = tl.dot(near, ob, o), tl.dot(near, fb, f), tl.dot(near, ib, i), tl.dot(near, gb, g)
        if after:
            near = _moved(h, -1, tile)
            o, f, i, g = tl.dot(near, oa, o), tl.dot(near, fa, f), tl.dot(near, ia, i), tl.dot(near, ga, g)
        o, f, i, g = _sigmoid(o), _sigmoid(f), _sigmoid(i), _tanh(g)
        c = f * c + i * g
        h = tl.where(inside, o * _tanh(c), 0).to(states.dtype.element_ty)
        tl.store(gates + total, o, inside)
        tl.store(gates + total + channels, f, inside)
        tl.store(gates + total + 2 * channels, i, inside)
        tl.store(gates + total + 3 * channels, g, inside)
        tl.store(cells + at * channels + column, c, inside)
        tl.store(states + at * channels + column, h, inside)
        at += stride


@triton.jit
def _lstm_backward(
    to_states,
    weight,
    cells,
    gates,
    to_inputs,
    lines,
    batch,
    places,
    channels: tl.constexpr,
    before: tl.constexpr,
    after: tl.constexpr,
    tile: tl.constexpr,
):
    image, direction = tl.program_id(0).to(tl.int64), tl.program_id(1)  # 32 bits may be too few for an address
    stride = tl.num_programs(1).to(tl.int64) * batch * places
    place = tl.arange(0, tile)[:, None]
    inside = place < places
    at = (direction * batch + image) * places + place + (lines - 1) * stride
    column = tl.arange(0, channels)[None, :]
    weight += direction * (before + 1 + after) * channels * 4 * channels
    ow, fw, iw, gw = _four(weight + before * 4 * channels * channels, channels)
    if before:
        ob, fb, ib, gb = _four(weight, channels)
    if after:
        oa, fa, ia, ga = _four(weight + (before + 1) * 4 * channels * channels, channels)
    to_h = tl.zeros([tile, channels], tl.float32)
    to_c = tl.zeros([tile, channels], tl.float32)
    for line in range(lines):
        total = at * (4 * channels) + column
        o = tl.load(gates + total, inside, 0).to(tl.float32)
        f = tl.load(gates + total + channels, inside, 0).to(tl.float32)
        i = tl.load(gates + total + 2 * channels, inside, 0).to(tl.float32)
        g = tl.load(gates + total + 3 * channels, inside, 0).to(tl.float32)
        c = _tanh(tl.load(cells + at * channels + column, inside, 0))
        c_before = tl.load(cells + (at - stride) * channels + column, inside & (line < lines - 1), 0)
        to_h += tl.load(to_states + at * channels + column, inside, 0).to(tl.float32)
        to_c += to_h * o * (1 - c * c)
        o = (to_h * c * o * (1 - o)).to(weight.dtype.element_ty)
        to_i, to_g, to_f = to_c * g, to_c * i, to_c * c_before
        to_c *= f
        f = (to_f * f * (1 - f)).to(weight.dtype.element_ty)
        i = (to_i * i * (1 - i)).to(weight.dtype.element_ty)
        g = (to_g * (1 - g * g)).to(weight.dtype.element_ty)
        tl.store(to_inputs + total, o, inside)
        tl.store(to_inputs + total + channels, f, inside)
        tl.store(to_inputs + total + 2 * channels, i, inside)
        tl.store(to_inputs + total + 3 * channels, g, inside)
        to_h = tl.dot(o, tl.trans(ow))
        to_h = tl.dot(f, tl.trans(fw), to_h)
        to_h = tl.dot(i, tl.trans(iw), to_h)
        to_h = tl.dot(g, tl.trans(gw), to_h)
        if before:
            near = tl.dot(o, tl.trans(ob))
            near = tl.dot(f, tl.trans(fb), near)
            near = tl.dot(i, tl.trans(ib), near)
            near = tl.dot(g, tl.trans(gb), near)
            to_h += _moved(near.to(o.dtype), -1, tile).to(tl.float32)
        if after:
            near = tl.dot(o, tl.trans(oa))
            near = tl.dot(f, tl.trans(fa), near)
            near = tl.dot(i, tl.trans(ia), near)
            near = tl.dot(g, tl.trans(ga), near)
            to_h += _moved(near.to(o.dtype), 1, tile).to(tl.float32)
        at -= stride


def _warps(channels: int) -> int:
    return 1 if channels <= 16 else 4  # so that the weights fit into registers


class _LSTM(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, before: int, after: int) -> Tensor:
        lines, directions, batch, places, width = inputs.shape
        inputs, low = inputs.contiguous(), weight.to(inputs.dtype).contiguous()
        states = inputs.new_empty(*inputs.shape[:-1], width // 4)
        cells, gates = torch.empty_like(states, dtype=torch.float32), torch.empty_like(inputs)
        sizes = lines, batch, places, width // 4, before, after, PLACES
        with torch.cuda.device_of(inputs):
            _lstm_forward[(batch, directions)](inputs, low, states, cells, gates, *sizes, num_warps=_warps(width // 4))
        ctx.save_for_backward(low, states, cells, gates)
        ctx.sizes, ctx.dtype = sizes, weight.dtype
        return states

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, to_states: Tensor) -> tuple[Tensor | None, ...]:
        low, states, cells, gates = ctx.saved_tensors
        to_inputs = torch.empty_like(gates)
        grid = (gates.shape[2], gates.shape[1])
        _, _, places, channels, before, after, _ = ctx.sizes
        to_states, num_warps = to_states.contiguous(), _warps(channels)
        with torch.cuda.device_of(low):
            _lstm_backward[grid](to_states, low, cells, gates, to_inputs, *ctx.sizes, num_warps=num_warps)
        near = torch.nn.functional.pad(states[:-1], (0, 0, before, after))  # of the previous lines
        near = torch.cat([near[..., k : k + places, :] for k in range(before + 1 + after)], -1)
        # [directions, lines * batch * places, ...]
        seen, told = (y.transpose(0, 1).flatten(1, 3) for y in (near, to_inputs[1:]))
        return to_inputs, (seen.mT @ told).to(ctx.dtype), None, None


def lstm(inputs: Tensor, weight: Tensor, before: int, after: int) -> Tensor:
    """Computes h of LSTMs that step over lines and start from zero; see `_lstm` in `zoo.autoregressive.pixelrnn`.

    Args:
        inputs: Inputs of the gates o, f, i and g, [lines, D, B, places, 4C], with D LSTMs side by side. C is a power of
            two and at least 16, and there are at most `PLACES` places.
        weight: Weights of h on the previous line: at the place before, the place itself and the place after,
            [D, (before + 1 + after) C, 4C].
        before: 1 if the LSTM sees the place before, else 0.
        after: 1 if the LSTM sees the place after, else 0.

    Returns:
        h, [lines, D, B, places, C].
    """
    return _LSTM.apply(inputs, weight, before, after)


@triton.jit
def _gru_forward(inputs, weight, bias, states, gates, batch, size, hidden: tl.constexpr, rows: tl.constexpr):
    image = tl.program_id(0).to(tl.int64) * rows + tl.arange(0, rows)[:, None]
    inside = image < batch
    column = tl.arange(0, hidden)[None, :]
    at_weight = weight + tl.arange(0, hidden)[:, None] + column * hidden  # transposed: [from, to]
    rw, zw, nw = tl.load(at_weight), tl.load(at_weight + hidden * hidden), tl.load(at_weight + 2 * hidden * hidden)
    rb, zb, nb = tl.load(bias + column), tl.load(bias + hidden + column), tl.load(bias + 2 * hidden + column)
    at = image * size
    h = tl.zeros([rows, hidden], tl.float32)
    xr = tl.load(inputs + at * 3 * hidden + column, inside, 0)
    xz = tl.load(inputs + at * 3 * hidden + hidden + column, inside, 0)
    xn = tl.load(inputs + at * 3 * hidden + 2 * hidden + column, inside, 0)
    for step in range(size):
        ahead = (at + 1) * 3 * hidden + column  # loaded early, as memory is slower than a step
        is_next = inside & (step + 1 < size)
        next_r = tl.load(inputs + ahead, is_next, 0)
        next_z = tl.load(inputs + ahead + hidden, is_next, 0)
        next_n = tl.load(inputs + ahead + 2 * hidden, is_next, 0)
        low = h.to(weight.dtype.element_ty)
        r = _sigmoid(tl.dot(low, rw, xr.to(tl.float32) + rb))
        z = _sigmoid(tl.dot(low, zw, xz.to(tl.float32) + zb))
        m = tl.dot(low, nw) + nb
        n = _tanh(xn.to(tl.float32) + r * m)
        h = n + z * (h - n)
        total = at * 4 * hidden + column
        tl.store(gates + total, r, inside)
        tl.store(gates + total + hidden, z, inside)
        tl.store(gates + total + 2 * hidden, n, inside)
        tl.store(gates + total + 3 * hidden, m, inside)
        tl.store(states + at * hidden + column, h, inside)
        xr, xz, xn = next_r, next_z, next_n
        at += 1


@triton.jit
def _gru_backward(to_states, weight, states, gates, to_gates, batch, size, hidden: tl.constexpr, rows: tl.constexpr):
    image = tl.program_id(0).to(tl.int64) * rows + tl.arange(0, rows)[:, None]
    inside = image < batch
    column = tl.arange(0, hidden)[None, :]
    at_weight = weight + tl.arange(0, hidden)[:, None] * hidden + column  # [to, from]
    rw, zw, nw = tl.load(at_weight), tl.load(at_weight + hidden * hidden), tl.load(at_weight + 2 * hidden * hidden)
    at = image * size + size - 1
    to_h = tl.zeros([rows, hidden], tl.float32)
    for step in range(size):
        total = at * 4 * hidden + column
        r = tl.load(gates + total, inside, 0).to(tl.float32)
        z = tl.load(gates + total + hidden, inside, 0).to(tl.float32)
        n = tl.load(gates + total + 2 * hidden, inside, 0).to(tl.float32)
        m = tl.load(gates + total + 3 * hidden, inside, 0).to(tl.float32)
        h_before = tl.load(states + (at - 1) * hidden + column, inside & (step + 1 < size), 0).to(tl.float32)
        to_h += tl.load(to_states + at * hidden + column, inside, 0).to(tl.float32)
        to_n = to_h * (1 - z) * (1 - n * n)
        to_z = (to_h * (h_before - n) * z * (1 - z)).to(weight.dtype.element_ty)
        to_r = (to_n * m * r * (1 - r)).to(weight.dtype.element_ty)
        to_m = (to_n * r).to(weight.dtype.element_ty)
        tl.store(to_gates + total, to_r, inside)
        tl.store(to_gates + total + hidden, to_z, inside)
        tl.store(to_gates + total + 2 * hidden, to_n, inside)
        tl.store(to_gates + total + 3 * hidden, to_m, inside)
        to_h = tl.dot(to_r, rw, to_h * z)
        to_h = tl.dot(to_z, zw, to_h)
        to_h = tl.dot(to_m, nw, to_h)
        at -= 1


class _GRU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        batch, size, width = inputs.shape
        inputs, low = inputs.contiguous(), weight.to(inputs.dtype).contiguous()
        states = inputs.new_empty(batch, size, width // 3)
        gates = inputs.new_empty(batch, size, width // 3 * 4)
        ctx.grid, ctx.sizes = (triton.cdiv(batch, IMAGES),), (batch, size, width // 3, IMAGES)
        with torch.cuda.device_of(inputs):
            _gru_forward[ctx.grid](inputs, low, bias.float(), states, gates, *ctx.sizes, num_warps=8)
        ctx.save_for_backward(low, states, gates)
        ctx.dtypes = weight.dtype, bias.dtype
        return states

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, to_states: Tensor) -> tuple[Tensor | None, ...]:
        low, states, gates = ctx.saved_tensors
        to_gates = torch.empty_like(gates)
        with torch.cuda.device_of(low):
            _gru_backward[ctx.grid](to_states.contiguous(), low, states, gates, to_gates, *ctx.sizes, num_warps=8)
        hidden = states.shape[-1]
        to_inputs = to_gates[..., : 3 * hidden]
        told = torch.cat([to_gates[..., : 2 * hidden], to_gates[..., 3 * hidden :]], -1)
        to_weight = told[:, 1:].flatten(0, 1).T @ states[:, :-1].flatten(0, 1)
        to_bias = told.sum((0, 1), dtype=torch.float32)
        return to_inputs, to_weight.to(ctx.dtypes[0]), to_bias.to(ctx.dtypes[1])


def gru(inputs: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Computes h of a layer of gated recurrent units that starts from zero.

    Args:
        inputs: Inputs of the gates r, z and n, [B, steps, 3H]. H is a power of two from 16 to 128.
        weight: Weights of the previous h, [3H, H], as in `torch.nn.GRU`.
        bias: Biases of the previous h, [3H], as in `torch.nn.GRU`.

    Returns:
        h, [B, steps, H].
    """
    return _GRU.apply(inputs, weight, bias)
