"""Small models to decode with: attention alone, a window, a recurrence, and a hybrid of all."""

from typing import Any

import torch
from torch import Tensor, nn

import archspec
from archspec.language.model import Spec
from archspec.verify.sample import unit_gain

ATTENTION = {"kind": "attention", "n_heads": 4, "n_kv_heads": 2, "position": "rope"}
LOCAL = {**ATTENTION, "window": 6}
MAMBA = {"kind": "mamba", "d_state": 4}
MLP = {"kind": "mlp", "d_ff": 24}
MIXERS: dict[str, list[Any]] = {
    "attention": [ATTENTION, ATTENTION],
    "window": [LOCAL],
    "recurrence": [MAMBA],
    "lstm": [{"kind": "lstm", "depth": 2}],
    "hybrid": [MAMBA, LOCAL, ATTENTION],
}


def spec_of(name: str) -> Spec:
    """The spec of that name."""
    blocks = [{"mixer": mixer, "ffn": MLP} for mixer in MIXERS[name]]
    return archspec.load(
        {"name": name, "d_model": 16, "vocab_size": 11, "max_seq_len": 400, "blocks": blocks, "head": {"kind": "lm"}}
    )


def model_of(name: str, dtype: torch.dtype = torch.float64) -> nn.Module:
    """A model of that spec with weights of unit gain."""
    return unit_gain(archspec.build(spec_of(name)), torch.Generator().manual_seed(0)).to(dtype).eval()


def tokens(batch: int, n: int, seed: int = 0) -> Tensor:
    """Ids (batch, n)."""
    return torch.randint(11, (batch, n), generator=torch.Generator().manual_seed(seed))


def decoded(model: nn.Module, x: Tensor, state: Any, *sizes: int) -> Tensor:
    """What the tokens give in calls of these sizes, without gradients."""
    with torch.no_grad():
        return torch.cat([model(part, state=state) for part in x.split(list(sizes), dim=1)], dim=1)


def steps(n: int) -> list[int]:
    """The sizes of n calls of one token."""
    return [1] * n
