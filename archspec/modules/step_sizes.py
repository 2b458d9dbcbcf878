"""How learned step sizes of state spaces start."""

from math import log

import torch
from torch import Tensor


def step_bias(like: Tensor, smallest: float, largest: float) -> Tensor:
    """What softplus turns into step sizes drawn log-uniformly from [smallest, largest], in the shape of `like`."""
    dt = torch.empty_like(like, dtype=torch.float32).uniform_(log(smallest), log(largest)).exp()
    return dt + torch.log(-torch.expm1(-dt))
