"""How learned step sizes of state spaces start."""

from math import log

import torch
from torch import Tensor, nn

from archspec.kernels.precision import wide


@torch.no_grad()
def draw_step_bias(bias: Tensor, smallest: float, largest: float) -> None:
    """Fill a bias with what softplus turns into step sizes drawn log-uniformly from [smallest, largest]."""
    nn.init.uniform_(bias, log(smallest), log(largest))
    dt = wide(bias).exp()
    bias.copy_(dt + torch.log(-torch.expm1(-dt)))
