"""Mamba against transformers' Mamba, Falcon Mamba and Jamba with the same weights, and a naive float64 recurrence."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from mixer_checks import check_cache, check_compiles, check_flops, check_pieces, check_tensors, config, mixer, tokens
from torch import Tensor, nn
from transformers import FalconMambaConfig, JambaConfig, MambaConfig
from transformers.models.falcon_mamba.modeling_falcon_mamba import FalconMambaMixer
from transformers.models.jamba.modeling_jamba import JambaMambaMixer
from transformers.models.mamba.modeling_mamba import MambaForCausalLM, MambaMixer

from archspec.errors import SpecError
from archspec.layers.registry import find
from archspec.modules import submodule

EXAMPLES = [{"kind": "mamba", **e} for e in find("mixer", "mamba").examples]
OTHER_NAMES = {"dt_layernorm": "dt_norm", "b_layernorm": "b_norm", "c_layernorm": "c_norm"}


def same_weights(theirs: nn.Module, **fields: Any) -> nn.Module:
    """Our module with the weights of `theirs`, which get random values first."""
    torch.manual_seed(0)
    for p in theirs.parameters():
        nn.init.normal_(p, std=0.3)
    ours = submodule(config({"kind": "mamba", **fields}))
    weights = {".".join(OTHER_NAMES.get(w, w) for w in k.split(".")): v for k, v in theirs.state_dict().items()}
    ours.load_state_dict(weights)
    return ours.eval()


def agree(ours: nn.Module, theirs: nn.Module) -> None:
    x = tokens(9).float()
    torch.testing.assert_close(ours(x), theirs.eval()(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bias", [False, True])
def test_is_transformers_mamba(bias: bool) -> None:
    theirs = MambaMixer(MambaConfig(hidden_size=16, state_size=5, use_bias=bias, use_conv_bias=not bias), 0)
    agree(same_weights(theirs, d_state=5, bias=bias, conv_bias=not bias), theirs)


def test_is_transformers_falcon_mamba() -> None:
    theirs = FalconMambaMixer(
        FalconMambaConfig(hidden_size=16, state_size=6, mixer_rms_eps=1e-3), 0, initialize_mixer_weights=False
    )
    ours = same_weights(theirs, d_state=6, bcdt_norm={"kind": "rmsnorm", "weight": False, "eps": 1e-3})
    agree(ours, theirs)


def test_is_transformers_jamba() -> None:
    sizes = {"hidden_size": 16, "mamba_d_state": 6, "mamba_d_conv": 3, "mamba_expand": 3, "mamba_dt_rank": 5}
    theirs = JambaMambaMixer(JambaConfig(**sizes, rms_norm_eps=1e-3), 0)
    norm = {"kind": "rmsnorm", "eps": 1e-3}
    agree(same_weights(theirs, d_inner="3 * d_model", d_state=6, d_conv=3, dt_rank=5, bcdt_norm=norm), theirs)


def naive(m: nn.Module, u: Tensor) -> Tensor:
    """Algorithm 2 of the paper, one token after another, with the convolution as a sum of shifted inputs."""
    x, z = F.linear(u, m.in_proj.weight).chunk(2, -1)
    taps, rank, n = m.conv1d.weight.squeeze(1), m.dt_proj.in_features, m.A_log.shape[1]
    x = F.silu(sum(w * F.pad(x, (0, 0, s, 0))[:, : x.shape[1]] for s, w in enumerate(taps.flip(1).T)) + m.conv1d.bias)
    h, outputs = torch.zeros(u.shape[0], *m.A_log.shape, dtype=u.dtype), []
    for t in range(u.shape[1]):
        dt, B, C = F.linear(x[:, t], m.x_proj.weight).split([rank, n, n], -1)
        dt = F.softplus(m.dt_proj(dt)).unsqueeze(-1)
        h = torch.exp(-m.A_log.exp() * dt) * h + dt * B.unsqueeze(1) * x[:, t].unsqueeze(-1)
        outputs.append((h @ C.unsqueeze(-1)).squeeze(-1) + m.D * x[:, t])
    return F.linear(torch.stack(outputs, 1) * F.silu(z), m.out_proj.weight)


def test_is_the_recurrence_with_its_gradients() -> None:
    m = mixer({"kind": "mamba", "d_state": 4})
    x = tokens(21).requires_grad_()
    probe = tokens(21, seed=5)
    torch.testing.assert_close(m(x), naive(m, x), rtol=0, atol=1e-12)
    ours = torch.autograd.grad((m(x) * probe).sum(), [x, *m.parameters()])
    theirs = torch.autograd.grad((naive(m, x) * probe).sum(), [x, *m.parameters()])
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


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


def test_initialisation_is_the_papers() -> None:
    torch.manual_seed(0)
    m = submodule(config({"kind": "mamba", "d_inner": 512, "dt_rank": 4, "dt_scale": 0.5}))
    torch.testing.assert_close(-m.A_log.exp(), -torch.arange(1.0, 17.0).expand(512, 16))
    steps = F.softplus(m.dt_proj.bias)
    assert 0.001 <= steps.min() < 0.0012
    assert 0.08 < steps.max() <= 0.1001
    assert 0.24 < m.dt_proj.weight.abs().max() <= 0.25
    torch.testing.assert_close(m.D, torch.ones(512))


def test_130m_has_the_published_size() -> None:
    c = find("mixer", "mamba").model_validate(config({"kind": "mamba"}, d_model=768).model_dump())
    ours = sum(p.numel for op in c.ops() for p in op.params)
    with torch.device("meta"):
        theirs = MambaForCausalLM(MambaConfig(num_hidden_layers=24, vocab_size=50280))
    total = 50280 * 768 + 24 * (ours + 768) + 768
    assert total == 129_135_360 == sum(p.numel() for p in theirs.parameters())


def test_refuses_an_empty_range() -> None:
    with pytest.raises(SpecError, match=r"dt_min = 0\.2 must not be greater than dt_max = 0\.1"):
        config({"kind": "mamba", "dt_min": 0.2})
