import math

import pytest
import torch
import torch.nn.functional as F
from kernel_checks import assert_close, check, compiles, normal

from archspec.kernels import activation, norm
from archspec.kernels.positions import sinusoidal, sinusoidal_half


@pytest.mark.parametrize("D", [3, 63, 100])
def test_rms_norm(D):
    inputs = [normal(2, 3, D), normal(D)]
    check(lambda x, w: norm.rms_norm(x, w, 1e-5), lambda x, w: norm.reference(x, w, 1e-5), inputs)
    check(lambda x: norm.rms_norm(x, None, 1e-5), lambda x: norm.reference(x, None, 1e-5), inputs[:1])
    check(lambda x, w: norm.rms_norm(x, w, 1e-5, True), lambda x, w: norm.reference(x, 1 + w, 1e-5), inputs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rms_norm_is_that_of_llama_and_gemma(dtype):
    llama = pytest.importorskip("transformers.models.llama.modeling_llama")
    gemma = pytest.importorskip("transformers.models.gemma.modeling_gemma")
    x, w = torch.randn(2, 5, 48, dtype=dtype), torch.randn(48, dtype=dtype)
    for module, one_plus in ((llama.LlamaRMSNorm(48, 1e-5), False), (gemma.GemmaRMSNorm(48, 1e-5), True)):
        module.weight.data = w
        assert_close("norm", norm.rms_norm(x, w, 1e-5, one_plus), module(x), 1e-6 if dtype == torch.float32 else 8e-3)


def test_layer_norm():
    def naive(x, w, b):
        return (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt() * w + b

    check(lambda x, w, b: norm.layer_norm(x, w, b, 1e-5), naive, [normal(2, 3, 63), normal(63), normal(63)])


@pytest.mark.parametrize("group_size", [None, 12])
@pytest.mark.parametrize("norm_before_gate", [False, True])
def test_gated_rms_norm(group_size, norm_before_gate):
    def naive(x, z, w):
        y = x if norm_before_gate else x * F.silu(z)
        groups = y.split(group_size or y.shape[-1], -1)
        y = torch.cat([norm.reference(g, None, 1e-5) for g in groups], -1) * w
        return y * F.silu(z) if norm_before_gate else y

    def fast(x, z, w):
        return norm.gated_rms_norm(x, z, w, 1e-5, group_size, norm_before_gate)

    check(fast, naive, [normal(2, 3, 48), normal(2, 3, 48), normal(48)])


def test_activations():
    x = normal(50)
    assert torch.equal(activation.relu2(x), x.clamp(min=0) ** 2)
    assert_close("quick_gelu", activation.quick_gelu(x), x / (1 + (-1.702 * x).exp()))
    assert_close("softcap", activation.softcap(30 * x, 2.0), 2 * torch.tanh(15 * x))
    normal_cdf = torch.distributions.Normal(math.sqrt(0.5), math.sqrt(1 / (4 * math.pi))).cdf(x)
    assert_close("laplace", activation.laplace(x), normal_cdf, 1e-6)
    gate, up = 20 * normal(50), 20 * normal(50)
    wanted = gate.clamp(max=7) * torch.sigmoid(1.702 * gate.clamp(max=7)) * (up.clamp(-7, 7) + 1)
    assert_close("clamped_swiglu", activation.clamped_swiglu(gate, up), wanted)


@pytest.mark.parametrize("dim", [1, 8, 63])
def test_sinusoidal(dim):
    table = sinusoidal(torch.arange(20), dim)
    for p, c in ((0, 0), (7, dim - 1), (19, dim // 2)):
        angle = p * 10000.0 ** (-(c - c % 2) / dim)
        assert table[p, c].item() == pytest.approx(math.cos(angle) if c % 2 else math.sin(angle), abs=1e-5)


def test_sinusoidal_half_is_that_of_whisper():
    whisper = pytest.importorskip("transformers.models.whisper.modeling_whisper")
    assert_close("table", sinusoidal_half(torch.arange(50), 16), whisper.sinusoids(50, 16), 1e-5)


def test_sinusoidal_half_without_spacing_is_a_permutation_of_the_interleaved_table():
    table = sinusoidal(torch.arange(50).view(5, 10), 16)
    halves = torch.cat((table[..., ::2], table[..., 1::2]), -1)
    assert_close("table", sinusoidal_half(torch.arange(50).view(5, 10), 16, spacing=0), halves, 1e-5)
    assert (sinusoidal_half(torch.arange(5), 7)[:, -1] == 0).all()


def test_meta():
    x = torch.empty(2, 3, 8, device="meta", dtype=torch.bfloat16)
    assert norm.gated_rms_norm(x, x, x[0, 0], 1e-5, 4).dtype == torch.bfloat16
    assert sinusoidal(torch.arange(9, device="meta"), 6).shape == (9, 6)


def test_compile():
    x, z, w = torch.randn(2, 3, 8), torch.randn(2, 3, 8), torch.randn(8)
    compiles(lambda x, z, w: norm.gated_rms_norm(norm.rms_norm(x, w, 1e-5), z, w, 1e-5, 4), x, z, w)
    compiles(lambda p: sinusoidal(p, 8) + sinusoidal_half(p, 8), torch.arange(5), gradients=False)
