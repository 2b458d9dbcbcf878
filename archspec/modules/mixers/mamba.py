"""Mamba, as a module. What it computes is said in `archspec.layers.mixers.mamba`."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archspec.kernels.convolutions.short_conv import short_conv
from archspec.kernels.padding import hide
from archspec.kernels.precision import wide
from archspec.kernels.scans.selective_scan import selective_scan
from archspec.kernels.state import State
from archspec.layers.mixers.mamba import Mamba as Config
from archspec.modules import submodule
from archspec.modules.projection import linear
from archspec.modules.step_sizes import draw_step_bias


class Mamba(nn.Module):
    """out_proj(scan(silu(conv(x))) * silu(z)), a selective state space of d_inner channels with d_state states each."""

    def __init__(self, c: Config):
        super().__init__()
        self.c = c
        self.A_log = nn.Parameter(torch.empty(c.d_inner, c.d_state))
        self.D = nn.Parameter(torch.empty(c.d_inner))
        self.in_proj = linear(c, "in_proj", c.d_model, 2 * c.d_inner, bias=c.bias)
        self.conv1d = nn.Conv1d(c.d_inner, c.d_inner, c.d_conv, groups=c.d_inner, bias=c.conv_bias)
        self.x_proj = linear(c, "x_proj", c.d_inner, c.dt_rank + 2 * c.d_state, bias=False)
        if c.bcdt_norm is not None:
            self.dt_norm = submodule(c.bcdt_norm, c.dt_rank)
            self.b_norm = submodule(c.bcdt_norm, c.d_state)
            self.c_norm = submodule(c.bcdt_norm, c.d_state)
        self.dt_proj = linear(c, "dt_proj", c.dt_rank, c.d_inner)
        self.out_proj = linear(c, "out_proj", c.d_inner, c.d_model, bias=c.bias)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Decays 1, 2, ..., d_state in every channel and step sizes between dt_min and dt_max."""
        c = self.c
        self.A_log.copy_(torch.arange(1, c.d_state + 1, device=self.A_log.device).log().expand(c.d_inner, -1))
        nn.init.ones_(self.D)
        if c.dt_init == "random":
            nn.init.uniform_(self.dt_proj.weight, -c.dt_scale * c.dt_rank**-0.5, c.dt_scale * c.dt_rank**-0.5)
        else:
            nn.init.constant_(self.dt_proj.weight, c.dt_scale * c.dt_rank**-0.5)
        draw_step_bias(self.dt_proj.bias, c.dt_min, c.dt_max)

    def forward(self, x: Tensor, state: State | None = None, mask: Tensor | None = None) -> Tensor:
        """x (B, T, d_model) -> (B, T, d_model)."""
        c = self.c
        x, z = self.in_proj(x).chunk(2, dim=-1)  # (B, T, d_inner)
        x = short_conv(
            x, self.conv1d.weight, self.conv1d.bias, activation="silu", state=state, mask=mask if c.padded else None
        )
        dt, B, C = self.x_proj(x).split([c.dt_rank, c.d_state, c.d_state], dim=-1)
        if c.bcdt_norm is not None:
            dt, B, C = self.dt_norm(dt), self.b_norm(B), self.c_norm(C)
        dt = F.softplus(wide(self.dt_proj(dt)))  # (B, T, d_inner)
        if c.padded:
            dt = hide(dt, mask)  # a step of no length leaves the state as it is
        A = -torch.exp(wide(self.A_log))
        y = selective_scan(x, dt, A, B, C, D=self.D, z=z, state=state)
        return self.out_proj(y)
