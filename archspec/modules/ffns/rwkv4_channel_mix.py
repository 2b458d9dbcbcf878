"""RWKV-4's channel mixing, as a module. What it computes is said in `archspec.layers.ffns.rwkv4_channel_mix`."""

import torch
from torch import Tensor, nn

from archspec.kernels.convolutions.token_shift import token_shift
from archspec.kernels.pointwise.activation import relu2
from archspec.kernels.state import State
from archspec.layers.ffns.rwkv4_channel_mix import RWKV4ChannelMix as Config
from archspec.modules.projection import linear


class RWKV4ChannelMix(nn.Module):
    """sigmoid(r) * v_proj(relu(k)^2); k and r are projections of each token mixed with the one before it."""

    def __init__(self, layer: int, c: Config):
        super().__init__()
        self.c = c
        self.layer = layer
        self.time_mix_k = nn.Parameter(torch.empty(c.d_model))
        self.time_mix_r = nn.Parameter(torch.empty(c.d_model))
        self.k_proj = linear(c, "k_proj", c.d_model, c.d_ff, bias=False)
        self.v_proj = linear(c, "v_proj", c.d_ff, c.d_model, bias=False)
        self.r_proj = linear(c, "r_proj", c.d_model, c.d_model, bias=False)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Channels from the token before to the token itself, of which deeper layers read more."""
        c = self.c
        above = 1 - self.layer / c.n_layers  # 1 in the first layer, 1 / n_layers in the last
        share = torch.arange(c.d_model, device=self.time_mix_k.device) / c.d_model
        self.time_mix_k.copy_(share**above)
        self.time_mix_r.copy_(share**above)

    def forward(self, x: Tensor, state: State | None = None, mask: Tensor | None = None) -> Tensor:
        """x (B, T, d_model) -> (B, T, d_model)."""
        c = self.c
        before = token_shift(x, state, mask=mask if c.padded else None)  # (B, T, d_model)
        k = relu2(self.k_proj(torch.lerp(before, x, self.time_mix_k.to(x.dtype))))  # (B, T, d_ff)
        r = self.r_proj(torch.lerp(before, x, self.time_mix_r.to(x.dtype)))  # (B, T, d_model)
        return torch.sigmoid(r) * self.v_proj(k)
