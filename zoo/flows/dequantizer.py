"""Variational dequantisation (Ho et al. 2019, Flow++, https://arxiv.org/abs/1902.00275, section 3.1).

    log P(x) >= E_q[log p((255 x + u)/256) - log q(u | x)] - D log 256                                           (eq. 7)
    u = Phi(f(epsilon; x)),    epsilon ~ N(0, I),    log q(u | x) = log N(epsilon; 0, I) - log |det du/depsilon|

Uniform noise u asks a smooth density to be flat within the cell of a grey level. Learned noise goes where the density
already is, which brings the bound closer to log P(x). f is a flow of affine couplings, each of which also sees the
image. It starts as the identity, so that u starts uniform (Phi is the distribution function of N(0, 1)).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from zoo.flows.couplings import Affine, ConvNet
from zoo.flows.layers import Squeeze

_affine = Affine()


class Dequantizer(nn.Module):
    """Noise for the pixels of an image that depends on the image.

    Args:
        event_shape: (C, H, W); H and W are even.
        hidden: Number of hidden channels of the couplings.
        num_couplings: Number of couplings, at a resolution of H/2 x W/2.
    """

    def __init__(self, event_shape: Sequence[int], hidden: int, num_couplings: int = 4) -> None:
        super().__init__()
        channels = event_shape[0]
        self.squeeze = Squeeze()
        self.networks = nn.ModuleList(ConvNet(6 * channels, hidden, 4 * channels) for _ in range(num_couplings))

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype

    def forward(self, x: Tensor, epsilon: Tensor) -> tuple[Tensor, Tensor]:
        """Makes u and log q(u | x) of standard normal noise: twice [B, C, H, W] -> ([B, C, H, W] in (0, 1), [B])."""
        image, v = self.squeeze(2 * x - 1)[0], self.squeeze(epsilon)[0]
        ladj = x.new_zeros(len(x))
        for network in self.networks:
            kept, rest = v.chunk(2, 1)
            parameters = network(torch.cat([kept, image], 1).to(self.dtype)).to(v.dtype)
            rest, log_slope = _affine(rest, parameters.unflatten(1, (2, -1)))
            v, ladj = torch.cat([rest, kept], 1), ladj + log_slope.flatten(1).sum(1)
        v = self.squeeze.inverse(v)
        # the factors 1/sqrt(2 pi) of the density of epsilon and of the slope of Phi cancel
        log_ratio = (v.square() - epsilon.square()).flatten(1).sum(1) / 2
        return torch.special.ndtr(v).clamp(max=1 - 2.0**-16), log_ratio - ladj  # 255 + u stays below 256 in float32
