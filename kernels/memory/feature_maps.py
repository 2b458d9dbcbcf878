"""Feature maps phi of linear attention: phi(q) . phi(k) takes the place of exp(q . k).

Each works on the last axis, (..., d) -> (..., features), and gives the type of its input.
"""

from math import sqrt

import torch
import torch.nn.functional as F
from torch import Tensor

from archspec.kernels.precision import wide


def elu_plus_one(x: Tensor) -> Tensor:
    """phi(x) = elu(x) + 1, positive (Katharopoulos et al. 2020, eq. 7)."""
    return F.elu(x) + 1


def relu(x: Tensor) -> Tensor:
    """phi(x) = max(x, 0) (Kasai et al. 2021, T2R, after a learned affine map)."""
    return F.relu(x)


def squared(x: Tensor) -> Tensor:
    """phi(x) = all products x[i] x[j], d^2 features, so that phi(q) . phi(k) = (q . k)^2.

    ReBased (Aksenov et al. 2024, eq. 6) takes it of an affine map of normalised x.
    """
    return (x.unsqueeze(-1) * x.unsqueeze(-2)).flatten(-2)


def taylor(x: Tensor, scale: float | None = None) -> Tensor:
    """phi(x) = [1, x, x x^T / sqrt(2)] of x sqrt(scale), 1 + d + d^2 features (Arora et al. 2024, Based).

    phi(q) . phi(k) = 1 + s + s^2 / 2, the exponential of s = scale q . k to second order; scale is 1 / sqrt(d) by
    default.
    """
    x = x * sqrt(x.shape[-1] ** -0.5 if scale is None else scale)
    return torch.cat((torch.ones_like(x[..., :1]), x, squared(x) * sqrt(0.5)), dim=-1)


def hedgehog(x: Tensor) -> Tensor:
    """phi(x) = softmax of [x, -x], 2 d features (Zhang et al. 2024, after a learned linear map)."""
    return torch.cat((x, -x), dim=-1).softmax(-1)


def dpfp(x: Tensor, nu: int = 1) -> Tensor:
    """phi(x) = r[i] r[i - j] for j = 1 ... nu and r = relu([x, -x]), indices in a ring: 2 d nu features.

    Deterministic parameter-free projection (Schlag et al. 2021, eq. 37).
    """
    r = F.relu(torch.cat((x, -x), dim=-1))
    return torch.cat([r * r.roll(j, -1) for j in range(1, nu + 1)], dim=-1)


def positive_random(x: Tensor, projection: Tensor) -> Tensor:
    """phi(x) = exp(W x - |x|^2 / 2) / sqrt(m), projection W (m, d): FAVOR+ (Choromanski et al. 2021, lemma 1).

    phi(q) . phi(k) is exp(q . k) on average over rows of W that are normal with unit variance.
    """
    y = wide(x)
    half = y.square().sum(-1, keepdim=True) / 2
    return ((y @ projection.to(y.dtype).mT - half).exp() / sqrt(projection.shape[0])).to(x.dtype)
