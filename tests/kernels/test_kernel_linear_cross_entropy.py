"""Linear cross entropy against its equations and against PyTorch's, which holds all logits."""

import pytest
import torch
import torch.nn.functional as F
from kernel_checks import assert_close, check, compiles, faces, is_an_operator
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from archspec.kernels.loss import linear_cross_entropy as kernel
from archspec.kernels.loss import logit_chunks as cross_entropy_chunks
from archspec.kernels.loss.linear_cross_entropy import linear_cross_entropy
from archspec.kernels.loss.logit_chunks import loss_and_gradients

SETTINGS = (
    {},
    {"softcap": 3.0, "scale": 0.5},
    {"z_loss": 0.01, "label_smoothing": 0.1},
    {"softcap": 2.0, "scale": 1.5, "z_loss": 0.1, "label_smoothing": 0.2},
)


def arguments(biased=True, **sizes):
    given = kernel.example(**sizes)
    return [given["x"], given["weight"], given["targets"], given["bias"] if biased else None]


def compared(**settings):
    def fast(x, weight, targets, bias, **more):
        loss = linear_cross_entropy(x, weight, targets, bias=bias, **settings, **more)
        assert loss.dtype == torch.promote_types(x.dtype, torch.float32)
        return loss.to(x.dtype)

    def naive(x, weight, targets, bias):
        return kernel.reference(x, weight, targets, bias, **settings)

    return fast, naive


@faces("torch", "triton")
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_is_its_equation(settings, reduction, face):
    fast, naive = compared(**settings, reduction=reduction)
    chunked = lambda *given: fast(*given, chunk=9)  # noqa: E731
    check(chunked, naive, [x.to(face.device) for x in arguments(B=2, T=10, D=6, V=33)], face)


@pytest.mark.parametrize("sizes", kernel.EXAMPLES[1:-1], ids=str)
@pytest.mark.parametrize("biased", [False, True])
def test_sizes(sizes, biased):
    check(*compared(reduction="sum"), arguments(biased, **sizes))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.3])
def test_is_pytorchs(label_smoothing, reduction, dtype, monkeypatch):
    monkeypatch.setattr(cross_entropy_chunks, "LOGITS_IN_CACHE", 200)  # several blocks of rows in a chunk
    x, weight, targets, bias = arguments(V=50)
    leaves = [t.to(dtype).requires_grad_() for t in (x, weight, bias)]
    options = {"label_smoothing": label_smoothing, "reduction": reduction}
    loss = linear_cross_entropy(leaves[0], leaves[1], targets, bias=leaves[2], chunk=50, **options)
    wanted = F.cross_entropy(F.linear(*leaves).flatten(0, 1), targets.flatten(), **options).view_as(loss)
    limit = 1e-12 if dtype == torch.float64 else 2e-6
    assert_close("loss", loss, wanted, limit)
    cotangent = torch.randn_like(wanted)
    pairs = zip(*(torch.autograd.grad(y, leaves, cotangent) for y in (loss, wanted)), strict=True)
    for ours, theirs in pairs:
        assert_close("gradient", ours, theirs, limit)


def test_z_loss_is_a_multiple_of_the_mean_square():
    x, weight, targets, _ = arguments(biased=False)
    lse = F.linear(x, weight).logsumexp(-1)[targets != -100]
    got = linear_cross_entropy(x, weight, targets, z_loss=0.5) - linear_cross_entropy(x, weight, targets)
    assert_close("z-loss", got, 0.5 * lse.square().mean())


@faces("torch", "triton")
def test_a_weight_that_is_not_trained_costs_no_product(face):
    x, weight, targets, _ = (None if t is None else t.to(face.device) for t in arguments(False, T=4))
    x, weight = x.float(), weight.float()
    products = 2 * x.numel() * len(weight)
    for trained, count in (((), 1), ((x,), 2), ((weight,), 2), ((x, weight), 3)):
        for tensor in (x, weight):
            tensor.requires_grad_(any(tensor is t for t in trained))
        with FlopCounterMode(display=False) as counter:
            loss = linear_cross_entropy(x, weight, targets)
            gradients = torch.autograd.grad(loss, trained) if trained else ()
        assert counter.get_total_flops() == count * products
        wanted = F.cross_entropy(F.linear(x, weight).flatten(0, 1), targets.flatten())
        assert_close("loss", loss, wanted, 1e-6)
        for ours, theirs in zip(gradients, torch.autograd.grad(wanted, trained) if trained else (), strict=True):
            assert_close("gradient", ours, theirs, 1e-5)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        linear_cross_entropy(x, weight, targets)
    assert counter.get_total_flops() == products


def test_flops_are_those_of_the_products():
    x, weight, targets, _ = arguments(False)
    rows, flat = x.flatten(0, 1), targets.flatten()
    settings = (0.0, 1.0, 0.0, 0.0, -100, 50)
    with FlopCounterMode(display=False) as direct:
        loss_and_gradients(rows, weight, None, flat, None, *settings, True, True)
    assert direct.get_total_flops() == kernel._total_flops(rows.shape, weight.shape, None, flat.shape, True, True)
    with FlopCounterMode(display=False) as each:
        kernel._each_forward(rows, weight, None, flat, *settings)
        kernel._each_backward([torch.ones(len(rows))], [], rows, weight, None, flat, *settings, needed=[True, True])
    with FlopCounterMode(display=False) as counter:
        linear_cross_entropy(x.requires_grad_(), weight.requires_grad_(), targets, reduction="none").sum().backward()
    assert each.get_total_flops() == counter.get_total_flops() == 8 * x.numel() * len(weight)


class Largest(TorchDispatchMode):
    """Keeps the size of the largest tensor that an operation gives."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for x in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(x, torch.Tensor):
                self.elements = max(self.elements, x.numel())
        return result


def test_no_tensor_holds_all_logits():
    N, D, V = 1500, 4, 1000
    rows, weight, targets = torch.randn(N, D), torch.randn(V, D), torch.randint(0, V, (N,))
    with Largest() as largest:
        loss_and_gradients(rows, weight, None, targets, None, 0.0, 1.0, 0.0, 0.0, -100, 128, True, True)
    assert largest.elements == 128 * V


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_small_gradients_survive_float16(reduction):
    N, D, V = 400, 8, 300
    x, weight, targets = torch.randn(N, D), torch.randn(V, D) / 3, torch.randint(0, V, (N,))
    leaves = [t.half().requires_grad_() for t in (x, weight)]
    exact = [t.detach().double().requires_grad_() for t in leaves]
    factor = 1e-3
    loss = linear_cross_entropy(*leaves, targets, reduction=reduction).mean() * factor
    wanted = F.cross_entropy(F.linear(*exact), targets) * factor
    ours, theirs = torch.autograd.grad(loss * 65536, leaves), torch.autograd.grad(wanted * 65536, exact)
    for a, b in zip(ours, theirs, strict=True):
        assert_close("gradient", a, b, 4e-3)


@faces("torch", "triton")
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_where_every_token_is_ignored(reduction, face):
    x, weight, targets, _ = arguments(False, T=5)
    x, weight = (t.float().to(face.device).requires_grad_() for t in (x, weight))
    targets = torch.full_like(targets, 7).to(face.device)
    loss = linear_cross_entropy(x, weight, targets, ignore_index=7, reduction=reduction)
    assert loss.isnan().all() if reduction == "mean" else (loss == 0).all()
    for gradient in torch.autograd.grad(loss.nansum(), (x, weight)):
        assert gradient.abs().max() == 0


@faces("torch", "triton")
def test_what_is_not_finite(face):
    x, weight, targets, bias = (t.to(face.device) for t in arguments(V=6, T=4))
    x, weight, bias = x.float(), weight.float(), bias.float()
    bias[2] = -torch.inf  # a forbidden class
    targets[targets == 2] = 1
    x[0, 1], targets[0, 1] = torch.nan, 1
    x[1, 1], targets[1, 1] = torch.nan, -100
    leaves = [t.requires_grad_() for t in (x, weight)]
    losses = linear_cross_entropy(*leaves, targets, bias=bias, reduction="none")
    assert losses.isnan().nonzero().tolist() == [[0, 1]]
    wanted = F.cross_entropy(F.linear(x, weight, bias).flatten(0, 1), targets.flatten(), reduction="none")
    keep = ~losses.isnan()
    assert_close("losses", losses[keep], wanted.view_as(losses)[keep], 1e-5)
    (dx,) = torch.autograd.grad(losses[keep].sum(), x)
    assert dx[keep].isfinite().all()


@faces("torch", "triton")
def test_large_logits(face):
    x = torch.tensor([[100.0, -3e4], [0.0, 1e-30]]).to(face.device).requires_grad_()
    weight = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]).to(face.device)
    targets = torch.tensor([1, 2]).to(face.device)
    losses = linear_cross_entropy(x, weight, targets, reduction="none")
    assert_close("losses", losses, F.cross_entropy(F.linear(x, weight), targets, reduction="none"), 1e-6)


def test_compile():
    x, weight, targets, bias = arguments(T=9)

    def f(reduction):
        return lambda x, weight, bias: linear_cross_entropy(
            x, weight, targets, bias=bias, softcap=5.0, z_loss=0.1, reduction=reduction
        )

    for reduction in ("mean", "none"):
        compiles(f(reduction), x.float(), weight.float(), bias.float())


def test_operators():
    x, weight, targets, bias = arguments(T=9)
    x, weight, bias = (t.requires_grad_() for t in (x, weight, bias))
    given = (x.flatten(0, 1), weight, bias, targets.flatten(), 0.0, 1.0, 0.0, 0.0, -100, 4)
    torch.library.opcheck(kernel._total, (*given, True, True), test_utils=("test_schema", "test_faketensor"))
    is_an_operator(kernel._each, *given)


def test_follows_autocast():
    x, weight, targets, _ = arguments(False)
    x, weight = x.float(), weight.float().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = linear_cross_entropy(x, weight, targets)
        wanted = F.cross_entropy(F.linear(x, weight).flatten(0, 1).float(), targets.flatten())
    assert_close("loss", loss, wanted, 1e-5)
    assert torch.autograd.grad(loss, weight)[0].dtype == torch.float32


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"targets": torch.zeros(2, 4)}, TypeError, "targets is torch.float32, expected whole numbers"),
        (
            {"targets": torch.zeros(2, 5, dtype=torch.long)},
            ValueError,
            "targets has shape (2, 5), expected (2, 4) like x",
        ),
        (
            {"targets": torch.full((2, 4), 50)},
            ValueError,
            "targets holds 50, expected 0 to 49, or ignore_index -100",
        ),
        (
            {"targets": torch.full((2, 4), -1)},
            ValueError,
            "targets holds -1, expected 0 to 49, or ignore_index -100",
        ),
        ({"bias": torch.zeros(49)}, ValueError, "bias has shape (49,), expected (V) with V = 50"),
        ({"reduction": "max"}, ValueError, "reduction is 'max', expected one of 'mean', 'sum', 'none'"),
    ],
)
def test_contract(change, error, message):
    with pytest.raises(error) as raised:
        linear_cross_entropy(**(kernel.example(T=4) | change))
    assert str(raised.value) == f"linear_cross_entropy: {message}"


@pytest.mark.parametrize("how", ["export", "vmap"])
def test_gradients_that_were_not_foreseen_are_computed_late(how):
    """Neither an exported graph nor vmap says of x that it is trained."""
    x, weight, targets, bias = (t.float() if t.is_floating_point() else t for t in arguments(T=4))
    leaves = [t.requires_grad_() for t in (x.clone(), weight, bias)]
    wanted = torch.autograd.grad(linear_cross_entropy(leaves[0], leaves[1], targets, bias=leaves[2]), leaves)

    class Loss(torch.nn.Module):
        def forward(self, x, weight, bias):
            return linear_cross_entropy(x, weight, targets, bias=bias)

    if how == "vmap":
        loss = torch.vmap(lambda x: Loss()(x, *leaves[1:]))(leaves[0].unsqueeze(0)).squeeze(0)
    else:
        loss = torch.export.export(Loss(), (x, weight.detach(), bias.detach())).module()(*leaves)
    for ours, theirs in zip(torch.autograd.grad(loss, leaves), wanted, strict=True):
        assert_close("gradient", ours, theirs, 1e-5)


@pytest.mark.parametrize("trained", [{"x"}, {"weight"}, {"bias"}, {"x", "bias"}])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_gradients_of_some_arguments(trained, reduction):
    given = dict(zip(("x", "weight", "targets", "bias"), arguments(T=4), strict=True))
    every = {name: t.clone().requires_grad_(t.is_floating_point()) for name, t in given.items()}
    some = {name: t.clone().requires_grad_(name in trained) for name, t in given.items()}
    gradients = []
    for leaves in (every, some):
        loss = linear_cross_entropy(**leaves, reduction=reduction).sum()
        gradients.append(torch.autograd.grad(loss, [leaves[name] for name in sorted(trained)]))
    for a, b in zip(*gradients, strict=True):
        assert_close("gradient", a, b)


def test_chunks_of_nothing_are_refused_and_any_whole_numbers_are_targets():
    x, weight, targets = torch.randn(3, 2), torch.randn(4, 2), torch.tensor([1, 3, 0])
    with pytest.raises(ValueError, match="linear_cross_entropy: chunk is 0, expected a positive number of tokens"):
        linear_cross_entropy(x, weight, targets, chunk=0)
    wanted = linear_cross_entropy(x, weight, targets)
    assert all(linear_cross_entropy(x, weight, targets.to(t)) == wanted for t in (torch.int32, torch.uint8))
