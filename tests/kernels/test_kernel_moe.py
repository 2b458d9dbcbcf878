"""Routing, capacity and losses of a mixture of experts, against transformers and against loops."""

import pytest
import torch
import torch.nn.functional as F
from kernel_checks import assert_close, compiles, normal

from archspec.kernels.moe import balance
from archspec.kernels.moe import experts as expert_kernels
from archspec.kernels.moe import router as moe

N, E, K, D, FF = 37, 8, 2, 6, 5


def sorted_by_expert(weights, experts):
    order = experts.argsort(-1)
    return weights.gather(-1, order), experts.gather(-1, order)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("options", [{}, {"sigmoid": True}, {"renormalise": False, "scale": 2.5}], ids=str)
def test_routing_is_its_equation(options, dtype):
    logits, bias = normal(N, E).to(dtype), normal(E)
    given = {"score": "sigmoid" if options.get("sigmoid") else "softmax"}
    given |= {name: value for name, value in options.items() if name != "sigmoid"}
    weights, experts = moe.top_k_routing(logits, K, bias=bias, **given)
    wanted_weights, wanted_experts = moe.reference_routing(logits, K, bias=bias, **options)
    assert torch.equal(experts, wanted_experts)
    assert weights.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert_close("weights", weights, wanted_weights, 1e-14 if dtype == torch.float64 else 1e-6)


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


def test_places_go_in_order_of_position():
    experts = torch.tensor([[[0, 1], [0, 2], [2, 0], [1, 0], [-1, 1]]])
    kept = moe.admitted(experts, 3, 2)
    assert kept.tolist() == [[[0, 1], [0, 2], [2, -1], [1, -1], [-1, -1]]]
    first = moe.admitted(torch.tensor([[[1, 0], [0, 1]]]), 2, 1, first_choices=True)
    assert first.tolist() == [[[1, -1], [0, -1]]]
    wanted = moe.admitted(torch.tensor([[[0], [0], [0], [1], [-1]]]), 3, 1, priority=torch.tensor([[0, 1.0, 2, 0, 9]]))
    assert wanted.flatten().tolist() == [-1, -1, 0, 1, -1]


@pytest.mark.parametrize("capacity", [1, 4, 100])
@pytest.mark.parametrize("priority", [False, True])
@pytest.mark.parametrize("first_choices", [False, True])
def test_capacity_against_a_loop(capacity, priority, first_choices):
    experts, rank = torch.randint(-1, E, (3, N, K)), torch.rand(3, N)
    kept = moe.admitted(experts, E, capacity, priority=rank if priority else None, first_choices=first_choices)
    for b in range(3):
        line = rank[b].argsort(descending=True).tolist() if priority else range(N)
        turns = [(t, j) for j in range(K) for t in line] if first_choices else [(t, j) for t in line for j in range(K)]
        room = [capacity] * E
        for t, j in turns:
            e = int(experts[b, t, j])
            assert int(kept[b, t, j]) == (e if e >= 0 and room[e] > 0 else -1)
            room[e] -= e >= 0


@pytest.mark.parametrize("cuts", [(1,) * 9, (4, 5), (1, 7, 1)])
def test_capacity_counts_the_tokens_of_earlier_calls(cuts):
    experts, state = torch.randint(-1, 4, (2, 9, K)), {}
    parts = [moe.admitted(piece, 4, 3, state) for piece in experts.split(cuts, dim=1)]
    assert torch.equal(torch.cat(parts, 1), moe.admitted(experts, 4, 3))
    assert state["asked"].tolist() == [[[int((rows == e).sum()) for e in range(4)]] for rows in experts]


def test_expert_choice_fills_every_expert():
    scores = normal(2, N, E).softmax(-1)
    weights, experts, tokens = moe.tokens_by_expert(scores, 5)
    for b in range(2):
        for e in range(E):
            here = (experts.flatten() == e) & (tokens // N == b)
            best = scores[b, :, e].topk(5)
            assert (tokens[here] - b * N).tolist() == best.indices.tolist()
            assert weights.flatten()[here].tolist() == best.values.tolist()


def test_places_round_up_but_not_for_rounding_errors():
    assert [moe.places(x) for x in (0.2, 1.0, 1.2, 3 * (1 / 3) + 1e-12)] == [1, 1, 2, 1]


def test_load_balancing_loss_is_that_of_transformers():
    mixtral = pytest.importorskip("transformers.models.mixtral.modeling_mixtral")
    logits = torch.randn(N, E)
    mask = torch.arange(N).unsqueeze(0) % 3 > 0
    for k, given in ((1, None), (2, None), (2, mask)):
        wanted = mixtral.load_balancing_loss_func((logits,), E, k, given)
        _, experts = moe.top_k_routing(logits.unsqueeze(0), k)
        experts = experts if given is None else experts.masked_fill(~given.unsqueeze(-1), -1)
        assert_close("loss", balance_loss(logits.softmax(-1).unsqueeze(0), experts, given), wanted, 1e-6)
    uniform = torch.full((1, E, E), 1 / E)
    assert balance_loss(uniform, torch.arange(E).view(1, -1, 1)).item() == pytest.approx(1.0)


def balance_loss(probs, experts, mask=None, **parts):
    fraction, probability = balance.balance_terms(probs, experts, mask, **parts)
    return probs.shape[-1] * (fraction * probability).sum(-1).mean()


@pytest.mark.parametrize("per_sequence", [False, True])
@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_balance_terms_against_loops(per_sequence, share, masked):
    probs, experts = torch.rand(3, N, E).double(), torch.rand(3, N, E).argsort(-1)[..., :K]
    mask = torch.rand(3, N) > 0.4 if masked else None
    real = torch.ones(3, N, dtype=torch.bool) if mask is None else mask
    experts = experts.masked_fill(~real.unsqueeze(-1), -1)
    found = balance.balance_terms(probs, experts, mask, per_sequence=per_sequence, share=share)
    parts = [[b] for b in range(3)] if per_sequence else [range(3)]
    for i, rows in enumerate(parts):
        places = [(b, t) for b in rows for t in range(N) if real[b, t]]
        for e in range(E):
            chosen = sum((experts[b, t] == e).sum().item() for b, t in places)
            mean = sum(probs[b, t, e] for b, t in places) / len(places)
            at = (i, e) if per_sequence else (e,)
            assert found[0][at].item() == pytest.approx(chosen / len(places) / (K if share else 1), abs=1e-14)
            assert found[1][at].item() == pytest.approx(mean.item(), abs=1e-14)


def test_nothing_but_padding_has_no_loss():
    nobody, mask = torch.full((2, 5, K), -1), torch.zeros(2, 5, dtype=torch.bool)
    for per_sequence in (False, True):
        assert balance_loss(torch.rand(2, 5, E), nobody, mask, per_sequence=per_sequence) == 0
    assert balance.router_z_loss(torch.rand(2, 5, E), mask) == 0


def test_router_z_loss():
    logits, mask = normal(N, E), torch.arange(N) < 5
    assert_close("loss", balance.router_z_loss(logits), logits.exp().sum(-1).log().pow(2).mean())
    assert_close("loss", balance.router_z_loss(logits, mask), logits[:5].exp().sum(-1).log().pow(2).mean())


def test_logits_are_not_rounded():
    x, weight = torch.tensor([[1.0, 1 / 512]]).bfloat16(), torch.tensor([[1.0, 0.0], [1.0, 1.0]]).bfloat16()
    assert F.linear(x, weight).tolist() == [[1.0, 1.0]]
    for logits in (moe.router_logits(x, weight), moe.router_logits(x.float(), weight.float())):
        assert logits.tolist() == [[1.0, 1 + 1 / 512]]
    with torch.autocast("cpu", torch.bfloat16):
        assert moe.router_logits(x.float(), weight, torch.tensor([0.0, -1.0])).tolist() == [[1.0, 1 / 512]]
    assert moe.router_logits(x.double(), weight).dtype == torch.float64


def test_a_shorter_sequence_has_fewer_places():
    mask = torch.arange(10) >= torch.tensor([[0], [4], [9], [10]])
    taken = moe.places_by_length(mask, 0.5)
    assert taken.flatten().tolist() == [5, 3, 1, 0]
    scores = normal(4, 10, E).sigmoid()
    weights, experts, tokens = moe.tokens_by_expert(scores, 5, by=-scores, mask=mask, taken=taken)
    for b, n in enumerate(taken.flatten().tolist()):
        for e in range(E):
            here = (experts.flatten() == e) & (tokens // 10 == b)
            best = scores[b, mask[b], e].topk(n, largest=False)
            assert sorted((tokens[here] % 10 - (~mask[b]).sum()).tolist()) == sorted(best.indices.tolist())
            assert sorted(weights.flatten()[here].tolist()) == sorted(best.values.tolist())
    kept = moe.admitted(torch.zeros(4, 10, 1, dtype=torch.long).masked_fill(~mask.unsqueeze(-1), -1), 2, taken)
    assert (kept == 0).sum((1, 2)).tolist() == [5, 3, 1, 0]


def test_compile():
    x, w_gate, w_up, w_down = (torch.randn(*shape) for shape in ((N, D), (E, FF, D), (E, FF, D), (E, D, FF)))

    def f(x, router, w_gate, w_up, w_down):
        logits = x @ router
        weights, experts = moe.top_k_routing(logits, K, n_groups=4, top_k_groups=2)
        experts = moe.admitted(experts.unsqueeze(0), E, 12).squeeze(0)
        y = expert_kernels.experts_gated(x, weights, experts, w_gate, w_up, w_down, F.silu)
        return y + balance_loss(logits.softmax(-1).unsqueeze(0), experts.unsqueeze(0)) + balance.router_z_loss(logits)

    compiles(f, x, torch.randn(D, E), w_gate, w_up, w_down)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: moe.top_k_routing(normal(3, 4), 5), "top_k_routing: k is 5, expected 1 to 4, the number of experts"),
        (
            lambda: moe.top_k_routing(normal(3, 4), 1, score="tanh"),
            "top_k_routing: score is 'tanh', expected one of 'softmax', 'sigmoid'",
        ),
        (
            lambda: moe.top_k_routing(normal(3, 4), 1, n_groups=3, top_k_groups=1),
            "top_k_routing: n_groups is 3, expected a divisor of 4 experts",
        ),
        (
            lambda: moe.top_k_routing(normal(3, 4), 3, n_groups=2, top_k_groups=1),
            "top_k_routing: k is 3, expected at most 2, the experts of top_k_groups",
        ),
        (
            lambda: moe.admitted(torch.zeros(3, 1, dtype=torch.long), 2, 1),
            "admitted: experts has shape (3, 1), expected 3 axes (B T k)",
        ),
        (
            lambda: moe.admitted(torch.zeros(1, 3, 1, dtype=torch.long), 2, 1, priority=torch.zeros(1, 2)),
            "admitted: experts has shape (1, 3, 1), expected (B T k) with B, T = (1, 2)",
        ),
        (
            lambda: moe.top_k_routing(normal(3, 4), 1, bias=normal(5)),
            "top_k_routing: bias has shape (5,), expected (E) with E = 4",
        ),
        (
            lambda: moe.tokens_by_expert(normal(1, 4, 2), 5),
            "tokens_by_expert: n_places is 5, expected 1 to 4, the tokens",
        ),
        (
            lambda: moe.admitted(torch.zeros(1, 2, 1, dtype=torch.long), 2, 1, {}, first_choices=True),
            "admitted: a state needs places in order of position, without priority or first_choices",
        ),
    ],
)
def test_contract(call, message):
    with pytest.raises(ValueError) as raised:
        call()
    assert str(raised.value) == message


def test_a_group_of_one_expert_is_as_good_as_it_is():
    logits = normal(7, 4)
    chosen = moe.top_k_routing(logits, 2, n_groups=4, top_k_groups=2, group_score="top2_sum")[1]
    assert torch.equal(chosen, logits.topk(2).indices)


def test_no_capacity_admits_nobody():
    assert (moe.admitted(torch.randint(0, 3, (2, 5, 2)), 3, 0) == -1).all()
