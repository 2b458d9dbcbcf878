"""Weights start as those of the transformers library do: the same mean and deviation, tensor by tensor."""

import math
import re
from importlib import import_module

import pytest
import torch
from parity_checks import SPECS, Family, copy_weights
from test_parity_decoders import PUBLISHED
from test_parity_encoder_decoder import FAMILIES as ENCODER_DECODERS
from test_parity_encoders import FAMILIES as ENCODERS
from test_parity_moe import FAMILIES as EXPERTS
from torch import Tensor, nn

import archspec

SEEDS = 4
PAPER = {"initializer_range": 0.006}  # of DeepSeek's papers
TRUNCATED = {"bert": 0.8796}  # deviation of what is drawn again beyond two: Google's code, and not the library's
FAMILIES: dict[str, Family] = {
    **{name: PUBLISHED[name] for name in ("gpt2", "llama2", "llama3", "mistral", "gemma2")},
    "t5": ENCODER_DECODERS["t5"],
    "bert": ENCODERS["bert"],
    **{name: EXPERTS[name] for name in ("mixtral", "qwen2_moe")},
    **{
        name: EXPERTS[name]._replace(sizes={**EXPERTS[name].sizes, **PAPER})
        for name in ("deepseek_v2_lite", "deepseek_v3")
    },
}


def by_kind(model: nn.Module) -> dict[str, Tensor]:
    """The numbers of each tensor, those of all layers together."""
    found: dict[str, list[Tensor]] = {}
    for name, p in model.named_parameters():
        found.setdefault(re.sub(r"blocks\.\d+\.", "blocks.*.", name), []).append(p.detach().flatten().clone())
    return {name: torch.cat(parts) for name, parts in found.items()}


@pytest.mark.parametrize("name", FAMILIES)
def test_starts_as_the_library_does(name: str) -> None:
    family = FAMILIES[name]
    spec = archspec.load(SPECS / f"{family.spec}.yaml", set=family.settings)
    theirs_of = getattr(import_module(f"transformers.models.{family.folder}.modeling_{family.folder}"), family.cls)
    starts: list[list[dict[str, Tensor]]] = [[], []]
    model = archspec.build(spec, init=False)
    for seed in range(SEEDS):
        archspec.init_weights(model, seed=seed)
        starts[0].append(by_kind(model))
        torch.manual_seed(seed)
        copy_weights(model, theirs_of(theirs_of.config_class(**family.sizes)), family.rules, family.unused)
        starts[1].append(by_kind(model))
    for tensor in starts[0][0]:
        ours, theirs = (torch.cat([start[tensor] for start in side]) for side in starts)
        wanted = theirs.std() * (TRUNCATED.get(name, 1.0) if theirs.unique().numel() > 1 else 1.0)
        error = 5 / math.sqrt(ours.numel())  # five standard errors of a mean; those of a deviation are as large for two
        torch.testing.assert_close(ours.std(), wanted, rtol=error, atol=0, msg=lambda m, t=tensor: f"{t}: {m}")
        largest = 1.5 * error * float(theirs.std())
        torch.testing.assert_close(
            ours.mean(), theirs.mean(), rtol=0, atol=largest, msg=lambda m, t=tensor: f"{t}: {m}"
        )
