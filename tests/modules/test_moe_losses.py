"""The balance loss by its parts: numbers worked out by hand, the papers' equations in loops, and transformers' own."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

import archspec
from archspec.kernels.collect import collect
from archspec.kernels.moe.balance import router_loss
from archspec.language.load import load
from archspec.language.resolve import make
from archspec.modules import submodule
from archspec.modules.model import eager

DOWN, UP = [0.4, 0.3, 0.2, 0.1], [0.1, 0.2, 0.3, 0.4]
PROBABILITIES = torch.tensor([[DOWN, DOWN], [UP, DOWN]], dtype=torch.double)  # of 4 experts for 2 tokens of 2 sequences
BIASED: dict[str, Any] = {"correction_bias": True, "balance_over": "sequence", "balance_sum": "one"}

# Of all tokens the fractions of top 2 are 3/4, 3/4, 1/4, 1/4, and the mean probabilities .325, .275, .225, .175.
BY_HAND: list[tuple[dict[str, Any], float]] = [
    ({}, 4 * (0.75 * 0.6 + 0.25 * 0.4)),  # 2.2
    ({"balance_sum": "one"}, 1.1),
    ({"balance_counts": "first"}, 4 * (0.75 * 0.325 + 0.25 * 0.175)),  # 1.15
    ({"top_k": 1}, 1.15),  # Switch
    # The first sequence has fractions 1/2, 1/2, 0, 0: 4 * (.5 * .4 + .5 * .3); the second 1/4 each: 1.
    ({"balance_over": "sequence", "balance_sum": "one"}, (1.4 + 1.0) / 2),
    ({"balance_over": "sequence"}, 2.4),
    # A bias has all tokens choose the last expert, and the first sequence's also the first one.
    (BIASED | {"balance_counts": "raw"}, 1.2),
    (BIASED, (4 * (0.5 * 0.4 + 0.5 * 0.1) + 4 * (0.25 * 0.25 + 0.25 * 0.25 + 0.5 * 0.25)) / 2),
]


@pytest.mark.parametrize(("fields", "wanted"), BY_HAND, ids=[str(fields) for fields, _ in BY_HAND])
def test_numbers_by_hand(fields: dict[str, Any], wanted: float) -> None:
    common = {"kind": "moe", "n_experts": 4, "top_k": 2, "d_ff": 4, "balance_loss": 1.0}
    m: Any = submodule(make("ffn", common | fields, d_model=4, max_seq_len=8)).double()
    with torch.no_grad():
        m.router.weight.copy_(torch.eye(4))
        if fields.get("correction_bias"):
            m.correction_bias.copy_(torch.tensor([0.0, 0.0, -0.15, 1.0]))
    aux: dict[str, Tensor] = {}
    m(PROBABILITIES.log(), aux=collect(aux))
    assert router_loss(aux).item() == pytest.approx(wanted, abs=1e-14)


def moe_of(name: str, **changed: Any) -> tuple[Any, Any]:
    """The experts of a published model, narrower, and their config."""
    layers = [p for p in load(f"specs/{name}.yaml").main.parts if p.kind == "moe"]
    fields = {f: getattr(layers[0], f) for f in type(layers[0]).model_fields if f not in ("d_model", "d_ff_shared")}
    c: Any = make("ffn", fields | {"d_ff": 4} | changed, d_model=16, max_seq_len=8)
    torch.manual_seed(0)
    m: Any = submodule(c).double()
    nn.init.normal_(m.router.weight)
    if c.correction_bias:
        m.correction_bias.uniform_(-0.3, 0.3)
    return m, c


def of_the_paper(s: Tensor, c: Any) -> float:
    """alpha sum_i f_i P_i with f_i = N / (K T) sum_t 1(s_it among the K largest): V2 eq. 23 to 25, V3 eq. 17 to 20."""
    losses = []
    for rows in s:  # of each sequence
        f = torch.zeros(c.n_experts, dtype=torch.double)
        for row in rows:
            f[row.argsort(descending=True)[: c.top_k]] += c.n_experts / (c.top_k * len(rows))
        P = (rows / rows.sum(-1, keepdim=True)).mean(0)
        losses.append(float(f @ P))
    return c.balance_loss * sum(losses) / len(losses)


@pytest.mark.parametrize("name", ["deepseek_v2_lite", "deepseek_v3"])
@torch.no_grad()
def test_deepseeks_is_that_of_its_papers(name: str) -> None:
    m, c = moe_of(name)
    x = torch.randn(3, 9, 16, dtype=torch.double, generator=torch.Generator().manual_seed(1))
    logits = x @ m.router.weight.T
    scores = logits.softmax(-1) if name == "deepseek_v2_lite" else logits.sigmoid()
    aux: dict[str, Tensor] = {}
    m(x, aux=collect(aux))
    assert router_loss(aux).item() == pytest.approx(of_the_paper(scores, c), rel=1e-13)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", ["mixtral_8x7b", "qwen1_5_moe_a2_7b", "jamba_v0_1"])
def test_pooled_is_that_of_transformers(name: str, masked: bool) -> None:
    """Over three layers, whose losses one by one have another sum."""
    c = next(p for p in load(f"specs/{name}.yaml").main.parts if p.kind == "moe")
    fields = {f: getattr(c, f) for f in type(c).model_fields if f not in ("d_model", "d_ff_shared")} | {"d_ff": 4}
    document = {"d_model": 8, "vocab_size": 11, "max_seq_len": 16, "head": {"kind": "lm"}}
    block = {"mixer": {"kind": "attention", "n_heads": 2}, "ffn": fields}
    m: Any = eager(load({**document, "blocks": [{"repeat": 3, **block}]}).taking(*["mask"] * masked))
    torch.manual_seed(0)
    for p in m.parameters():
        nn.init.normal_(p, std=0.3)
    gates: list[Tensor] = []
    for layer in m.blocks:
        layer.ffn.router.register_forward_hook(lambda _, __, logits: gates.append(logits.flatten(0, 1)))
    x, mask = torch.randint(11, (2, 7)), torch.arange(7) < torch.tensor([[7], [4]])
    aux: dict[str, Tensor] = {}
    if masked:
        m(x, mask=mask, aux=aux)
        # The rows of a padded batch are moved to their end.
        mask = mask.flip(1)
    else:
        m(x, aux=aux)
    wanted = load_balancing_loss_func(tuple(gates), c.n_experts, c.top_k, mask if masked else None)  # type: ignore[attr-defined]
    torch.testing.assert_close(m.aux_loss(aux), c.balance_loss * wanted)  # type: ignore[attr-defined]
    summed = sum(load_balancing_loss_func((g,), c.n_experts, c.top_k) for g in gates)  # type: ignore[attr-defined]
    assert abs(summed - wanted) > 0.5 * wanted


def test_pooled_and_summed_routers_of_several_widths_stand_beside_one_another() -> None:
    moe = {"kind": "moe", "top_k": 2, "d_ff": 4, "balance_loss": 1.0, "z_loss": 0.5}
    kinds = {
        "a": moe | {"n_experts": 4, "balance_pooled": True},
        "b": moe | {"n_experts": 6, "balance_pooled": True},
        "c": moe | {"n_experts": 4},
    }
    define = {name: {"mixer": {"kind": "attention", "n_heads": 2}, "ffn": ffn} for name, ffn in kinds.items()}
    sizes = {"d_model": 8, "vocab_size": 11, "max_seq_len": 16, "head": {"kind": "lm"}}
    spec = load({**sizes, "define": define, "blocks": "a b c a c"})
    m, plain = (built(spec, standalone).double() for standalone in (False, True))
    plain.load_state_dict(m.state_dict())
    tokens = torch.randint(11, (2, 7))
    aux: dict[str, Tensor] = {}
    m(tokens, aux=aux)
    f, w = (
        [aux[f"blocks.{i}.ffn.{'balance' if i in (2, 4) else 'pooled'}_{what}"] for i in range(5)]
        for what in ("fraction", "weight")
    )
    pooled = ((f[0] + f[3]) / 2 * (w[0] + w[3]) / 2).sum() + (f[1] * w[1]).sum()
    z = sum(aux[f"blocks.{i}.ffn.z_loss"] for i in range(5))
    wanted = pooled + (f[2] * w[2]).sum() + (f[4] * w[4]).sum() + z
    torch.testing.assert_close(m.aux_loss(aux), wanted)
    nested: dict[str, Any] = {}
    plain(tokens, aux=nested)
    torch.testing.assert_close(plain.aux_loss(nested), wanted)


def built(spec: Any, standalone: bool) -> Any:
    """The model of a generated file."""
    namespace: dict[str, Any] = {}
    exec(archspec.generate(spec, standalone=standalone), namespace)
    return namespace["Model"]()
