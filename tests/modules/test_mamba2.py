"""Mamba-2 against transformers' Mamba-2 with the same weights, and a naive float64 recurrence."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from mixer_checks import check_cache, check_compiles, check_flops, check_pieces, check_tensors, config, mixer, tokens
from torch import Tensor, nn
from transformers import Mamba2Config
from transformers.models.falcon_h1.modeling_falcon_h1 import FalconH1RMSNormGated
from transformers.models.mamba2.modeling_mamba2 import Mamba2ForCausalLM, Mamba2Mixer

from archspec.errors import SpecError
from archspec.layers.ops import Run
from archspec.layers.registry import find
from archspec.modules import submodule

EXAMPLES = [{"kind": "mamba2", **e} for e in find("mixer", "mamba2").examples]


def theirs_and_ours(n_groups: int, bias: bool, limit: tuple[float, float]) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    theirs = Mamba2Mixer(
        Mamba2Config(
            hidden_size=16, num_heads=8, head_dim=4, state_size=6, n_groups=n_groups, use_bias=bias, chunk_size=5,
            use_conv_bias=not bias, time_step_limit=limit, layer_norm_epsilon=1e-3,
        ), 0
    )  # fmt: skip
    for p in theirs.parameters():
        nn.init.normal_(p, std=0.5)
    low, high = limit
    fields = {"head_dim": 4, "d_state": 6, "n_groups": n_groups, "bias": bias, "conv_bias": not bias, "chunk": 4}
    limits = {"dt_limit_min": low, "dt_limit_max": None if high == float("inf") else high, "norm_eps": 1e-3}
    ours = submodule(config({"kind": "mamba2", **fields, **limits}))
    ours.load_state_dict(theirs.state_dict())
    return theirs.eval(), ours.eval()


@pytest.mark.parametrize(
    ("n_groups", "bias", "limit"),
    [(1, False, (0.0, float("inf"))), (4, True, (0.0, float("inf"))), (2, False, (0.4, 0.9))],
)
def test_is_transformers_mamba2(n_groups: int, bias: bool, limit: tuple[float, float]) -> None:
    theirs, ours = theirs_and_ours(n_groups, bias, limit)
    x = tokens(13).float()
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-5)


def naive(m: nn.Module, u: Tensor, head_dim: int, groups: int, norm: str, group_size: int) -> Tensor:
    """The recurrence of the paper's section 2, one token after another."""
    H, inner = m.A_log.numel(), m.A_log.numel() * head_dim
    z, x, dt = m.in_proj(u).split([inner, m.conv1d.in_channels, H], -1)
    taps, bias = m.conv1d.weight.squeeze(1), 0 if m.conv1d.bias is None else m.conv1d.bias
    x = F.silu(sum(w * F.pad(x, (0, 0, s, 0))[:, : x.shape[1]] for s, w in enumerate(taps.flip(1).T)) + bias)
    n = (x.shape[-1] - inner) // 2
    x, B, C = x.split([inner, n, n], -1)
    x, dt = x.unflatten(-1, (H, head_dim)), F.softplus(dt + m.dt_bias)
    B, C = (t.unflatten(-1, (groups, -1)).repeat_interleave(H // groups, 2) for t in (B, C))
    S, outputs = torch.zeros(*x[:, 0].shape, B.shape[-1], dtype=u.dtype), []
    for t in range(u.shape[1]):
        decay = torch.exp(-dt[:, t] * m.A_log.exp())[..., None, None]
        S = decay * S + (dt[:, t].unsqueeze(-1) * x[:, t]).unsqueeze(-1) * B[:, t].unsqueeze(-2)
        outputs.append((S @ C[:, t].unsqueeze(-1)).squeeze(-1) + m.D.unsqueeze(-1) * x[:, t])
    y, gate = torch.stack(outputs, 1).flatten(2), F.silu(z)
    if norm == "none":
        return m.out_proj(y * gate)
    y = (y if norm == "before_gate" else y * gate).unflatten(-1, (-1, group_size))
    y = (y / (y.square().mean(-1, keepdim=True) + m.norm.eps).sqrt()).flatten(2) * m.norm.weight
    return m.out_proj(y * gate if norm == "before_gate" else y)


@pytest.mark.parametrize("norm", ["after_gate", "before_gate", "none"])
def test_is_the_recurrence_with_its_gradients(norm: str) -> None:
    fields = {"kind": "mamba2", "head_dim": 4, "d_state": 3, "n_groups": 2, "norm_place": norm, "chunk": 8}
    m = mixer(fields if norm == "none" else {**fields, "norm_group_size": 8})
    nn.init.normal_(m.A_log, std=0.5)
    x, probe = tokens(21).requires_grad_(), tokens(21, seed=5)
    expected = naive(m, x, 4, 2, norm, 8)
    torch.testing.assert_close(m(x), expected, rtol=0, atol=1e-12)
    ours = torch.autograd.grad((m(x) * probe).sum(), [x, *m.parameters()])
    for one, other in zip(ours, torch.autograd.grad((expected * probe).sum(), [x, *m.parameters()]), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


def test_norm_before_gate_is_falcon_h1s() -> None:
    fields = {"kind": "mamba2", "head_dim": 4, "d_state": 3, "n_groups": 2}
    ours, plain = mixer({**fields, "norm_place": "before_gate"}), mixer({**fields, "norm_place": "none"})
    theirs = FalconH1RMSNormGated(32, eps=1e-5, n_groups=2, norm_before_gate=True)
    for m in (ours, plain):
        m.out_proj = nn.Identity()
    nn.init.normal_(ours.norm.weight)
    theirs.load_state_dict(ours.norm.state_dict())
    x = tokens(7)
    z = F.silu(plain.in_proj(x)[..., :32])
    expected = theirs((plain(x) / z).float(), plain.in_proj(x)[..., :32].float())
    torch.testing.assert_close(ours(x).float(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("fields", EXAMPLES)
def test_examples(fields: dict[str, Any]) -> None:
    c, m = config(fields), mixer(fields)
    check_tensors(c)
    check_pieces(m)
    check_cache(m, c)
    check_flops(c, T=2 * c.chunk)


def test_compiles() -> None:
    check_compiles(mixer(EXAMPLES[1]))


def test_initialisation_is_the_papers() -> None:
    torch.manual_seed(0)
    m = submodule(config({"kind": "mamba2", "d_inner": 1024, "head_dim": 1, "d_state": 2}))
    assert 1 <= m.A_log.exp().min() < 1.2
    assert 15.8 < m.A_log.exp().max() <= 16.001
    assert 0.001 <= F.softplus(m.dt_bias).min() < 0.0012
    assert 0.09 < F.softplus(m.dt_bias).max() <= 0.1001


def test_130m_has_the_published_size() -> None:
    ours = sum(p.numel for op in config({"kind": "mamba2"}, d_model=768).ops() for p in op.params)
    sizes = {"hidden_size": 768, "num_heads": 24, "n_groups": 1, "num_hidden_layers": 24, "vocab_size": 50288}
    with torch.device("meta"):
        theirs = Mamba2ForCausalLM(Mamba2Config(**sizes, tie_word_embeddings=True))
    assert 50288 * 768 + 24 * (ours + 768) + 768 == 128_989_632 == sum(p.numel() for p in theirs.parameters())


def test_flops_grow_with_the_chunk() -> None:
    at = [
        sum(op.flops(Run(T=256)) for op in config({"kind": "mamba2", "head_dim": 8, "chunk": n}).ops())
        for n in (32, 64)
    ]
    assert at[1] - at[0] == 2 * 32 * 256 * (128 + 32)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"head_dim": 8, "n_heads": 3}, "n_heads = 3 times head_dim = 8 must be d_inner = 32"),
        ({"head_dim": 8, "n_groups": 8}, "n_heads = 4 must be a multiple of n_groups = 8"),
        ({"head_dim": 8, "norm_group_size": 7}, "d_inner = 32 must be a multiple of norm_group_size = 7"),
        ({"head_dim": 8, "dt_limit_min": 1.0, "dt_limit_max": 0.5}, "dt_limit_min = 1.0 must not be greater"),
    ],
)
def test_refuses(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        config({"kind": "mamba2", **fields})
