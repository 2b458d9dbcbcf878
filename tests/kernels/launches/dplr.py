"""Launches of the kernels of the delta rules and of the general matrix memory at the widths of real models."""

import torch

from archspec.kernels.gpu import dplr as kernels
from archspec.kernels.memory import delta_rule, dplr
from archspec.kernels.memory.dplr_chunks import Inputs


def launches() -> None:
    for K, V, decays in ((64, 64, ("channel",)), (128, 128, ("none", "channel")), (128, 256, ("head",))):
        for decay in decays:
            given = delta_rule.example(B=1, T=128, G=1, H=2, K=K, V=V, channels=decay == "channel")
            given = {name: x.bfloat16() for name, x in given.items()}
            q, k, v, beta = (given[name] for name in ("q", "k", "v", "beta"))
            gates = None if decay == "none" else given["decay"].float()
            initial = torch.zeros(1, 2, K, V)
            kernels.forward(Inputs(q, k, k, v, None, beta, gates), initial, 1.0, 64, True)
    given = {name: x.bfloat16() for name, x in dplr.example(B=1, T=128, H=2, K=64, V=64).items()}
    initial = torch.zeros(1, 2, 64, 64)
    q, k, v, a, b, decay = given.values()
    kernels.forward(Inputs(q, a, b, v, k, None, decay.float()), initial, 1.0, 64, False)
    for m, K, V in ((1, 128, 256), (2, 64, 64)):
        near, far, inverse = torch.empty(2, 4, 64, K), torch.empty(4, m * 64, K), torch.empty(4, 64, 64)
        loss, written, carry = torch.empty(2, 4, 64, V), torch.empty(4, m * 64, V), torch.empty(2, K, V)
        kernels.backward_pass(near, far, inverse, torch.ones(4, 1, 1), loss, written, carry)
