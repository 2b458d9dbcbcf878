"""Plain and gated feed-forward networks against torch.nn, transformers and their equations."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import GPT2Config, LlamaConfig
from transformers.models.gpt2.modeling_gpt2 import GPT2MLP
from transformers.models.llama.modeling_llama import LlamaMLP

from archspec.errors import SpecError
from archspec.language.resolve import make
from archspec.layers.ops import Run
from archspec.layers.registry import find
from archspec.modules import submodule

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": nn.ReLU(),
    "gelu": nn.GELU(),
    "gelu_tanh": nn.GELU(approximate="tanh"),
    "silu": nn.SiLU(),
    "relu2": lambda x: torch.where(x > 0, x * x, 0 * x),
    "tanh": nn.Tanh(),
    "sigmoid": nn.Sigmoid(),
    "identity": nn.Identity(),
}
PLAIN = ("relu", "gelu", "gelu_tanh", "silu", "relu2", "tanh")
GATED = ("silu", "gelu", "gelu_tanh", "relu", "relu2", "sigmoid", "identity")
CASES = [(kind, e) for kind in ("mlp", "gated_mlp") for e in find("ffn", kind).examples]


def module(kind: str, **fields: object) -> nn.Module:
    torch.manual_seed(0)
    return submodule(make("ffn", {"kind": kind, **fields}, d_model=16)).double()


@pytest.mark.parametrize("activation", PLAIN)
def test_mlp_is_its_equation(activation: str) -> None:
    m = module("mlp", d_ff=24, activation=activation, bias=True)
    naive = nn.Sequential(m.up_proj, nn.Identity(), m.down_proj)
    x = torch.randn(2, 5, 16, dtype=torch.double)
    torch.testing.assert_close(m(x), naive[2](ACTIVATIONS[activation](naive[0](x))), rtol=0, atol=0)


@pytest.mark.parametrize("activation", GATED)
def test_gated_mlp_is_its_equation(activation: str) -> None:
    m = module("gated_mlp", d_ff=24, activation=activation, bias=True)
    x = torch.randn(2, 5, 16, dtype=torch.double)
    hidden = ACTIVATIONS[activation](m.gate_proj(x)) * m.up_proj(x)
    torch.testing.assert_close(m(x), m.down_proj(hidden), rtol=0, atol=0)


def test_glu_is_torchs() -> None:
    m = module("gated_mlp", d_ff=24, activation="sigmoid")
    x = torch.randn(2, 5, 16, dtype=torch.double)
    torch.testing.assert_close(m(x), m.down_proj(F.glu(torch.cat((m.up_proj(x), m.gate_proj(x)), -1))))


def test_mlp_is_gpt2s() -> None:
    hf = GPT2MLP(64, GPT2Config(n_embd=16, resid_pdrop=0.0)).double()
    m = module("mlp", activation="gelu_tanh", bias=True)
    with torch.no_grad():
        for ours, theirs in ((m.up_proj, hf.c_fc), (m.down_proj, hf.c_proj)):
            ours.weight.copy_(theirs.weight.T)  # GPT-2 keeps (d_in, d_out)
            ours.bias.copy_(theirs.bias.normal_())
    x = torch.randn(2, 5, 16, dtype=torch.double)
    torch.testing.assert_close(m(x), hf(x))


def test_gated_mlp_is_llamas() -> None:
    hf = LlamaMLP(LlamaConfig(hidden_size=16, intermediate_size=24, num_attention_heads=2)).double()
    m = module("gated_mlp", d_ff=24)
    m.load_state_dict(hf.state_dict())
    x = torch.randn(2, 5, 16, dtype=torch.double)
    torch.testing.assert_close(m(x), hf(x), rtol=0, atol=0)


def test_widths_are_derived() -> None:
    assert make("ffn", {"kind": "mlp"}, d_model=16).d_ff == 64
    assert make("ffn", {"kind": "gated_mlp"}, d_model=4096).d_ff == 11008  # Llama 2 7B


@pytest.mark.parametrize("kind", ["mlp", "gated_mlp"])
def test_dropout_drops_hidden_units_in_training_only(kind: str) -> None:
    m = module(kind, d_ff=4000, dropout=0.25, activation="relu2")
    x = torch.randn(1, 1, 16, dtype=torch.double)
    seen: list[Tensor] = []
    m.down_proj.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    m.eval()(x)
    m.train()(x)
    whole, dropped = seen
    alive = whole != 0
    kept = (dropped != 0) & alive
    assert abs(kept.sum() / alive.sum() - 0.75) < 0.04
    torch.testing.assert_close(dropped[kept], whole[kept] / 0.75)


@pytest.mark.parametrize(("kind", "fields"), CASES)
def test_ops_are_the_module(kind: str, fields: dict[str, object]) -> None:
    c = make("ffn", {"kind": kind, **fields}, d_model=16)
    with torch.device("meta"):
        m = submodule(c)
    assert [(p.name, p.shape) for op in c.ops() for p in op.params] == [
        (n, tuple(p.shape)) for n, p in m.named_parameters()
    ]
    with FlopCounterMode(display=False) as counter:
        m(torch.empty(2, 3, 16, device="meta"))
    assert sum(op.flops(Run(B=2, T=3, S=3)) for op in c.ops()) == counter.get_total_flops()


@pytest.mark.parametrize("kind", ["mlp", "gated_mlp"])
def test_compiles(kind: str) -> None:
    m = module(kind, d_ff=24, bias=True)
    x = torch.randn(2, 5, 16, dtype=torch.double)
    torch.testing.assert_close(torch.compile(m, fullgraph=True)(x), m(x))


def test_refuses_an_unknown_activation() -> None:
    with pytest.raises(SpecError, match="activation = 'swish' must be one of relu, gelu"):
        make("ffn", {"kind": "mlp", "activation": "swish"}, d_model=16)
