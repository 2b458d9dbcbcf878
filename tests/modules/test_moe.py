"""Mixture of experts against the blocks of transformers with the same weights, naive loops and its own promises."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import DeepseekV2Config, DeepseekV3Config, MixtralConfig, Qwen2MoeConfig, SwitchTransformersConfig
from transformers.models.deepseek_v2.modeling_deepseek_v2 import DeepseekV2Moe
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3MoE
from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock, load_balancing_loss_func
from transformers.models.qwen2_moe.modeling_qwen2_moe import Qwen2MoeSparseMoeBlock
from transformers.models.switch_transformers.modeling_switch_transformers import (
    SwitchTransformersSparseMLP,
    router_z_loss_func,
)

from archspec.errors import SpecError
from archspec.kernels.collect import collect
from archspec.kernels.moe.balance import router_loss
from archspec.language.resolve import make
from archspec.layers.ops import Run
from archspec.layers.registry import find
from archspec.modules import submodule

EXAMPLES = find("ffn", "moe").examples
BASE = {"n_experts": 4, "top_k": 2, "d_ff": 8}


def config(**fields: Any) -> Any:
    return make("ffn", {"kind": "moe", **fields}, d_model=16, max_seq_len=32)


def module(**fields: Any) -> Any:
    torch.manual_seed(0)
    m = submodule(config(**fields)).double()
    for name, buffer in m.named_buffers():
        if name == "correction_bias":
            buffer.uniform_(-0.1, 0.1)
    return m


def tokens(T: int = 7, B: int = 3) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(B, T, 16, dtype=torch.double)


def randomise(hf: nn.Module) -> Any:
    torch.manual_seed(2)
    for p in hf.parameters():
        nn.init.normal_(p, std=0.3)
    return hf.float().eval()


@torch.no_grad()
def take(m: Any, hf: Any) -> Any:
    """Our float32 block with the routed (and shared) weights of a block of transformers."""
    m.router.weight.copy_(hf.gate.weight)
    gate, up = hf.experts.gate_up_proj.chunk(2, dim=1)
    for name, weight in (("gate_proj", gate), ("up_proj", up), ("down_proj", hf.experts.down_proj)):
        m.experts[name].copy_(weight)
    shared = getattr(hf, "shared_experts", getattr(hf, "shared_expert", None))
    if shared is not None:
        for name in ("gate_proj", "up_proj", "down_proj"):
            getattr(m, f"shared_{name}").weight.copy_(getattr(shared, name).weight)
    return m.float().eval()


def same(m: Any, hf: Any) -> None:
    """Equal outputs and equal gradients of the input."""
    ours, theirs = (tokens().float().requires_grad_() for _ in range(2))
    y, z = m(ours), hf(theirs)
    torch.testing.assert_close(y, z, rtol=1e-5, atol=2e-6)
    g = torch.randn_like(y)
    torch.testing.assert_close(
        *(torch.autograd.grad(o, i, g)[0] for o, i in ((y, ours), (z, theirs))), rtol=1e-5, atol=5e-6
    )


@pytest.mark.parametrize("fields", [{"renormalise": True}, {"order": "top_k_then_score"}], ids=["renormalised", "late"])
def test_is_mixtrals(fields: dict[str, Any]) -> None:
    hf = randomise(
        MixtralSparseMoeBlock(
            MixtralConfig(hidden_size=16, intermediate_size=8, num_local_experts=4, num_experts_per_tok=2)
        )
    )
    same(take(module(**BASE, **fields), hf), hf)


@pytest.mark.parametrize("renormalise", [True, False])
def test_is_qwen2s(renormalise: bool) -> None:
    hf_config = Qwen2MoeConfig(
        hidden_size=16,
        moe_intermediate_size=8,
        shared_expert_intermediate_size=12,
        num_experts=4,
        num_experts_per_tok=2,
        norm_topk_prob=renormalise,
    )
    hf = randomise(Qwen2MoeSparseMoeBlock(hf_config))
    m = take(module(**BASE, renormalise=renormalise, n_shared=1, d_ff_shared=12, shared_gate=True), hf)
    m.shared_gate.load_state_dict(hf.shared_expert_gate.state_dict())
    same(m, hf)


@pytest.mark.parametrize("limited", [True, False])
def test_is_deepseek_v2s(limited: bool) -> None:
    hf_config = DeepseekV2Config(
        hidden_size=16,
        num_attention_heads=2,
        moe_intermediate_size=8,
        n_routed_experts=8,
        num_experts_per_tok=3,
        n_shared_experts=2,
        topk_method="group_limited_greedy" if limited else "greedy",
        n_group=4,
        topk_group=2,
        routed_scaling_factor=16.0,
    )
    hf = randomise(DeepseekV2Moe(hf_config))
    groups = {"n_groups": 4, "top_k_groups": 2, "group_score": "max"} if limited else {}
    same(take(module(n_experts=8, top_k=3, d_ff=8, n_shared=2, routed_scale=16.0, **groups), hf), hf)


@pytest.mark.parametrize("renormalise", [True, False])
def test_is_deepseek_v3s(renormalise: bool) -> None:
    hf_config = DeepseekV3Config(
        hidden_size=16,
        moe_intermediate_size=8,
        n_routed_experts=8,
        num_experts_per_tok=3,
        n_shared_experts=1,
        n_group=4,
        topk_group=2,
        norm_topk_prob=renormalise,
        routed_scaling_factor=2.5,
    )
    hf = randomise(DeepseekV3MoE(hf_config))
    hf.gate.e_score_correction_bias.uniform_(-0.2, 0.2)
    fields = EXAMPLES[5] | {"renormalise": renormalise}
    m = take(module(**fields), hf)
    m.correction_bias.copy_(hf.gate.e_score_correction_bias)
    same(m, hf)


@pytest.mark.parametrize("capacity", [None, 1, 2])
def test_is_switchs(capacity: int | None) -> None:
    hf_config = SwitchTransformersConfig(
        d_model=16, d_ff=8, num_experts=4, expert_capacity=capacity or 64, router_bias=True, dropout_rate=0.0
    )
    hf = randomise(SwitchTransformersSparseMLP(hf_config))
    fields = {"n_experts": 4, "top_k": 1, "d_ff": 8, "gated": False, "activation": "relu", "router_bias": True}
    m = module(**fields, eval_capacity=capacity, capacity_factor=capacity and capacity * 4 / 7)
    with torch.no_grad():
        m.router.load_state_dict(hf.router.classifier.state_dict())
        for i in range(4):
            m.experts["up_proj"][i].copy_(hf.experts[f"expert_{i}"].wi.weight)
            m.experts["down_proj"][i].copy_(hf.experts[f"expert_{i}"].wo.weight)
    m.float()
    same(m.eval(), hf)
    same(m.train(), hf)


def test_balance_loss_is_mixtrals_and_z_loss_is_switchs() -> None:
    m = module(**BASE, renormalise=True, balance_loss=0.01, z_loss=0.001)
    loss = router_loss(collected(m, tokens()))
    logits = m.router(tokens())
    balance = load_balancing_loss_func((logits.flatten(0, 1),), 4, 2)
    torch.testing.assert_close(loss, 0.01 * balance.double() + 0.001 * router_z_loss_func(logits).double())
    loss.backward()
    assert m.router.weight.grad.abs().sum() > 0


def collected(m: Any, x: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
    """What a layer by itself collects."""
    aux: dict[str, Tensor] = {}
    m(x, aux=collect(aux)) if mask is None else m(x, mask=mask, aux=collect(aux))
    return aux


def naive(m: Any, x: Tensor) -> Tensor:
    """Token by token, from the equation: softmax scores and gated SiLU experts, without renormalising."""
    y = torch.zeros_like(x)
    for b in range(x.shape[0]):
        for t in range(x.shape[1]):
            p = (m.router.weight @ x[b, t]).softmax(0)
            for i in p.argsort(descending=True)[: m.c.top_k]:
                h = F.silu(m.experts["gate_proj"][i] @ x[b, t]) * (m.experts["up_proj"][i] @ x[b, t])
                y[b, t] += p[i] * (m.experts["down_proj"][i] @ h)
    return y


def test_is_its_equation_in_float64() -> None:
    m, x = module(**BASE), tokens()
    torch.testing.assert_close(m(x), naive(m, x), rtol=0, atol=1e-14)


def test_every_parameter_gets_the_gradient_of_finite_differences() -> None:
    m, x = module(**EXAMPLES[5]).eval(), tokens(3, 1)
    names, values = zip(*m.named_parameters(), strict=True)

    def f(*values: Tensor) -> Tensor:
        return torch.func.functional_call(m, dict(zip(names, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(f, tuple(v.detach().requires_grad_() for v in values), fast_mode=True)


def test_expert_choice_takes_the_tokens_that_score_highest() -> None:
    m, x = module(**BASE, assignment="expert", routed_scale=2.0), tokens(6, 2)
    probs = m.router(x).softmax(-1)
    expected = torch.zeros_like(x)
    for b in range(2):
        for i in range(4):
            for t in probs[b, :, i].argsort(descending=True)[:3]:  # top_k * T / n_experts = 2 * 6 / 4
                h = F.silu(m.experts["gate_proj"][i] @ x[b, t]) * (m.experts["up_proj"][i] @ x[b, t])
                expected[b, t] += 2.0 * probs[b, t, i] * (m.experts["down_proj"][i] @ h)
    torch.testing.assert_close(m(x), expected)
    assert not m.c.causal
    assert config(**BASE).causal


def test_temperature_divides_the_logits() -> None:
    x = tokens()
    m, plain = module(**BASE, temperature=4.0), module(**BASE)
    with torch.no_grad():
        plain.router.weight /= 4.0
    torch.testing.assert_close(m(x), plain(x))


def test_jitter_changes_the_choice_in_training_only() -> None:
    m, x = module(**BASE, jitter=0.5), tokens(64)
    plain = module(**BASE)
    torch.testing.assert_close(m.eval()(x), plain(x), rtol=0, atol=0)
    assert not torch.equal(m.train()(x), plain(x))


def test_expert_dropout_keeps_the_mean() -> None:
    m, x = module(**BASE, expert_dropout=0.5), tokens(1, 1)
    many = m.train()(x.expand(20000, 1, 16)).mean(0)
    torch.testing.assert_close(many, m.eval()(x)[0], rtol=0.1, atol=0.01)


def test_capacity_drops_later_tokens_and_keeps_causality() -> None:
    m = module(**BASE, capacity_factor=0.5, eval_capacity=2)
    x = tokens(9, 2)
    other = x.clone()
    other[:, 5:] = torch.randn(2, 4, 16, dtype=torch.double)
    for _ in (m.train(), m.eval()):
        torch.testing.assert_close(m(x)[:, :5], m(other)[:, :5], rtol=0, atol=1e-15)
        assert ((m(x) - module(**BASE)(x)).abs().amax(-1) > 1e-6).any()
    one = tokens(1, 1).expand(1, 9, 16)  # all nine want the same experts; ceil(0.5 * 2 * 9 / 4) = 3, and 2, find room
    assert (m.train()(one)[0].abs().sum(-1) > 0).tolist() == [True] * 3 + [False] * 6
    assert (m.eval()(one)[0].abs().sum(-1) > 0).tolist() == [True] * 2 + [False] * 7


@pytest.mark.parametrize("pieces", [(1,) * 9, (4, 5), (1, 7, 1)])
def test_capacity_counts_across_calls(pieces: tuple[int, ...]) -> None:
    m, x = module(**BASE, eval_capacity=2).eval(), tokens(9, 2)
    state: dict[str, Any] = {}
    parts = torch.cat([m(piece, state=state) for piece in x.split(pieces, dim=1)], dim=1)
    torch.testing.assert_close(parts, m(x), rtol=0, atol=1e-14)
    torch.testing.assert_close(m(x, state={}), m(x), rtol=0, atol=0)


def test_correction_bias_moves_against_the_load_and_only_the_choice() -> None:
    m, x = module(**BASE, score="sigmoid", correction_bias=True, bias_update_rate=0.25), tokens(64)
    m.correction_bias.copy_(torch.tensor([100.0, 0.0, 0.0, -100.0]))
    load, before = collected(m, x)["load"], m.correction_bias.clone()
    assert load.tolist()[0] == 3 * 64
    assert load.tolist()[3] == 0
    assert load.sum() == 2 * 3 * 64
    m.update_bias(load)
    torch.testing.assert_close(m.correction_bias - before, 0.25 * torch.sign(2 * 3 * 64 / 4 - load))
    m.correction_bias.fill_(3.0)  # the same for all: nothing changes
    torch.testing.assert_close(m.eval()(x), module(**BASE, score="sigmoid")(x), rtol=0, atol=0)
    assert set(m.state_dict()) == {*dict(m.named_parameters()), "correction_bias"}


def test_updates_even_out_the_load() -> None:
    m, x = module(**BASE, score="sigmoid", correction_bias=True, bias_update_rate=0.01), 1 + tokens(64, 4)

    def load() -> Tensor:
        return collected(m, x)["load"]

    m.correction_bias.zero_()
    before = load().double().std()
    for _ in range(100):
        m.update_bias(load())
    assert load().double().std() < 0.3 * before


@pytest.mark.parametrize("fields", EXAMPLES, ids=range(len(EXAMPLES)))
def test_ops_are_the_module(fields: dict[str, Any]) -> None:
    c = config(**fields)
    with torch.device("meta"):
        m = submodule(c).eval()
    params = [p for op in c.ops() for p in op.params]
    assert [(p.name, p.shape) for p in params if not p.buffer] == [(n, tuple(p.shape)) for n, p in m.named_parameters()]
    assert {p.name for p in params} == set(m.state_dict())
    assert c.ops()[-1].shape == ("B", "T", 16)
    names = ["x"]
    for op in c.ops():
        assert set(op.inputs) <= set(names)
        names.append(op.name)
    with FlopCounterMode(display=False) as counter:
        m(torch.empty(2, 8, 16, device="meta"))
    assert counter.get_total_flops() == sum(op.flops(Run(B=2, T=8, S=8)) for op in c.ops())


@pytest.mark.parametrize("fields", EXAMPLES, ids=range(len(EXAMPLES)))
def test_compiles(fields: dict[str, Any]) -> None:
    m, x = module(**fields).eval(), tokens()
    torch.compiler.reset()
    compiled = torch.compile(m, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), m(x))
    if not (m.c.jitter or m.c.expert_dropout):
        torch.testing.assert_close(compiled.train()(x), m.train()(x))


def test_experts_start_as_linears_do() -> None:
    m = submodule(config(**EXAMPLES[1] | {"d_ff": 64}))
    assert m.experts["up_proj"].abs().max() <= 1 / 4
    assert m.experts["down_proj"].abs().max() <= 1 / 8
    assert m.experts["down_proj"].std().item() == pytest.approx(1 / 8 / 3**0.5, rel=0.05)
    assert m.experts["up_bias"].abs().max() == 0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"top_k": 5}, "top_k = 5 must be at most n_experts = 4"),
        ({"n_experts": 1, "top_k": 1}, "leaves nothing to choose"),
        ({"n_groups": 3, "top_k_groups": 1, "group_score": "max"}, "must be a multiple of n_groups = 3"),
        ({"n_groups": 2, "group_score": "max"}, "n_groups = 2 needs top_k_groups"),
        ({"n_groups": 2, "top_k_groups": 1}, "n_groups = 2 needs group_score"),
        ({"n_groups": 2, "top_k_groups": 3, "group_score": "max"}, "must be at most n_groups = 2"),
        ({"n_groups": 4, "top_k_groups": 1, "group_score": "max"}, "must be at most 1"),
        ({"n_groups": 4, "top_k_groups": 2, "group_score": "top2_sum"}, "at least two experts"),
        ({"top_k_groups": 1}, "top_k_groups has no effect when n_groups is none"),
        ({"assignment": "expert", "renormalise": True}, "renormalise has no effect when assignment is expert"),
        ({"assignment": "expert", "correction_bias": True}, "correction_bias has no effect"),
        ({"assignment": "expert", "capacity_factor": 1.0}, "capacity_factor has no effect"),
        ({"assignment": "expert", "balance_loss": 0.1}, "balance_loss has no effect"),
        ({"bias": True}, "bias has no effect when gated is"),
        ({"bias_update_rate": 0.1}, "bias_update_rate has no effect"),
        ({"gated": False, "activation": "identity"}, "makes plain experts linear"),
        ({"d_ff_shared": 8}, "d_ff_shared has no effect"),
        ({"n_shared": 1, "d_ff_shared": 0}, "d_ff_shared = 0 leaves no shared expert"),
        ({"shared_gate": True}, "shared_gate has no effect"),
    ],
)
def test_refuses(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        config(**BASE | fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"top_k": 1, "renormalise": True}, "renormalise makes the weight of the only chosen expert 1, so the router"),
        ({"top_k": 1, "order": "top_k_then_score"}, "order = 'top_k_then_score' makes the weight of the only chosen"),
        ({"score": "sigmoid", "order": "top_k_then_score"}, "same in either order"),
        ({"top_k": 4, "correction_bias": True}, "correction_bias has no effect when top_k = n_experts = 4"),
        ({"top_k": 4, "balance_loss": 0.01}, "balance_loss has no effect when top_k = n_experts = 4"),
        ({"top_k": 4, "renormalise": True}, "renormalise has no effect when top_k = n_experts = 4"),
        ({"top_k": 4, "assignment": "expert"}, "assignment has no effect when top_k = n_experts = 4"),
        ({"capacity_factor": 2.0}, "capacity_factor = 2 drops nothing"),
        ({"eval_capacity": 8}, "eval_capacity = 8 drops nothing in texts of up to max_seq_len = 8 tokens"),
        ({"n_groups": 1}, "n_groups = 1 has no effect"),
        ({"top_k": 1, "balance_loss": 0.1, "balance_counts": "first"}, "counts all choices when top_k = 1"),
        ({"top_k": 1, "balance_loss": 0.1, "balance_sum": "one"}, "balance_sum has no effect when top_k = 1"),
        ({"balance_loss": 0.1, "balance_counts": "first", "balance_sum": "one"}, "balance_counts is 'first'"),
        ({"balance_loss": 0.1, "balance_counts": "raw"}, "counts the choices themselves without groups"),
        ({"assignment": "expert", "score": "sigmoid", "choice_by": "logit"}, "the same as by the sigmoid"),
        ({"n_groups": 1, "top_k_groups": 1, "group_score": "max"}, "n_groups = 1 has no effect"),
        ({"n_groups": 2, "top_k_groups": 2, "group_score": "max"}, "a token may use every group (top_k_groups = 2)"),
        ({"n_experts": 8, "n_groups": 4, "top_k_groups": 2, "group_score": "max"}, "n_groups has no effect"),
    ],
)
def test_doubts(fields: dict[str, Any], message: str) -> None:
    """What equals off, or chooses nothing at these numbers, is accepted with a warning; and it runs."""
    c = config(**BASE | fields)
    (told,) = c.doubts(8)
    assert message in told
    m = submodule(c).train()
    m(torch.randn(2, 5, 16)).sum().backward()


@pytest.mark.parametrize("fields", [{"top_k": 4, "score": "sigmoid", "renormalise": True}, {"eval_capacity": 7}])
def test_no_doubts_about_what_acts(fields: dict[str, Any]) -> None:
    assert not [*config(**BASE | fields).doubts(8)]
