"""FLOPs of the transformers library's models under PyTorch's counter, against those that are priced."""

import pytest
import torch
from flop_oracle import counted
from parity_checks import TOKENS, Family, library, tokens
from test_parity_decoders import PUBLISHED
from test_parity_encoder_decoder import FAMILIES as ENCODER_DECODERS
from test_parity_moe import FAMILIES as MIXTURES
from test_parity_recurrent import FAMILIES as RECURRENT

from archspec.language.load import load
from archspec.language.model import Spec
from archspec.layers.ops import Conv
from archspec.passes.cost import cost

DECODERS = PUBLISHED | MIXTURES | {"rwkv4": RECURRENT["rwkv4"]}


def spec_of(family: Family) -> Spec:
    source = f"specs/{family.spec}.yaml" if isinstance(family.spec, str) else family.spec
    return load(source, set=family.settings)


@pytest.mark.parametrize("name", DECODERS)
def test_a_training_step(name: str) -> None:
    family = DECODERS[name]
    theirs = library(family.folder, family.cls, **family.sizes)
    found = cost(spec_of(family), batch=2, seq=TOKENS, attention="eager")
    forward, logits = counted(lambda: theirs(input_ids=tokens(), use_cache=False).logits)
    assert forward == found.flops_forward
    assert counted(logits.square().mean().backward)[0] == found.flops_backward


@pytest.mark.parametrize("name", ENCODER_DECODERS)
@torch.no_grad()
def test_an_encoder_and_a_decoder(name: str) -> None:
    family = ENCODER_DECODERS[name]
    theirs = library(family.folder, family.cls, **family.sizes)
    source, target = tokens(), tokens(seed=2, length=13)
    found, _ = counted(lambda: theirs(input_ids=source, decoder_input_ids=target, use_cache=False))
    assert found == cost(spec_of(family), batch=2, seq=13, memory=TOKENS, phase="prefill").flops


@torch.no_grad()
def test_mamba_but_for_the_padding_of_its_convolution() -> None:
    """The library convolves d_conv - 1 positions at the end of each text that it cuts off again."""
    family = RECURRENT["mamba"]
    theirs, spec = library(family.folder, family.cls, **family.sizes), spec_of(family)
    found, _ = counted(lambda: theirs(input_ids=tokens(), use_cache=False))
    conv = [x for x in cost(spec, batch=2, seq=TOKENS, phase="prefill").lines if isinstance(x.node.op, Conv)]
    cut_off = sum(x.times * x.forward // TOKENS * (x.node.op.taps - 1) for x in conv)
    assert found == cost(spec, batch=2, seq=TOKENS, phase="prefill").flops + cut_off
