from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from kernel_checks import assert_close, check, compiles, faces, is_an_operator, normal, pieces
from torch.utils.flop_counter import FlopCounterMode

from archspec.kernels.convolutions import short_conv as family
from archspec.kernels.convolutions.short_conv import convolve, short_conv

ARGUMENTS = ("x", "weight", "bias", "gate_in", "gate_out")


@pytest.mark.parametrize("sizes", family.EXAMPLES)
@pytest.mark.parametrize("activation", [None, "silu"])
def test_every_size_in_pytorch(sizes, activation):
    tensors = list(family.example(**sizes).values())

    def fast(x, weight, bias, gate_in=None, gate_out=None):
        return short_conv(x, weight, bias, activation, gate_in=gate_in, gate_out=gate_out)

    def reference(*given):
        return family.reference(*given, activation=activation)

    for given in (tensors, tensors[:3], [*tensors[:2], None], [*tensors[:2], None, None, tensors[4]]):
        check(fast, reference, given)


@faces("torch", "triton")
@pytest.mark.parametrize(
    ("T", "D", "K", "given", "silu"),
    [
        (35, 5, 4, "x weight bias", True),
        (35, 70, 2, "x weight gate_in gate_out", False),
        (1, 3, 3, "x weight bias gate_out tail", True),
        (2, 3, 8, "x weight bias gate_in gate_out tail", True),
        (300, 2, 3, "x weight gate_in tail", False),
        (7, 3, 1, "x weight tail", False),
    ],
)
def test_every_combination_of_arguments(face, T, D, K, given, silu):
    tensors = {**family.example(2, T, D, K), "tail": normal(2, K - 1, D)}
    chosen = [tensors[name] if name in given.split() else None for name in (*ARGUMENTS, "tail")]
    check(
        lambda *t: convolve(*t, silu),
        lambda *t: family.reference(*t, activation="silu" if silu else None),
        chosen,
        face,
    )


@faces("triton")
def test_numbers_that_are_none_spread_as_they_should(face):
    """To the outputs that see them, and no further."""
    x, weight = torch.randn(1, 40, 3, device=face.device), torch.randn(3, 1, 4, device=face.device)
    x[0, 20, 1] = torch.nan
    y = convolve(x, weight, None, None, None, None, True)
    assert torch.equal(y[0].isnan().nonzero().cpu(), torch.tensor([[t, 1] for t in range(20, 24)]))


def test_against_nn_conv1d():
    x = normal(2, 50, 6).requires_grad_()
    conv = torch.nn.Conv1d(6, 6, 4, groups=6, padding=3, dtype=torch.float64)
    theirs = F.silu(conv(x.mT)[..., :50].mT)
    ours = short_conv(x, conv.weight, conv.bias, "silu")
    assert_close("y", ours, theirs)
    cotangent, leaves = torch.randn_like(ours), (x, conv.weight, conv.bias)
    for got, wanted in zip(*(torch.autograd.grad(y, leaves, cotangent) for y in (ours, theirs)), strict=True):
        assert_close("gradient", got, wanted)


def test_against_lfm2():
    modeling = pytest.importorskip("transformers.models.lfm2.modeling_lfm2")
    config = modeling.Lfm2Config(hidden_size=8, conv_L_cache=3, conv_bias=True)
    layer = modeling.Lfm2ShortConv(config, layer_idx=0).double().requires_grad_(False)
    x = normal(2, 20, 8)
    b, c, u = layer.in_proj(x).chunk(3, dim=-1)
    ours = layer.out_proj(short_conv(u, layer.conv.weight, layer.conv.bias, gate_in=b, gate_out=c))
    assert_close("y", ours, layer(x))


@pytest.mark.parametrize(("K", "activation", "gated"), [(1, None, False), (4, "silu", False), (3, None, True)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_in_pieces(K, activation, gated, dtype):
    x, w, b, i, o = (t.to(dtype) for t in family.example(2, 19, 6, K).values())

    def run(part, state):
        gates = {"gate_in": i[:, part], "gate_out": o[:, part]} if gated else {}
        return short_conv(x[:, part], w, b, activation, state, **gates)

    whole = run(slice(None), None)
    for cuts in pieces(19):
        state = {}
        assert_close(
            "pieces", torch.cat([run(c, state) for c in cuts], 1), whole, 1e-11 if dtype.itemsize == 8 else 2e-2
        )
        assert_close("state", state["conv"], (x * i if gated else x)[:, 20 - K :], 1e-2)
        assert state["conv"].untyped_storage().nbytes() == state["conv"].numel() * state["conv"].itemsize


def test_gradients_flow_through_the_state():
    x, w, b, i, o = (t.requires_grad_() for t in family.example(2, 9, 3).values())
    state = {}
    parts = [
        short_conv(x[:, c], w, b, "silu", state, i[:, c], o[:, c]) for c in (slice(0, 2), slice(2, 3), slice(3, 9))
    ]
    cotangent = normal(2, 9, 3)
    got = torch.autograd.grad(torch.cat(parts, 1), (x, w, b, i, o), cotangent)
    wanted = torch.autograd.grad(family.reference(x, w, b, i, o, activation="silu"), (x, w, b, i, o), cotangent)
    for ours, theirs in zip(got, wanted, strict=True):
        assert_close("gradient", ours, theirs)


def test_any_layout_and_mixed_types():
    x, w, b, *_ = family.example(2, 20, 6).values()
    turned = x.transpose(0, 2).contiguous().transpose(0, 2)
    assert_close("y", short_conv(turned, w.expand(6, 1, 4), b), family.reference(x, w, b))
    mixed = short_conv(x.bfloat16(), w.float(), b)
    assert mixed.dtype == torch.bfloat16
    assert_close("mixed", mixed, family.reference(x.bfloat16(), w, b), 1e-2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight": torch.zeros(5, 1, 4)}, "short_conv: weight has shape (5, 1, 4), expected (D 1 K) with D = 6"),
        ({"weight": torch.zeros(6, 2, 4)}, "short_conv: weight has shape (6, 2, 4), expected (D 1 K) with D = 6"),
        ({"bias": torch.zeros(1, 6)}, "short_conv: bias has shape (1, 6), expected 1 axes (D)"),
        (
            {"gate_in": torch.zeros(2, 8, 6)},
            "short_conv: gate_in has shape (2, 8, 6), expected (B T D) with B = 2, T = 9, D = 6",
        ),
        (
            {"state": {"conv": torch.zeros(3, 3, 6)}},
            "short_conv: conv has shape (3, 3, 6), expected (B 3 D) with B = 2, D = 6",
        ),
        ({"activation": "relu"}, "short_conv: activation is 'relu', expected one of None, 'silu'"),
    ],
)
def test_contract(change, message):
    with pytest.raises(ValueError) as error:
        short_conv(**{"x": torch.zeros(2, 9, 6), "weight": torch.zeros(6, 1, 4), **change})
    assert str(error.value) == message


def test_is_an_operator():
    tensors = [t.requires_grad_() for t in family.example(2, 9, 3).values()]
    is_an_operator(convolve, *tensors, normal(2, 3, 3), True)
    is_an_operator(convolve, *tensors[:2], None, None, None, None, False)


def test_compile():
    x, w, b, i, o = (t.float() for t in family.example(2, 30, 5).values())
    compiles(lambda x, w, b: short_conv(x, w, b, "silu"), x, w, b)
    compiles(lambda x, w, i, o: short_conv(x, w, None, None, {}, i, o), x, w, i, o)


def test_meta():
    x, w = torch.empty(2, 9, 5, device="meta", dtype=torch.bfloat16), torch.empty(5, 1, 4, device="meta")
    assert short_conv(x, w).shape == x.shape


@pytest.mark.parametrize("T", [1, 33])
def test_flops_are_those_of_a_depthwise_convolution(T):
    tensors = family.example(2, T, 6)
    x, w = (tensors[name].requires_grad_() for name in ("x", "weight"))
    with FlopCounterMode(display=False) as ours:
        y = short_conv(x, w, None, "silu", {} if T == 1 else None)
    with FlopCounterMode(display=False) as theirs:
        z = F.conv1d(F.pad(x, (0, 0, 3, 0)).mT, w, groups=6)
    assert ours.get_total_flops() == theirs.get_total_flops() == 2 * 2 * T * 6 * 4
    with FlopCounterMode(display=False) as ours:
        y.sum().backward()
    assert ours.get_total_flops() == 2 * theirs.get_total_flops() or T == 1
    assert z.shape == (2, 6, T)


def test_backward_recomputes_rather_than_keeps():
    tensors = [t.requires_grad_() for t in family.example(2, 64, 8).values()]
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.data_ptr()), lambda t: t):
        short_conv(*tensors[:3], "silu", None, *tensors[3:])
    assert sorted(kept) == sorted(t.data_ptr() for t in tensors)


def test_large_widths_are_summed_in_parts(monkeypatch):
    """The gradient of the taps, with chunks of every kind: of several sequences, of one, of a token."""
    for cached in (1, 40, 200, 10_000):
        monkeypatch.setattr(family, "CACHED", cached)
        check(
            convolve_plain,
            family.reference,
            list(family.example(3, 13, 6).values())[:3],
            SimpleNamespace(name="torch", dtypes=(torch.float64,), device="cpu"),
        )


def convolve_plain(x, weight, bias):
    return convolve(x, weight, bias, None, None, None, False)
