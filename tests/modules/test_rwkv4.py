"""RWKV-4 against transformers' with the same weights, its recurrence as it is written down, and its initial values."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from mixer_checks import (
    D_MODEL,
    MAX_SEQ_LEN,
    check_cache,
    check_compiles,
    check_flops,
    check_pieces,
    check_tensors,
    tokens,
)
from torch import Tensor, nn
from transformers import RwkvConfig
from transformers.models.rwkv.modeling_rwkv import RwkvFeedForward, RwkvModel, RwkvSelfAttention

from archspec.codegen.load import build
from archspec.language.load import load
from archspec.language.resolve import make
from archspec.layers.base import Component
from archspec.layers.registry import find
from archspec.modules import submodule
from archspec.modules.model import eager

TIME, CHANNEL = ("mixer", "rwkv4"), ("ffn", "rwkv4_channel_mix")
EXAMPLES = [(*kind, settings) for kind in (TIME, CHANNEL) for settings in find(*kind).examples]
each = pytest.mark.parametrize(("role", "kind", "settings"), EXAMPLES)
both = pytest.mark.parametrize(("kind", "cls"), [(TIME, RwkvSelfAttention), (CHANNEL, RwkvFeedForward)])


def part(kind: tuple[str, str], settings: dict[str, Any] | None = None, n_layers: int = 4) -> Component:
    role, name = kind
    fields = {"kind": name, **(settings or {})}
    return make(role, fields, d_model=D_MODEL, vocab_size=11, max_seq_len=MAX_SEQ_LEN, n_layers=n_layers)


def module(c: Component, seed: int = 0) -> nn.Module:
    """In float64, its own tensors away from where they start."""
    torch.manual_seed(seed)
    m = submodule(c, 1).double().eval()
    for p in m.parameters():
        if p.dim() == 1:
            nn.init.normal_(p)
    return m


def same_weights(cls: type[nn.Module], ours: nn.Module) -> nn.Module:
    """The library's module with the weights of ours."""
    sizes = {"hidden_size": D_MODEL, "attention_hidden_size": 24, "intermediate_size": 24, "num_hidden_layers": 4}
    theirs = cls(RwkvConfig(**sizes), layer_id=1).double()
    own = dict(ours.named_parameters())
    names = {"out_proj.weight": "output.weight"}
    for x in ("key", "value", "receptance"):
        names |= {f"{x[0]}_proj.weight": f"{x}.weight", f"time_mix_{x[0]}": f"time_mix_{x}"}
    found = {names.get(name, name): p.detach() for name, p in own.items()}
    theirs.load_state_dict({n: p.view(1, 1, -1) if n.startswith("time_mix") else p for n, p in found.items()})
    return theirs


def gradients(m: nn.Module, y: Tensor, x: Tensor) -> list[Tensor]:
    """Those of the input, and of all parameters by size and value, whatever they are called."""
    probe = tokens(y.shape[1], seed=5).to(y.dtype)
    found = torch.autograd.grad((y * probe).sum(), [x, *m.parameters()])
    return [found[0], *sorted((g.flatten() for g in found[1:]), key=lambda g: (len(g), float(g.sum())))]


@both
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)], ids=str)
def test_is_transformers(
    kind: tuple[str, str],
    cls: type[nn.Module],
    dtype: torch.dtype,
    tolerance: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if dtype == torch.float64:  # its keys, which it takes to float32
        monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    ours = module(part(kind, {"d_inner": 24} if kind == TIME else {"d_ff": 24}))
    theirs = same_weights(cls, ours).to(dtype)
    ours, x = ours.to(dtype), tokens(21).to(dtype).requires_grad_()
    y, (wanted, _) = ours(x), theirs(x)
    assert wanted.abs().max() > 0.1
    torch.testing.assert_close(y, wanted, rtol=tolerance, atol=tolerance)
    for a, b in zip(gradients(ours, y, x), gradients(theirs, wanted, x), strict=True):
        torch.testing.assert_close(a, b, rtol=10 * tolerance, atol=10 * tolerance)


def naive(m: nn.Module, x: Tensor) -> Tensor:
    """Equations 11 to 16 of the paper, every average as the sum that it is."""
    before = F.pad(x, (0, 0, 1, 0))[:, :-1]
    k, v, r = (
        F.linear(mu * x + (1 - mu) * before, p.weight)
        for mu, p in ((m.time_mix_k, m.k_proj), (m.time_mix_v, m.v_proj), (m.time_mix_r, m.r_proj))
    )
    w, outputs = m.time_decay.exp(), []
    for t in range(x.shape[1]):
        age = torch.arange(t - 1, -1, -1).unsqueeze(1)  # (t, 1)
        weights = torch.cat((torch.exp(k[:, :t] - age * w), torch.exp(m.time_first + k[:, t : t + 1])), dim=1)
        outputs.append((weights * v[:, : t + 1]).sum(1) / weights.sum(1))
    return F.linear(torch.sigmoid(r) * torch.stack(outputs, dim=1), m.out_proj.weight)


def test_is_the_average_of_the_paper_with_its_gradients() -> None:
    m, x = module(part(TIME)), tokens(21).requires_grad_()
    torch.testing.assert_close(m(x), naive(m, x), rtol=0, atol=1e-12)
    for one, other in zip(gradients(m, m(x), x), gradients(m, naive(m, x), x), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


@each
def test_examples(role: str, kind: str, settings: dict[str, Any]) -> None:
    c = part((role, kind), settings)
    m = module(c)
    check_tensors(c)
    check_flops(c)
    check_pieces(m)
    check_cache(m, c)


@pytest.mark.parametrize("kind", [TIME, CHANNEL])
def test_compiles(kind: tuple[str, str]) -> None:
    check_compiles(module(part(kind)))


@pytest.mark.parametrize("kind", [TIME, CHANNEL])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@torch.no_grad()
def test_autocast_takes_either_type(kind: tuple[str, str], dtype: torch.dtype) -> None:
    m, x = module(part(kind)).float(), tokens(9).float()
    wanted, given = m(x), x.to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        assert (m(given) - wanted).abs().max() < 0.03 * wanted.abs().max()


def own(m: nn.Module) -> dict[str, Tensor]:
    """The tensors that it holds itself, by the names of the library."""
    names = {"time_mix_k": "time_mix_key", "time_mix_v": "time_mix_value", "time_mix_r": "time_mix_receptance"}
    return {names.get(name, name): p.detach().flatten() for name, p in m.named_parameters(recurse=False)}


def test_starts_as_transformers_does() -> None:
    sizes = {"hidden_size": D_MODEL, "attention_hidden_size": 24, "intermediate_size": 24, "num_hidden_layers": 4}
    theirs = RwkvModel(RwkvConfig(**sizes, vocab_size=11))
    for i, block in enumerate(theirs.blocks):
        time, channel = part(TIME, {"d_inner": 24}), part(CHANNEL, {"d_ff": 24})
        ours, wanted = own(submodule(time, i)), own(block.attention)
        # The authors' code adds steps of a half to log(0.3); the library puts both inside a ones_like, which gives 1.
        assert (wanted.pop("time_first") == 1).all()
        steps = [math.log(0.3) + 0.5 * ((h + 1) % 3 - 1) for h in range(24)]
        torch.testing.assert_close(ours.pop("time_first"), torch.tensor(steps))
        torch.testing.assert_close(ours, wanted)
        torch.testing.assert_close(own(submodule(channel, i)), own(block.feed_forward))


def test_layers_of_a_model_start_by_their_depth() -> None:
    blocks = [{"repeat": 2, "mixer": "rwkv4", "ffn": "rwkv4_channel_mix"}, {"mixer": "rwkv4"}]
    spec = load({"name": "one", "d_model": D_MODEL, "vocab_size": 11, "max_seq_len": 8, "blocks": blocks, "head": "lm"})
    for model in (eager(spec), build(spec)):
        for i, block in enumerate(model.blocks):
            alone = own(submodule(part(TIME, n_layers=3), i))
            torch.testing.assert_close(own(block.mixer), alone, rtol=0, atol=0)
        assert not torch.equal(model.blocks[0].ffn.time_mix_k, model.blocks[1].ffn.time_mix_k)


@pytest.mark.parametrize("kind", [TIME, CHANNEL])
def test_a_single_layer_is_the_first(kind: tuple[str, str]) -> None:
    torch.testing.assert_close(own(submodule(part(kind, n_layers=1), 0)), own(submodule(part(kind, n_layers=9), 0)))


@pytest.mark.parametrize(("ffn", "told"), [("mlp", 1), ("rwkv4_channel_mix", 0)])
def test_its_channel_mixing_tells_the_order_of_tokens(ffn: str, told: int) -> None:
    block = {"mixer": {"kind": "attention", "n_heads": 2}, "ffn": ffn}
    sizes = {"name": "one", "d_model": D_MODEL, "vocab_size": 11, "max_seq_len": 8, "mask": "bidirectional"}
    spec = load({**sizes, "blocks": [block], "head": "masked_lm"})
    assert sum("nothing tells the order" in w.message for w in spec.warnings) == told
