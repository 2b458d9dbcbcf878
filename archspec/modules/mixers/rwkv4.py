"""RWKV-4's time mixing, as a module. What it computes is said in `archspec.layers.mixers.rwkv4`."""

from math import log

import torch
from torch import Tensor, nn

from archspec.kernels.convolutions.token_shift import token_shift
from archspec.kernels.precision import wide
from archspec.kernels.scans.wkv import wkv
from archspec.kernels.state import State
from archspec.layers.mixers.rwkv4 import RWKV4 as Config
from archspec.modules.projection import linear


class RWKV4(nn.Module):
    """out_proj(sigmoid(r) * wkv(k, v)); k, v and r are projections of each token mixed with the one before it."""

    def __init__(self, layer: int, c: Config):
        super().__init__()
        self.c = c
        self.layer = layer
        self.time_decay = nn.Parameter(torch.empty(c.d_inner))
        self.time_first = nn.Parameter(torch.empty(c.d_inner))
        self.time_mix_k = nn.Parameter(torch.empty(c.d_model))
        self.time_mix_v = nn.Parameter(torch.empty(c.d_model))
        self.time_mix_r = nn.Parameter(torch.empty(c.d_model))
        self.k_proj = linear(c, "k_proj", c.d_model, c.d_inner, bias=False)
        self.v_proj = linear(c, "v_proj", c.d_model, c.d_inner, bias=False)
        self.r_proj = linear(c, "r_proj", c.d_model, c.d_inner, bias=False)
        self.out_proj = linear(c, "out_proj", c.d_inner, c.d_model, bias=False)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Channels from slow decays to fast ones, and from the token before to the token itself.

        The deeper the layer, the more channels are slow, and the more read of the token itself.
        """
        c = self.c
        depth = self.layer / (c.n_layers - 1) if c.n_layers > 1 else 0.0  # 0 in the first layer, 1 in the last
        above = 1 - self.layer / c.n_layers  # 1 in the first layer, 1 / n_layers in the last
        speed = torch.linspace(0, 1, c.d_inner, device=self.time_decay.device)
        self.time_decay.copy_(8 * speed ** (0.7 + 1.3 * depth) - 5)
        zigzag = (torch.arange(c.d_inner, device=self.time_first.device) + 1) % 3 - 1  # 0, 1, -1, 0, ...
        self.time_first.copy_(log(0.3) + 0.5 * zigzag)
        share = torch.arange(c.d_model, device=self.time_mix_k.device) / c.d_model
        self.time_mix_k.copy_(share**above)
        self.time_mix_v.copy_(share**above + 0.3 * depth)
        self.time_mix_r.copy_(share ** (0.5 * above))

    def forward(self, x: Tensor, state: State | None = None, mask: Tensor | None = None) -> Tensor:
        """x (B, T, d_model) -> (B, T, d_model)."""
        c = self.c
        before = token_shift(x, state, mask=mask if c.padded else None)  # (B, T, d_model)
        k = self.k_proj(torch.lerp(before, x, self.time_mix_k.to(x.dtype)))  # (B, T, d_inner)
        v = self.v_proj(torch.lerp(before, x, self.time_mix_v.to(x.dtype)))
        r = self.r_proj(torch.lerp(before, x, self.time_mix_r.to(x.dtype)))
        w = -torch.exp(wide(self.time_decay))  # (d_inner,)
        y = wkv(w, self.time_first, k, v, state, mask=mask if c.padded else None)
        return self.out_proj(torch.sigmoid(r) * y)  # (B, T, d_model)
