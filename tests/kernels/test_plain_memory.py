"""Memory of plain forms: where that of the package grows like the sequence, theirs does."""

from functools import partial

import pytest
import torch
from plain_cases import SEQUENCES, WHOLES, plain, public, trained
from plain_memory import memory_of

import archspec
from archspec.codegen.load import build, load_text

LINEAR = 2.5  # the growth for twice the tokens; with a mask or a score for every pair it is four
POINTWISE = ("norm", "activation", "rope", "router")


def usual(case):
    """The sizes of the first example that is not empty."""
    return next(sizes for sizes in case.every_size() if 0 not in sizes.values())


def is_asked(case):
    """Not what takes a bias for every pair, which is as large as all scores."""
    biased = case.name == "attention" and "bias" in case.arguments(usual(case))
    return case.family not in POINTWISE and not biased


def lengths(case):
    """What counts the tokens, and how many: above 512^2 pairs the package's attention makes tiles."""
    if case.name in ("attention", "latent_attention"):
        return ("T", "S"), 1024
    return ("N" if case.family == "experts" else "T",), 256


def memory(case, module, tokens):
    """Memory of one call on so many tokens."""
    given = case.arguments({**usual(case), **dict.fromkeys(lengths(case)[0], tokens)})
    given = {k: v.requires_grad_() if trained(v) else v for k, v in given.items()}
    return memory_of(lambda: getattr(module(case.family), case.name)(**given, **case.settings))


def grows_linearly(small, large):
    return large.held <= LINEAR * small.held and large.peak <= LINEAR * small.peak


@pytest.mark.parametrize("case", [case for case in (*SEQUENCES, *WHOLES) if is_asked(case)], ids=repr)
def test_a_family_needs_memory_like_its_tokens(case):
    tokens = lengths(case)[1]
    package = [memory(case, public, n).held for n in (tokens, 2 * tokens)]
    assert package[1] <= LINEAR * package[0]  # else nothing would be asked of the plain form
    assert grows_linearly(*(memory(case, plain, n) for n in (tokens, 2 * tokens)))


def test_scores_of_all_pairs_would_be_seen():
    def written_out(tokens):
        q = torch.randn(1, 2, tokens, 8, requires_grad=True)
        return memory_of(lambda: (q @ q.mT).softmax(-1) @ q)

    small, large = written_out(512), written_out(1024)
    assert large.held > 3.5 * small.held
    assert large.peak > 3.5 * small.peak


ATTENTION = {"kind": "attention", "n_heads": 4, "n_kv_heads": 2}
MODELS = {
    "causal": ATTENTION,
    "window": {**ATTENTION, "window": 64},
    "softcap": {**ATTENTION, "softcap": 20.0},
    "sinks": {**ATTENTION, "sinks": True, "window": 64},
    "alibi": {**ATTENTION, "position": {"kind": "alibi"}},
    "narrow_values": {**ATTENTION, "head_dim": 8, "v_head_dim": 4},
    "mla": {"kind": "mla", "n_heads": 4, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4},
    "mamba": {"kind": "mamba", "d_state": 4},
    "mamba2": {"kind": "mamba2", "head_dim": 8, "d_state": 8},
    "hyena": {"kind": "hyena"},
}
MOE = {"kind": "moe", "n_experts": 4, "top_k": 2, "d_ff": 16}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_needs_memory_like_its_tokens(name):
    blocks = [{"mixer": MODELS[name], "ffn": MOE if name == "causal" else {"kind": "gated_mlp", "d_ff": 32}}]
    sizes = {"d_model": 32, "vocab_size": 50, "max_seq_len": 4096}
    spec = archspec.load({"name": name, **sizes, "blocks": blocks, "head": {"kind": "lm"}})
    standalone = load_text(archspec.generate(spec, standalone="plain"), f"{name}_memory").Model()
    for model in (build(spec).train(), standalone.train()):
        found = [memory_of(partial(model, torch.randint(50, (1, n)))) for n in (1024, 2048)]
        assert grows_linearly(*found), type(model)
