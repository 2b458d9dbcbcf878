import math

import pytest
import torch
import torch.nn.functional as F
from kernel_checks import Face, assert_close, check, compiles, is_an_operator, normal

from archspec.kernels import backend
from archspec.kernels.pointwise import activation


@pytest.fixture(params=["aten", "operator", "triton"])
def face(request, monkeypatch):
    """What runs: the operations of PyTorch, the operator without Triton, and its kernels."""
    face = Face("triton" if request.param == "triton" else "torch")
    if face.name == "triton":
        pytest.importorskip("triton")
    monkeypatch.setattr(backend, "on_gpu", lambda x: face.name == "triton")
    monkeypatch.setattr(activation, "on_gpu", lambda x: request.param != "aten")
    return face


def tanh_gelu(x):
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def naive_clamped(gate, up):
    gate, up = torch.minimum(gate, torch.full_like(gate, 1.4142)), torch.clip(up, -1.4142, 1.4142)
    return (up + 1) * gate / (1 + torch.exp(-1.702 * gate))


KINDS = {
    "swiglu": (activation.swiglu, activation.reference),
    "geglu": (activation.geglu, lambda g, u: g * 0.5 * (1 + torch.erf(g / math.sqrt(2))) * u),
    "geglu by tanh": (lambda g, u=None: activation.geglu(g, u, tanh=True), lambda g, u: tanh_gelu(g) * u),
    "reglu": (activation.reglu, lambda g, u: g.where(g > 0, 0 * g) * u),
    "glu": (activation.glu, lambda g, u: u / (1 + torch.exp(-g))),
    "clamped_swiglu": (lambda g, u=None: activation.clamped_swiglu(g, u, limit=1.4142), naive_clamped),
}
every_kind = pytest.mark.parametrize("kind", KINDS)


@every_kind
@pytest.mark.parametrize("width", [1, 63, 257])
def test_apart_and_packed(face, kind, width):
    fast, plain = KINDS[kind]
    gate, up = 2 * normal(2, 3, width), normal(2, 3, width)
    check(fast, plain, [gate, up], face)
    check(fast, lambda both: plain(*both.chunk(2, -1)), [torch.cat((gate, up), -1)], face)


def test_rows_of_many_blocks(face, monkeypatch):
    if face.name == "triton":
        monkeypatch.setattr("archspec.kernels.gpu.activation.BLOCK", 16)
    check(activation.swiglu, activation.reference, [normal(3, 100), normal(3, 100)], face)
    both = normal(3, 200)
    check(lambda x: activation.swiglu(*x.chunk(2, -1)), lambda x: activation.reference(*x.chunk(2, -1)), [both], face)
    check(activation.swiglu, lambda x: activation.reference(*x.chunk(2, -1)), [both], face)


@pytest.mark.parametrize("kind", ["swiglu", "clamped_swiglu"])
def test_views(face, kind):
    fast, plain = KINDS[kind]
    x = normal(4, 3, 2, 10).float()
    for view in (x.transpose(0, 2), x[..., ::2], x[0, 0, 0], x[:, :1].expand(-1, 5, -1, -1), x.mT):
        gate, up, both = (view.detach().requires_grad_() for _ in range(3))
        assert_close("apart", fast(gate, up), plain(gate, up), 2e-5)
        ours, theirs = (torch.autograd.grad(f(gate, up).sum(), (gate, up)) for f in (fast, plain))
        for a, b in zip(ours, theirs, strict=True):
            assert_close("gradient", a, b, 2e-5)
        if view.shape[-1] % 2 == 0:
            assert_close("packed", fast(both), plain(*both.chunk(2, -1)), 2e-5)


@every_kind
def test_zero_huge_and_missing_numbers(face, kind):
    fast, plain = KINDS[kind]
    gate = torch.tensor([0.0, 1e4, -1e4, 2e4, -2e4, torch.nan, 1.0], dtype=torch.float16)
    leaf, up = gate.clone().requires_grad_(), torch.tensor([1.0] * 6 + [torch.nan], dtype=torch.float16)
    y = fast(leaf, up)
    assert y.isnan().tolist() == [False] * 5 + [True] * 2
    assert_close("values", y[:5], plain(gate.double(), up.double())[:5], 1e-3)
    assert torch.autograd.grad(y.nan_to_num().sum(), leaf)[0][:5].isfinite().all()
    assert fast(gate[:0], up[:0]).shape == (0,)
    assert fast(torch.zeros(0, 3, 4)).shape == (0, 3, 2)


@pytest.mark.parametrize("activation_name", ["silu", "gelu", "gelu_pytorch_tanh"])
def test_a_gated_network_is_that_of_transformers(face, activation_name):
    llama = pytest.importorskip("transformers.models.llama.modeling_llama")
    config = llama.LlamaConfig(hidden_size=12, num_attention_heads=2, intermediate_size=20, hidden_act=activation_name)
    theirs = llama.LlamaMLP(config)
    x = torch.randn(2, 5, 12)
    kind = "swiglu" if activation_name == "silu" else "geglu" if activation_name == "gelu" else "geglu by tanh"
    h = KINDS[kind][0](theirs.gate_proj(x), theirs.up_proj(x))
    assert_close("mlp", theirs.down_proj(h), theirs(x), 1e-6)


def test_mixed_types(face):
    gate, up = torch.randn(3, 4, dtype=torch.float16), torch.randn(3, 4)
    assert activation.swiglu(gate, up).dtype == torch.float32
    assert_close("swiglu", activation.swiglu(gate, up), activation.reference(gate, up), 1e-3)


def test_plain_activations():
    x = normal(50)
    assert torch.equal(activation.relu2(x), x.clamp(min=0) ** 2)
    assert_close("quick_gelu", activation.quick_gelu(x), x / (1 + (-1.702 * x).exp()))
    assert_close("softcap", activation.softcap(30 * x, 2.0), 2 * torch.tanh(15 * x))
    normal_cdf = torch.distributions.Normal(math.sqrt(0.5), math.sqrt(1 / (4 * math.pi))).cdf(x)
    assert_close("laplace", activation.laplace(x), normal_cdf, 1e-6)
    gate, up = 20 * normal(50), 20 * normal(50)
    wanted = gate.clamp(max=7) * torch.sigmoid(1.702 * gate.clamp(max=7)) * (up.clamp(-7, 7) + 1)
    assert_close("clamped_swiglu", activation.clamped_swiglu(gate, up), wanted)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: activation.swiglu(x, x[:1]), "swiglu: up has shape (1, 3), expected (2, 3) like gate"),
        (lambda x: activation.reglu(x, x[:, :1]), "reglu: up has shape (2, 1), expected (... F) with F = 3"),
        (lambda x: activation.geglu(x), "geglu: gate has shape (2, 3), expected an even number of channels without up"),
        (lambda x: activation.glu(x.long()), "glu: gate is torch.int64, expected a floating type"),
    ],
)
def test_a_broken_contract_is_one_clear_error(call, message):
    with pytest.raises((ValueError, TypeError)) as error:
        call(torch.zeros(2, 3))
    assert str(error.value) == message


def test_the_operator_is_one():
    gate, up = torch.randn(2, 3, 4, requires_grad=True), torch.randn(2, 3, 4, requires_grad=True)
    is_an_operator(activation.gated, gate, up, "gelu", 1.0, 0.0)
    is_an_operator(activation.gated, gate.detach().half().requires_grad_(), None, "clamped", 1.702, 7.0)


def test_swiglu_on_a_cpu_is_silu_times_up_to_the_bit():
    gate, up = torch.randn(3, 50, dtype=torch.bfloat16), torch.randn(3, 50, dtype=torch.bfloat16)
    assert torch.equal(activation.swiglu(gate, up), F.silu(gate) * up)


@pytest.mark.parametrize("operated", [False, True])
def test_compile(monkeypatch, operated):
    monkeypatch.setattr(activation, "on_gpu", lambda x: operated)
    monkeypatch.setattr(backend, "on_gpu", lambda x: False)
    compiles(lambda g, u: activation.swiglu(activation.geglu(g, u)), torch.randn(2, 3, 8), torch.randn(2, 3, 8))
