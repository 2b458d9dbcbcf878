"""Mamba-2, as a module. What it computes is said in `archspec.layers.mixers.mamba2`."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archspec.kernels.convolutions.short_conv import short_conv
from archspec.kernels.memory.ssd import ssd
from archspec.kernels.padding import hide
from archspec.kernels.pointwise.norm import gated_rms_norm
from archspec.kernels.precision import wide
from archspec.kernels.state import State
from archspec.layers.mixers.mamba2 import Mamba2 as Config
from archspec.modules.projection import linear
from archspec.modules.step_sizes import draw_step_bias


class Mamba2(nn.Module):
    """out_proj(norm(ssd(silu(conv(x, B, C)), dt) * silu(z))), n_heads heads with a scalar decay each."""

    def __init__(self, c: Config):
        super().__init__()
        self.c = c
        self.A_log = nn.Parameter(torch.empty(c.n_heads))
        self.D = nn.Parameter(torch.empty(c.n_heads))
        self.dt_bias = nn.Parameter(torch.empty(c.n_heads))
        self.in_proj = linear(c, "in_proj", c.d_model, c.d_inner + c.conv_dim + c.n_heads, bias=c.bias)
        self.conv1d = nn.Conv1d(c.conv_dim, c.conv_dim, c.d_conv, groups=c.conv_dim, bias=c.conv_bias)
        if c.norm_place != "none":
            self.norm = nn.RMSNorm(c.d_inner, eps=c.norm_eps)
        self.out_proj = linear(c, "out_proj", c.d_inner, c.d_model, bias=c.bias)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Decay rates between a_min and a_max, step sizes between dt_min and dt_max."""
        c = self.c
        nn.init.uniform_(self.A_log, c.a_min, c.a_max).log_()
        nn.init.ones_(self.D)
        draw_step_bias(self.dt_bias, c.dt_min, c.dt_max)

    def forward(self, x: Tensor, state: State | None = None, mask: Tensor | None = None) -> Tensor:
        """x (B, T, d_model) -> (B, T, d_model)."""
        c = self.c
        z, x, dt = self.in_proj(x).split([c.d_inner, c.conv_dim, c.n_heads], dim=-1)
        x = short_conv(
            x, self.conv1d.weight, self.conv1d.bias, activation="silu", state=state, mask=mask if c.padded else None
        )
        x, B, C = torch.split(x, [c.d_inner, c.n_groups * c.d_state, c.n_groups * c.d_state], dim=-1)
        dt = F.softplus(wide(dt) + wide(self.dt_bias))  # (B, T, n_heads)
        if c.limits_dt:
            dt = dt.clamp(min=c.dt_limit_min, max=c.dt_limit_max)
        if c.padded:
            dt = hide(dt, mask)  # a step of no length leaves the state as it is
        x = x.view(*x.shape[:2], c.n_heads, c.head_dim)  # (B, T, n_heads, head_dim)
        B = B.view(*B.shape[:2], c.n_groups, c.d_state)  # (B, T, n_groups, d_state)
        C = C.view(*C.shape[:2], c.n_groups, c.d_state)  # (B, T, n_groups, d_state)
        A = -torch.exp(wide(self.A_log))
        y = ssd(x, dt, A, B, C, D=self.D, state=state, chunk=c.chunk).flatten(-2)  # (B, T, d_inner)
        if c.norm_place == "after_gate":
            y = gated_rms_norm(y, z, self.norm.weight, c.norm_eps, group_size=c.norm_group_size)
        elif c.norm_place == "before_gate":
            y = gated_rms_norm(y, z, self.norm.weight, c.norm_eps, group_size=c.norm_group_size, norm_before_gate=True)
        else:
            y = y * F.silu(z)
        return self.out_proj(y)
