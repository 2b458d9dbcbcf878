import pytest
import torch
import torch.nn.functional as F
from kernel_checks import assert_close, check, compiles, normal
from torch.utils.flop_counter import FlopCounterMode

from archspec.kernels import moe

N, E, K, D, FF = 37, 8, 2, 6, 5


def sorted_by_expert(weights, experts):
    order = experts.argsort(-1)
    return weights.gather(-1, order), experts.gather(-1, order)


def gated_inputs():
    return [normal(N, D), torch.rand(N, K, dtype=torch.float64), normal(E, FF, D), normal(E, FF, D), normal(E, D, FF)]


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("case", ["random", "one_expert", "dropped"])
def test_experts_gated(case, dense, monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: dense)
    experts = torch.rand(N, E).argsort(-1)[:, :K]
    experts = torch.full_like(experts, 3) if case == "one_expert" else experts
    experts[::3] = -1 if case == "dropped" else experts[::3]

    def fast(x, weights, w_gate, w_up, w_down):
        return moe.experts_gated(x, weights, experts, w_gate, w_up, w_down, F.silu)

    def naive(x, weights, w_gate, w_up, w_down):
        def expert(e, rows):
            return (F.silu(rows @ w_gate[e].T) * (rows @ w_up[e].T)) @ w_down[e].T

        return moe.reference(x, weights, experts, expert)

    check(fast, naive, gated_inputs())


@pytest.mark.parametrize("biases", [False, True])
def test_experts_plain(biases):
    experts = torch.rand(N, E).argsort(-1)[:, :K]
    inputs = [normal(N, D), torch.rand(N, K, dtype=torch.float64), normal(E, FF, D), normal(E, D, FF)]
    inputs += [normal(E, FF), normal(E, D)] if biases else [None, None]

    def fast(x, weights, w_up, w_down, b_up, b_down):
        return moe.experts_plain(x, weights, experts, w_up, w_down, F.relu, b_up, b_down)

    def naive(x, weights, w_up, w_down, b_up, b_down):
        def expert(e, rows):
            hidden = F.relu(F.linear(rows, w_up[e], None if b_up is None else b_up[e]))
            return F.linear(hidden, w_down[e], None if b_down is None else b_down[e])

        return moe.reference(x, weights, experts, expert)

    check(fast, naive, inputs)


def test_only_chosen_experts_are_computed():
    x, weights, w_gate, w_up, w_down = (t.float() for t in gated_inputs())
    experts = torch.rand(N, E).argsort(-1)[:, :K]
    counted = []
    for device in ("cpu", "meta"):
        arguments = (t.to(device) for t in (x, weights, experts, w_gate, w_up, w_down))
        with FlopCounterMode(display=False) as counter:
            moe.experts_gated(*arguments, F.silu)
        counted.append(counter.get_total_flops())
    assert counted[0] == counted[1]
    assert counted[0] == 2 * N * K * 3 * D * FF


def test_expert_weights_of_unused_experts_have_zero_gradients():
    x, weights, w_gate, w_up, w_down = gated_inputs()
    w_up.requires_grad_()
    moe.experts_gated(x, weights, torch.zeros(N, K, dtype=torch.long), w_gate, w_up, w_down, F.silu).sum().backward()
    assert w_up.grad[0].abs().min() > 0
    assert w_up.grad[1:].abs().max() == 0


def routers():
    mixtral = pytest.importorskip("transformers.models.mixtral.modeling_mixtral")
    qwen2 = pytest.importorskip("transformers.models.qwen2_moe.modeling_qwen2_moe")
    v2 = pytest.importorskip("transformers.models.deepseek_v2.modeling_deepseek_v2")
    v3 = pytest.importorskip("transformers.models.deepseek_v3.modeling_deepseek_v3")
    gpt_oss = pytest.importorskip("transformers.models.gpt_oss.modeling_gpt_oss")
    from transformers import DeepseekV2Config, DeepseekV3Config, GptOssConfig, MixtralConfig, Qwen2MoeConfig

    sizes = {"hidden_size": D, "num_experts_per_tok": K}
    groups = {"n_group": 4, "topk_group": 2, "routed_scaling_factor": 2.5}
    yield mixtral.MixtralTopKRouter(MixtralConfig(num_local_experts=E, **sizes)), {}
    for renormalise in (True, False):
        config = Qwen2MoeConfig(num_experts=E, norm_topk_prob=renormalise, **sizes)
        yield qwen2.Qwen2MoeTopKRouter(config), {"renormalise": renormalise}
    yield (
        gpt_oss.GptOssTopKRouter(GptOssConfig(num_local_experts=E, **sizes)),
        {
            "order": "top_k_then_score",
            "renormalise": False,
        },
    )
    config = DeepseekV2Config(
        n_routed_experts=E, num_attention_heads=2, topk_method="group_limited_greedy", **groups, **sizes
    )
    limited = {"n_groups": 4, "top_k_groups": 2, "scale": 2.5}
    yield v2.DeepseekV2TopkRouter(config), {"renormalise": False, **limited}
    for renormalise in (True, False):
        config = DeepseekV3Config(
            n_routed_experts=E, num_attention_heads=2, norm_topk_prob=renormalise, **groups, **sizes
        )
        options = {"score": "sigmoid", "group_score": "top2_sum", "renormalise": renormalise, **limited}
        yield v3.DeepseekV3TopkRouter(config), options


def test_routing_is_that_of_transformers():
    for router, options in routers():
        torch.nn.init.normal_(router.weight)
        bias = getattr(router, "e_score_correction_bias", None)
        if bias is not None:
            torch.nn.init.normal_(bias)
        x = torch.randn(50, D)
        logits, wanted_weights, wanted_experts = router(x)
        weights, experts = moe.top_k_routing(logits, K, bias=bias, **options)
        weights, experts = sorted_by_expert(weights, experts)
        wanted_weights, wanted_experts = sorted_by_expert(wanted_weights, wanted_experts)
        assert torch.equal(experts, wanted_experts), type(router).__name__
        assert_close(type(router).__name__, weights, wanted_weights, 1e-6)


def test_a_selection_bias_has_no_gradient_and_routing_weights_have_one():
    logits, bias = normal(N, E).requires_grad_(), normal(E).requires_grad_()
    weights, _ = moe.top_k_routing(logits, K, score="sigmoid", bias=bias)
    (weights * normal(N, K)).sum().backward()
    assert bias.grad is None
    assert logits.grad.abs().sum() > 0


def test_capacity_serves_first_choices_in_order_of_position():
    experts = torch.tensor([[0, 1], [0, 2], [0, 0], [1, 0], [-1, 1]])
    kept = moe.capacity_mask(experts, 3, 2)
    assert kept.tolist() == [[True, True], [True, True], [False, False], [True, False], [False, False]]
    first = moe.capacity_mask(experts[:, :1], 3, 1, priority=torch.tensor([0.0, 1.0, 2.0, 0.0, 9.0]))
    assert first.flatten().tolist() == [False, False, True, True, False]


@pytest.mark.parametrize("capacity", [1, 4, 100])
def test_capacity_against_a_loop(capacity):
    experts, priority = torch.randint(-1, E, (N, K)), torch.rand(N)
    kept = moe.capacity_mask(experts, E, capacity, priority)
    room = [capacity] * E
    for j in range(K):
        for t in priority.argsort(descending=True).tolist():
            e = int(experts[t, j])
            assert bool(kept[t, j]) == (e >= 0 and room[e] > 0)
            room[e] -= e >= 0


def test_expert_choice_fills_every_expert():
    logits = normal(N, E)
    weights, experts = moe.expert_choice(logits, 5)
    for e in range(E):
        taken = (experts[:, e] == e).nonzero().flatten()
        assert torch.equal(taken, logits.softmax(-1)[:, e].topk(5).indices.sort().values)
    assert torch.equal(weights, logits.softmax(-1) * (experts >= 0))


def test_load_balancing_loss_is_that_of_transformers():
    mixtral = pytest.importorskip("transformers.models.mixtral.modeling_mixtral")
    logits = torch.randn(N, E)
    for k in (1, 2):
        wanted = mixtral.load_balancing_loss_func((logits,), E, k)
        _, experts = moe.top_k_routing(logits, k)
        assert_close("loss", moe.load_balancing_loss(logits.softmax(-1), experts, E), wanted, 1e-6)
    uniform = torch.full((E, E), 1 / E)
    assert moe.load_balancing_loss(uniform, torch.arange(E).unsqueeze(1), E).item() == pytest.approx(1.0)


def test_router_z_loss():
    logits = normal(N, E)
    assert_close("loss", moe.router_z_loss(logits), logits.exp().sum(-1).log().pow(2).mean())


def test_compile():
    x, _, w_gate, w_up, w_down = (t.float() for t in gated_inputs())

    def f(x, router, w_gate, w_up, w_down):
        logits = x @ router
        weights, experts = moe.top_k_routing(logits, K, n_groups=4, top_k_groups=2)
        weights = weights * moe.capacity_mask(experts, E, 12)
        y = moe.experts_gated(x, weights, experts, w_gate, w_up, w_down, F.silu)
        return y + moe.load_balancing_loss(logits.softmax(-1), experts, E) + moe.router_z_loss(logits)

    compiles(f, x, torch.randn(D, E), w_gate, w_up, w_down)
