import pytest
import torch
import torch.nn.functional as F
from kernel_checks import Face, assert_close, check, compiles, is_an_operator, normal

from archspec.kernels import backend
from archspec.kernels.pointwise import norm

EPS = 1e-5


@pytest.fixture(params=["aten", "operator", "triton"])
def face(request, monkeypatch):
    """What runs: the operations of PyTorch, the operator without Triton, and its kernels."""
    face = Face("triton" if request.param == "triton" else "torch")
    if face.name == "triton":
        pytest.importorskip("triton")
    monkeypatch.setattr(backend, "on_gpu", lambda x: face.name == "triton")
    monkeypatch.setattr(norm, "on_gpu", lambda x: request.param != "aten")
    return face


def naive_layer_norm(x, w, b):
    y = (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + EPS).sqrt()
    return (y if w is None else y * w) + (0 if b is None else b)


def rows(face, *shape):
    """Fewer of them for the interpreter, which takes a millisecond an operation."""
    return normal(*(shape if face.name == "torch" or shape[-1] < 300 else (1, *shape[1:])))


@pytest.mark.parametrize("D", [1, 63, 100, 257])
def test_rms_norm(face, D):
    given = [normal(2, 3, D), normal(D)]
    eps = 0.5 if D == 1 else EPS  # a single channel is its sign but for eps
    check(lambda x, w: norm.rms_norm(x, w, eps), lambda x, w: norm.reference(x, w, eps), given, face)
    check(lambda x: norm.rms_norm(x, None, eps), lambda x: norm.reference(x, None, eps), given[:1], face)
    check(lambda x, w: norm.rms_norm(x, w, eps, True), lambda x, w: norm.reference(x, 1 + w, eps), given, face)


def test_a_layer_norm_of_one_channel_is_its_bias(face):
    x, w, b = (normal(*shape).float().requires_grad_() for shape in ((2, 3, 1), (1,), (1,)))
    y = norm.layer_norm(x, w, b, EPS)
    assert torch.equal(y, b.expand_as(y))
    assert not torch.autograd.grad(y.sum(), x)[0].any()


@pytest.mark.parametrize("D", [3, 63, 100, 257])
def test_layer_norm(face, D):
    given = [normal(2, 4, D) + 3, normal(D), normal(D)]
    check(lambda x, w, b: norm.layer_norm(x, w, b, EPS), naive_layer_norm, given, face)
    check(lambda x: norm.layer_norm(x, None, None, EPS), lambda x: naive_layer_norm(x, None, None), given[:1], face)


@pytest.mark.parametrize("D", [5000, 9001])
def test_rows_wider_than_a_block(face, D):
    given = [rows(face, 3, D), normal(D), normal(D)]
    check(lambda x, w, b: norm.layer_norm(x, w, b, EPS), naive_layer_norm, given, face)


def test_more_rows_than_programs(face, monkeypatch):
    if face.name == "triton":
        monkeypatch.setattr("archspec.kernels.gpu.norm_backward.PROGRAMS", 2)
    given = [normal(7, 20, 64), normal(64), normal(64)]
    check(lambda x, w, b: norm.layer_norm(x, w, b, EPS), naive_layer_norm, given, face)


def test_with_the_residual_added(face):
    x, r, w, b = normal(2, 3, 63), normal(2, 3, 63), normal(63), normal(63)
    check(
        lambda x, r, w: norm.add_rms_norm(x, r, w, EPS),
        lambda x, r, w: (norm.reference(x + r, w, EPS), x + r),
        [x, r, w],
        face,
        {torch.float16: 1e-2, torch.bfloat16: 6e-2},  # the sum is rounded before its norm is taken
    )
    check(
        lambda x, r, w, b: norm.add_layer_norm(x, r, w, b, EPS),
        lambda x, r, w, b: (naive_layer_norm(x + r, w, b), x + r),
        [x, r, w, b],
        face,
        {torch.float16: 1e-2, torch.bfloat16: 6e-2},
    )


@pytest.mark.parametrize("used", [0, 1])
def test_only_one_of_sum_and_norm_is_used(face, used):
    x, r, w = (t.float().requires_grad_() for t in (normal(2, 3, 20), normal(2, 3, 20), normal(20)))
    wanted = (norm.reference(x + r, w, EPS), x + r)[used]
    got = norm.add_rms_norm(x, r, w, EPS)[used]
    leaves = [x, r, w][: 3 - used]
    for ours, theirs in zip(
        torch.autograd.grad(got.square().sum(), leaves),
        torch.autograd.grad(wanted.square().sum(), leaves),
        strict=True,
    ):
        assert_close("gradient", ours, theirs, 2e-5)


@pytest.mark.parametrize("group_size", [None, 12, 16])
@pytest.mark.parametrize("norm_before_gate", [False, True])
def test_gated_rms_norm(face, group_size, norm_before_gate):
    def plain(x, z, w):
        y = x if norm_before_gate else x * F.silu(z)
        groups = y.split(group_size or y.shape[-1], -1)
        y = torch.cat([norm.reference(g, None, EPS) for g in groups], -1) * w
        return y * F.silu(z) if norm_before_gate else y

    def fast(x, z, w):
        return norm.gated_rms_norm(x, z, w, EPS, group_size, norm_before_gate)

    check(fast, plain, [normal(2, 3, 48), normal(2, 3, 48), normal(48)], face)


def test_heads_and_other_views(face):
    x, w = normal(2, 5, 3, 20).float(), normal(20).float()
    for view in (x.transpose(1, 2), x[..., ::2], x.permute(2, 3, 1, 0)[..., :1], x[0, 0, 0], x[None, :, None]):
        weight = w[: view.shape[-1]]
        leaf, same = (view.detach().requires_grad_() for _ in range(2))
        got, wanted = norm.rms_norm(leaf, weight, EPS), norm.reference(same, weight, EPS)
        assert_close("view", got, wanted, 2e-5)
        (ours,), (theirs,) = (torch.autograd.grad(y.square().sum(), t) for y, t in ((got, leaf), (wanted, same)))
        assert_close("gradient", ours, theirs, 2e-5)


def test_zero_huge_and_missing_rows(face):
    w = torch.linspace(0.5, 1.5, 100, dtype=torch.float16)
    zeros = torch.zeros(2, 100, dtype=torch.float16, requires_grad=True)
    assert not norm.rms_norm(zeros, w, EPS).any()
    assert not norm.layer_norm(zeros, w, None, EPS).any()
    assert torch.autograd.grad(norm.rms_norm(zeros, w, EPS).sum(), zeros)[0].isfinite().all()
    huge = (1e4 * normal(2, 100).clamp(-4, 4)).half()  # a square overflows float16
    assert_close("huge", norm.rms_norm(huge, w, EPS), norm.reference(huge, w, EPS), 6e-3)
    assert_close("huge", norm.layer_norm(huge, w, None, EPS), naive_layer_norm(huge.double(), w, None), 6e-3)
    assert norm.rms_norm(huge[:0], w, EPS).shape == (0, 100)
    empty = huge[:0].clone().requires_grad_()
    weight = w.clone().requires_grad_()
    norm.rms_norm(empty, weight, EPS).sum().backward()
    assert not weight.grad.any()
    broken = huge.clone()
    broken[0, 7] = torch.nan
    assert norm.rms_norm(broken, w, EPS)[0].isnan().all()
    assert norm.rms_norm(broken, w, EPS)[1].isfinite().all()


@pytest.mark.parametrize(("x_type", "weight_type"), [(torch.float16, torch.float32), (torch.float32, torch.float16)])
def test_mixed_types(face, x_type, weight_type):
    x, w = normal(2, 3, 20).to(x_type), normal(20).to(weight_type)
    for got in (norm.rms_norm(x, w, EPS), norm.gated_rms_norm(x, x, w, EPS)):
        assert got.dtype == torch.float32
    assert norm.rms_norm(x, w, EPS, True).dtype == x_type
    y, total = norm.add_rms_norm(x, x.to(weight_type), w, EPS)
    assert (y.dtype, total.dtype) == (torch.float32, torch.float32)
    assert_close("norm", norm.rms_norm(x, w, EPS), norm.reference(x, w, EPS), 6e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rms_norm_is_that_of_llama_and_gemma_to_the_bit(dtype):
    llama = pytest.importorskip("transformers.models.llama.modeling_llama")
    gemma = pytest.importorskip("transformers.models.gemma.modeling_gemma")
    x, w = torch.randn(2, 5, 48, dtype=dtype), torch.randn(48, dtype=dtype)
    for module, one_plus in ((llama.LlamaRMSNorm(48, EPS), False), (gemma.GemmaRMSNorm(48, EPS), True)):
        module.weight.data = w
        wanted = module(x)
        got = norm.rms_norm(x, w, EPS, one_plus)
        assert got.dtype == wanted.dtype
        # float32 sums its squares in another order; a 16-bit result then differs in none of its bits but by accident
        assert_close("norm", got, wanted, 1e-6 if dtype == torch.float32 else 8e-3)
        assert (got != wanted).float().mean() < (1 if dtype == torch.float32 else 0.02)


@pytest.mark.parametrize("one_plus", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_operator_gives_the_bits_of_torch(monkeypatch, dtype, one_plus):
    monkeypatch.setattr(norm, "NUMBERS_NORMED", 10)
    x, w = normal(7, 3, 100).to(dtype).requires_grad_(), normal(100).to(dtype).requires_grad_()
    y = norm.rms_norm(x, w, EPS, one_plus)
    assert "archspec_norm" in y.grad_fn.name()
    assert torch.equal(y, norm._rms_norm(x, w, EPS, one_plus))
    with torch.no_grad():
        assert torch.equal(y, norm.rms_norm(x, w, EPS, one_plus))


def test_gated_norm_is_that_of_mamba(face):
    mamba2 = pytest.importorskip("transformers.models.mamba2.modeling_mamba2")
    theirs = mamba2.MambaRMSNormGated(48, 12, EPS)
    theirs.weight.data = torch.randn(48)
    x, z = torch.randn(2, 5, 48), torch.randn(2, 5, 48)
    assert_close("norm", norm.gated_rms_norm(x, z, theirs.weight, EPS, 12), theirs(x, z), 2e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_layer_norm_is_that_of_torch(face, dtype):
    x, w, b = (t.to(dtype) for t in (normal(2, 5, 48), normal(48), normal(48)))
    wanted = F.layer_norm(x, (48,), w, b, EPS)
    assert_close("norm", norm.layer_norm(x, w, b, EPS), wanted, 1e-6 if dtype == torch.float32 else 1e-3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda x, w: norm.rms_norm(x, w[:3], EPS),
            "rms_norm: weight has shape (3,), expected (D) with D = 8",
        ),
        (
            lambda x, w: norm.add_rms_norm(x, x[:1], w, EPS),
            "add_rms_norm: residual has shape (1, 3, 8), expected (2, 3, 8) like x",
        ),
        (
            lambda x, w: norm.add_layer_norm(x, x[..., :4], w, None, EPS),
            "add_layer_norm: residual has shape (2, 3, 4), expected (... D) with D = 8",
        ),
        (
            lambda x, w: norm.gated_rms_norm(x, x, w, EPS, 3),
            "gated_rms_norm: group_size is 3, expected a divisor of D = 8",
        ),
        (
            lambda x, w: norm.layer_norm(x.long(), w, None, EPS),
            "layer_norm: x is torch.int64, expected a floating type",
        ),
    ],
)
def test_a_broken_contract_is_one_clear_error(call, message):
    with pytest.raises((ValueError, TypeError)) as error:
        call(torch.zeros(2, 3, 8), torch.zeros(8))
    assert str(error.value) == message


def test_the_operator_is_one():
    x, w = (t.float().requires_grad_() for t in (normal(2, 3, 8), normal(8)))
    is_an_operator(norm.normalise, x, None, None, w, None, EPS, 8, False, False, False)
    is_an_operator(norm.normalise, x, x.detach().clone(), None, w, w.detach().clone(), EPS, 8, False, True, False)
    half, gate = x.detach().half().requires_grad_(), x.detach().half()
    is_an_operator(norm.normalise, half, None, gate, w, None, EPS, 4, False, False, True)
    is_an_operator(norm.normalise, half, None, gate, w, None, EPS, 4, False, False, False)


def test_meta():
    x = torch.empty(2, 3, 8, device="meta", dtype=torch.bfloat16)
    assert norm.gated_rms_norm(x, x, x[0, 0], EPS, 4).dtype == torch.bfloat16


@pytest.mark.parametrize("operated", [False, True])
def test_compile(monkeypatch, operated):
    monkeypatch.setattr(norm, "on_gpu", lambda x: operated)
    monkeypatch.setattr(backend, "on_gpu", lambda x: False)
    x, z, w = torch.randn(2, 3, 8), torch.randn(2, 3, 8), torch.randn(8)
    compiles(lambda x, z, w: norm.gated_rms_norm(norm.rms_norm(x, w, EPS), z, w, EPS, 4), x, z, w)
    compiles(lambda x, z, w: sum(norm.add_layer_norm(x, z, w, None, EPS)), x, z, w)


def test_a_weight_may_lie_anywhere(face):
    x, w = torch.randn(3, 8, requires_grad=True), torch.randn(16)
    for weight in (w[::2], w[:1].expand(8)):
        weight = weight.detach().requires_grad_()
        pairs = [(norm.rms_norm(x, weight, EPS), norm.reference(x, weight, EPS))]
        pairs.append((norm.layer_norm(x, weight, weight, EPS), naive_layer_norm(x, weight, weight)))
        for ours, theirs in pairs:
            assert_close("norm", ours, theirs, 2e-5)
            probe = torch.randn(3, 8)
            both = zip(*(torch.autograd.grad(y, (x, weight), probe.to(y)) for y in (ours, theirs)), strict=True)
            for got, wanted in both:
                assert_close("gradient", got, wanted, 2e-5)


def test_a_graph_of_any_length():
    class Norm(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.rand(8))

        def forward(self, x):
            return norm.rms_norm(x, self.weight, EPS)

    lengths = {"x": {1: torch.export.Dim("T", min=2, max=1 << 30)}}
    module = Norm()
    exported = torch.export.export(module, (torch.randn(2, 5, 8),), dynamic_shapes=lengths).module()
    x = torch.randn(2, norm.NUMBERS_NORMED // 16 + 3, 8)
    assert_close("norm", exported(x), module(x), 1e-6)
