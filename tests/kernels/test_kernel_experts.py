"""Grouped products, the sort by expert and the weighted sum of slots, against loops and against PyTorch's own."""

import pytest
import torch
import torch.nn.functional as F
from kernel_checks import assert_close, check, compiles, faces, is_an_operator, normal
from torch.utils.flop_counter import FlopCounterMode

from archspec.kernels.moe import experts as kernel
from archspec.kernels.moe import grouped_linear as grouped
from archspec.kernels.moe.grouped_linear import grouped_linear

N, E, K, D, FF = 37, 8, 2, 6, 5


def gated_inputs():
    return [normal(N, D), torch.rand(N, K, dtype=torch.float64), normal(E, FF, D), normal(E, FF, D), normal(E, D, FF)]


def choice(case="random"):
    experts = torch.rand(N, E).argsort(-1)[:, :K]
    if case == "one_expert":
        return torch.full_like(experts, 3)
    if case == "nobody":
        return torch.full_like(experts, -1)
    return experts.where(torch.arange(N).unsqueeze(1) % 3 > 0, -1) if case == "dropped" else experts


@faces("torch", "triton")
@pytest.mark.parametrize("sizes", grouped.EXAMPLES, ids=str)
@pytest.mark.parametrize("biased", [False, True])
def test_grouped_linear(sizes, biased, face):
    given = grouped.example(**sizes)
    ends = given["ends"].to(face.device)
    arguments = [given["x"], given["weight"], given["bias"] if biased else None]

    def fast(x, weight, bias):
        return grouped_linear(x, weight, ends, bias)

    def naive(x, weight, bias):
        return grouped.reference(x, weight, ends, bias)

    check(fast, naive, arguments, face)


@faces("torch", "triton")
def test_grouped_linear_of_strided_tensors_and_two_types(face):
    given = grouped.example()
    ends = given["ends"].to(face.device)
    x = given["x"].mT.contiguous().mT.half().to(face.device).requires_grad_()
    weight = given["weight"].mT.contiguous().mT.float().to(face.device).requires_grad_()
    y = grouped_linear(x, weight, ends)
    dx, dweight = torch.autograd.grad(y.sum(), (x, weight))  # the gradient of y is one number, seen many times
    right = grouped.reference(*(leaves := [x.detach().double(), weight.detach().double()]), ends)
    assert (y.dtype, dx.dtype, dweight.dtype) == (torch.float16, torch.float16, torch.float32)
    assert_close("y", y, right, 6e-3)
    leaves = [leaf.requires_grad_() for leaf in leaves]
    wanted = torch.autograd.grad(grouped.reference(*leaves, ends).sum(), leaves)
    assert_close("dx", dx, wanted[0], 6e-3)
    assert_close("dweight", dweight, wanted[1], 1e-6 if face.name == "triton" else 1e-3)


def test_grouped_linear_is_grouped_mm():
    grouped_mm = getattr(F, "grouped_mm", None)
    if grouped_mm is None:
        pytest.skip("torch before 2.10")
    x, weight, ends = torch.randn(64, 16), torch.randn(4, 32, 16), torch.tensor([10, 10, 40, 64])
    wanted = grouped_mm(x, weight.mT, offs=ends.int())
    assert_close("y", grouped_linear(x, weight, ends), wanted, 1e-6)


def test_grouped_linear_follows_autocast():
    x, weight, ends = torch.randn(64, 16), torch.randn(4, 32, 16).requires_grad_(), torch.tensor([10, 10, 40, 64])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = grouped_linear(x, weight, ends)
        wanted = torch.cat([F.linear(rows, w) for rows, w in zip(x.split([10, 0, 30, 24]), weight, strict=True)])
    assert y.dtype == wanted.dtype == torch.bfloat16
    assert torch.equal(y, wanted)
    assert torch.autograd.grad(y.sum(), weight)[0].dtype == torch.float32


def test_a_row_that_is_not_a_number_spoils_its_own_expert_alone():
    x, weight, ends = torch.randn(9, 4), torch.randn(3, 5, 4).requires_grad_(), torch.tensor([2, 5, 8])
    x[3] = torch.nan
    y = grouped_linear(x, weight, ends)
    assert y.isnan().any(1).tolist() == [False] * 3 + [True] + [False] * 5
    (gradient,) = torch.autograd.grad(y.sum(), weight)
    assert gradient.isnan().flatten(1).any(1).tolist() == [False, True, False]


def test_slots_are_sorted_by_expert_nobody_last():
    experts = torch.tensor([[1, 0], [-1, 1], [0, 3]])
    order, places, ends = kernel.sort_by_expert(experts, 4)
    assert order.tolist() == [1, 4, 0, 3, 5, 2]
    assert places.tolist() == [[2, 0], [5, 3], [1, 4]]
    assert ends.tolist() == [2, 4, 4, 5]


@faces("torch", "triton")
@pytest.mark.parametrize(("n", "k", "d"), [(1, 1, 1), (63, 3, 33), (20, 2, 129), (0, 2, 5)])
def test_gathering_and_combining_rows(n, k, d, face):
    slots = torch.randint(-1, 5, (n, k), device=face.device)
    order, places, _ = kernel.sort_by_expert(slots, 5)

    def naive_gather(x):
        return torch.stack([x[int(slot) // k] for slot in order]) if n else x * 1

    def naive_sum(rows, weights):
        lines = [sum(w * rows[int(p)] for w, p in zip(ws, ps, strict=True)) for ws, ps in zip(weights, places)]  # noqa: B905
        return torch.stack(lines) if n else rows * weights.sum()

    check(lambda x: kernel.gather_rows(x, order, places), naive_gather, [normal(n, d)], face)
    inputs = [normal(n * k, d), torch.rand(n, k, dtype=torch.float64)]
    check(lambda rows, w: kernel.combine_rows(rows, w, order, places), naive_sum, inputs, face)


@faces("torch", "triton")
@pytest.mark.parametrize("case", ["random", "one_expert", "dropped", "nobody"])
def test_experts_gated(case, face):
    experts = choice(case)

    def fast(x, weights, w_gate, w_up, w_down):
        return kernel.experts_gated(x, weights, experts.to(x.device), w_gate, w_up, w_down, F.silu)

    def naive(x, weights, w_gate, w_up, w_down):
        def expert(e, rows):
            return (F.silu(rows @ w_gate[e].T) * (rows @ w_up[e].T)) @ w_down[e].T

        unused = 0 * (weights.sum() + w_gate.sum() + w_up.sum() + w_down.sum())
        return kernel.reference(x, weights, experts, expert) + unused

    check(fast, naive, gated_inputs(), face)


@faces("torch", "triton")
@pytest.mark.parametrize("biases", [False, True])
def test_experts_plain(biases, face):
    experts = choice("dropped")
    inputs = [normal(N, D), torch.rand(N, K, dtype=torch.float64), normal(E, FF, D), normal(E, D, FF)]
    inputs += [normal(E, FF), normal(E, D)] if biases else [None, None]

    def fast(x, weights, w_up, w_down, b_up, b_down):
        return kernel.experts_plain(x, weights, experts.to(x.device), w_up, w_down, torch.sigmoid, b_up, b_down)

    def naive(x, weights, w_up, w_down, b_up, b_down):
        def expert(e, rows):
            hidden = torch.sigmoid(F.linear(rows, w_up[e], None if b_up is None else b_up[e]))
            return F.linear(hidden, w_down[e], None if b_down is None else b_down[e])

        return kernel.reference(x, weights, experts, expert)

    check(fast, naive, inputs, face)


def test_only_chosen_experts_are_computed():
    x, weights, w_gate, w_up, w_down = (t.float() for t in gated_inputs())
    counted = []
    for device in ("cpu", "meta"):
        arguments = (t.to(device) for t in (x, weights, choice(), w_gate, w_up, w_down))
        with FlopCounterMode(display=False) as counter:
            assert kernel.experts_gated(*arguments, F.silu).device.type == device
        counted.append(counter.get_total_flops())
    assert counted == [2 * N * K * 3 * D * FF] * 2


def test_flops_are_those_of_the_products():
    given = grouped.example(R=27, E=4)
    x, weight = given["x"].requires_grad_(), given["weight"].requires_grad_()
    ends = torch.tensor([3, 3, 20, 27])
    with FlopCounterMode(display=False) as direct:
        y = grouped._grouped_forward(x.detach(), weight.detach(), ends, None)
        grouped._grouped_backward([y], [], x.detach(), weight.detach(), ends, None, needed=[True, True])
    with FlopCounterMode(display=False) as counted:
        grouped_linear(x, weight, ends).sum().backward()
    assert counted.get_total_flops() == direct.get_total_flops() == 6 * 27 * 24 * 20


def test_expert_weights_of_unused_experts_have_zero_gradients():
    x, weights, w_gate, w_up, w_down = gated_inputs()
    w_up.requires_grad_()
    experts = torch.zeros(N, K, dtype=torch.long)
    kernel.experts_gated(x, weights, experts, w_gate, w_up, w_down, F.silu).sum().backward()
    assert w_up.grad[0].abs().min() > 0
    assert w_up.grad[1:].abs().max() == 0


def test_operators():
    given = {name: t.requires_grad_() if t.is_floating_point() else t for name, t in grouped.example().items()}
    is_an_operator(grouped._grouped, *given.values())
    is_an_operator(grouped._grouped, given["x"], given["weight"], given["ends"], None)
    order, places, _ = kernel.sort_by_expert(choice("dropped"), E)
    is_an_operator(kernel._gather, normal(N, D).requires_grad_(), order, places)
    weights = torch.rand(N, K, dtype=torch.float64).requires_grad_()
    is_an_operator(kernel._combine, normal(N * K, D).requires_grad_(), weights, order, places)


def test_a_compiled_layer_multiplies_chosen_rows_only():
    x, weights, w_gate, w_up, w_down = (t.float() for t in gated_inputs())
    experts = choice("dropped")

    def f(x, weights, w_gate, w_up, w_down):
        return kernel.experts_gated(x, weights, experts, w_gate, w_up, w_down, F.silu)

    compiles(f, x, weights, w_gate, w_up, w_down)
    graphs = []

    def look(graph, _):
        graphs.append(str(graph.graph))
        return graph.forward

    torch.compiler.reset()
    torch.compile(f, fullgraph=True, backend=look)(x, weights, w_gate, w_up, w_down)
    assert graphs[0].count("grouped_linear") >= 3


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"weight": torch.zeros(8, 20, 23)},
            ValueError,
            "grouped_linear: weight has shape (8, 20, 23), expected (E d_out d_in) with E = 8, d_out = 20, d_in = 24",
        ),
        ({"ends": torch.zeros(8)}, TypeError, "grouped_linear: ends is torch.float32, expected whole numbers"),
        (
            {"ends": torch.zeros(9, dtype=torch.long)},
            ValueError,
            "grouped_linear: ends has shape (9,), expected (8,), one an expert",
        ),
    ],
)
def test_contract(change, error, message):
    with pytest.raises(error) as raised:
        grouped_linear(**(grouped.example() | change))
    assert str(raised.value) == message


@faces("torch", "triton")
@pytest.mark.parametrize(("trained", "products"), [({"x"}, 1), ({"weight", "bias"}, 1), ({"x", "weight"}, 2)])
def test_what_is_frozen_costs_no_product(trained, products, face):
    given = {name: t.float() if t.is_floating_point() else t for name, t in grouped.example(R=9, E=3).items()}
    every, some = (
        {name: t.to(face.device).requires_grad_(name in names) for name, t in given.items()}
        for names in ({"x", "weight", "bias"}, trained)
    )
    wanted = torch.autograd.grad(grouped_linear(**every).sum(), [every[name] for name in sorted(trained)])
    y = grouped_linear(**some).sum()
    with FlopCounterMode(display=False) as counter:
        got = torch.autograd.grad(y, [some[name] for name in sorted(trained)])
    assert counter.get_total_flops() == products * 2 * 9 * 24 * 20
    for ours, theirs in zip(got, wanted, strict=True):
        assert_close("gradient", ours, theirs, 1e-6)


def test_float64_stays_float64_where_the_operators_run(monkeypatch):
    monkeypatch.setattr(kernel, "on_gpu", lambda x: True)
    rows, weights, places = normal(6, 3), torch.rand(3, 2, dtype=torch.float64), torch.randperm(6).view(3, 2)
    y = kernel.combine_rows(rows, weights, places.flatten().argsort(), places)
    assert_close("sum", y, (rows[places] * weights.unsqueeze(-1)).sum(1))


def test_whole_numbers_on_another_device_are_named():
    given = grouped.example()
    with pytest.raises(ValueError, match="grouped_linear: ends is on meta, expected cpu"):
        grouped_linear(**given | {"ends": given["ends"].to("meta")})
    x, weights, *rest = gated_inputs()
    with pytest.raises(ValueError, match="experts_gated: experts is on meta, expected cpu"):
        kernel.experts_gated(x, weights, choice("dropped").to("meta"), *rest, F.silu)
