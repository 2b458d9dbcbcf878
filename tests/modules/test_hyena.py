"""Hyena against its definition in naive float64 convolutions, its published sizes, and itself in pieces."""

from math import log, pi
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from mixer_checks import check_cache, check_compiles, check_flops, check_pieces, check_tensors, config, mixer, tokens
from torch import Tensor, nn

from archspec.errors import SpecError
from archspec.layers.ops import FFTConv, Run
from archspec.layers.registry import find
from archspec.modules import submodule

EXAMPLES = [{"kind": "hyena", **e} for e in find("mixer", "hyena").examples]


def naive_filter(m: nn.Module, length: int, emb_dim: int, shift: float, width: int) -> Tensor:
    """All taps (length, width), position features by complex exponentials and decays as in the paper's appendix."""
    t = torch.linspace(0, 1, length, dtype=torch.double).unsqueeze(-1)
    bands = (emb_dim - 1) // 2
    f = torch.linspace(1e-4, bands - 1, bands, dtype=torch.double)
    z = torch.exp(-1j * f * 2 * pi * torch.arange(length, dtype=torch.double).unsqueeze(-1) / length)
    h = torch.cat((t, z.real, z.imag), -1)
    for layer in (m.filter_in, *m.filter_inner):
        h = torch.sin(m.freq * layer(h))
    slowest, fastest = log(0.01) / 1.5, log(0.01) / 0.3
    rates = torch.linspace(slowest, fastest, width, dtype=torch.double).abs()
    return m.filter_out(h) * (torch.exp(-t * rates) + shift)


def causal(u: Tensor, taps: Tensor) -> Tensor:
    """sum_s taps[s] u[t - s], term by term; u (B, T, D), taps (>= T, D)."""
    return torch.stack([sum(taps[s] * u[:, t - s] for s in range(t + 1)) for t in range(u.shape[1])], 1)


def naive(m: nn.Module, u: Tensor, order: int, taps: Tensor) -> Tensor:
    """The recurrence of the paper's definition 3.1, with the order of gates of the published code."""
    width = m.out_proj.in_features
    short = [F.pad(m.short_filter.weight[:, 0].T, (0, 0, u.shape[1], 0)).flip(0)][0]
    z = causal(m.in_proj(u), short) + m.short_filter.bias
    *gates, v = z.split(width, -1)
    for i, gate in enumerate(reversed(gates[1:])):
        part = slice(i * width, (i + 1) * width)
        v = v * gate
        v = causal(v, taps[:, part]) + m.filter_bias[part] * v
    return m.out_proj(v * gates[0])


@pytest.mark.parametrize(("order", "inner", "emb_dim", "shift"), [(2, 2, 3, 0.0), (3, 1, 5, 0.05), (4, 0, 7, -0.1)])
def test_is_the_definition_with_its_gradients(order: int, inner: int, emb_dim: int, shift: float) -> None:
    sizes = {"order": order, "num_inner_mlps": inner, "emb_dim": emb_dim, "filter_order": 8, "decay_shift": shift}
    m = mixer({"kind": "hyena", **sizes, "sine_freq": 3.0})
    x, probe = tokens(19).requires_grad_(), tokens(19, seed=5)
    expected = naive(m, x, order, naive_filter(m, 32, emb_dim, shift, 16 * (order - 1)))
    torch.testing.assert_close(m(x), expected, rtol=0, atol=1e-10)
    ours = torch.autograd.grad((m(x) * probe).sum(), [x, *m.parameters()])
    for one, other in zip(ours, torch.autograd.grad((expected * probe).sum(), [x, *m.parameters()]), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-9)


@pytest.mark.parametrize("fields", EXAMPLES)
def test_examples(fields: dict[str, Any]) -> None:
    c, m = config(fields), mixer(fields)
    check_tensors(c)
    check_flops(c)
    check_pieces(m)
    check_cache(m, c)


@pytest.mark.parametrize("fields", EXAMPLES[:2])
def test_compiles(fields: dict[str, Any]) -> None:
    check_compiles(mixer(fields))


def test_trained_positions_and_decays_start_at_the_formulas() -> None:
    fixed = {"kind": "hyena", "filter_order": 8, "decay_shift": 0.05}
    plain, trained = mixer(fixed), mixer({**fixed, "train_positions": True, "train_decay": True})
    missing = trained.load_state_dict(plain.state_dict(), strict=False).missing_keys
    assert missing == ["positions", "decay"]
    torch.testing.assert_close(plain(tokens(9)), trained(tokens(9)), rtol=0, atol=1e-6)


def test_a_filter_has_decayed_where_the_settings_say() -> None:
    m = mixer({"kind": "hyena", "filter_order": 4, "filter_len": 101, "fast_decay_pct": 0.2, "slow_decay_pct": 0.5})
    plain = mixer({"kind": "hyena", "filter_order": 4, "filter_len": 101, "modulate": False})
    plain.load_state_dict(m.state_dict())
    decay = m.filters(101) / plain.filters(101)
    expected = torch.tensor([0.01, 0.01], dtype=torch.double)
    torch.testing.assert_close(torch.stack((decay[50, 0], decay[20, -1])), expected)


def test_decoding_holds_the_filters_and_says_so() -> None:
    c = config({"kind": "hyena", "order": 3, "filter_len": 40})
    assert sum(k.fixed() for op in c.ops() for k in op.kept if k.dtype == "float32") == 2 * 40 * 16
    state: dict[str, Any] = {}
    submodule(c).bfloat16()(tokens(3).bfloat16(), state=state)
    assert (state["filters"].numel(), state["filters"].dtype) == (2 * 40 * 16, torch.float32)


def test_refuses_more_tokens_than_taps() -> None:
    m = mixer({"kind": "hyena", "filter_order": 4})
    state: dict[str, Any] = {}
    m(tokens(32), state=state)
    for given, length in ((None, 33), (state, 1)):
        with pytest.raises(ValueError, match="a sequence of 33 tokens is longer than the filters; filter_len = 32"):
            m(tokens(length), state=given)


def test_refuses_features_that_are_no_pairs() -> None:
    with pytest.raises(SpecError, match="emb_dim = 4 must be odd and at least 3"):
        config({"kind": "hyena", "emb_dim": 4})


def parameters(fields: dict[str, Any], d_model: int) -> int:
    return sum(p.numel for op in config({"kind": "hyena", **fields}, d_model).ops() for p in op.params)


def test_hyenadna_tiny_has_its_published_size() -> None:
    """436K (HyenaDNA, table A.1): 2 layers of width 128, d_ff 512 with biases, 16 tokens, tied head."""
    mixer_size = parameters({"emb_dim": 5, "filter_order": 64, "filter_len": 1026, "sine_freq": 10.0}, 128)
    block = mixer_size + 2 * 128 * 512 + 512 + 128 + 2 * 2 * 128
    assert (mixer_size, 16 * 128 + 2 * block + 2 * 128) == (84_672, 436_096)


def test_hyena_small_has_its_published_size() -> None:
    """153M (Poli et al., table 4.3): 18 layers of width 864, d_ff 1728 with biases, 50264 tokens, tied head."""
    mixer_size = parameters({"emb_dim": 33, "filter_len": 2048, "train_positions": True, "sine_freq": 14.0}, 864)
    block = mixer_size + 2 * 864 * 1728 + 1728 + 864 + 2 * 2 * 864
    assert 50264 * 864 + 18 * block + 2 * 864 == 153_700_416


def test_long_convolutions_cost_t_log_t() -> None:
    convs = [op for op in config({"kind": "hyena", "order": 3}).ops() if isinstance(op, FFTConv)]
    assert len(convs) == 2
    assert 2 < convs[0].flops(Run(T=2048)) / convs[0].flops(Run(T=1024)) < 2.2


def test_bfloat16_filters_tell_positions_apart() -> None:
    torch.manual_seed(0)
    m = submodule(config({"kind": "hyena", "filter_len": 4096, "modulate": False, "sine_freq": 14.0})).bfloat16()
    taps = m.filters(4096)
    assert taps.dtype == torch.float32
    assert (taps[1:] != taps[:-1]).any(-1).all()
