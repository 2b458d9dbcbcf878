"""LSTM, GRU and RNN against torch.nn with the same weights and against their equations."""

from typing import Any

import pytest
import torch
from mixer_checks import check_cache, check_compiles, check_flops, check_pieces, check_tensors, config, mixer, tokens
from torch import Tensor, nn

from archspec.layers.registry import find
from archspec.modules import submodule

KINDS = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}
EXAMPLES = [{"kind": kind, **e} for kind in KINDS for e in find("mixer", kind).examples]


def named(fields: dict[str, Any]) -> str:
    return "-".join(str(v) for v in fields.values())


def torchs(fields: dict[str, Any]) -> nn.Module:
    """PyTorch's own module for the same settings."""
    more = {"nonlinearity": fields["nonlinearity"]} if "nonlinearity" in fields else {}
    return KINDS[fields["kind"]](
        16, fields.get("d_hidden", 16), fields.get("depth", 1), bias=fields.get("bias", True), batch_first=True,
        bidirectional=fields.get("bidirectional", False), **more,
    ).double()  # fmt: skip


@pytest.mark.parametrize("fields", EXAMPLES, ids=named)
def test_is_torchs_with_its_gradients(fields: dict[str, Any]) -> None:
    m, theirs = mixer(fields), torchs(fields)
    theirs.load_state_dict(getattr(m, fields["kind"]).state_dict())
    x, probe = tokens(9).requires_grad_(), tokens(9, seed=5)
    expected = theirs(x)[0]
    expected = m.out_proj(expected) if hasattr(m, "out_proj") else expected
    torch.testing.assert_close(m(x), expected, rtol=0, atol=1e-12)
    ours = torch.autograd.grad((m(x) * probe).sum(), [x, *getattr(m, fields["kind"]).values()])
    their = torch.autograd.grad((expected * probe).sum(), [x, *theirs.parameters()])
    for one, other in zip(ours, their, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def lstm_step(x: Tensor, h: Tensor, c: Tensor, w: list[Tensor]) -> tuple[Tensor, Tensor]:
    i, f, g, o = (x @ w[0].T + w[2] + h @ w[1].T + w[3]).chunk(4, -1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def gru_step(x: Tensor, h: Tensor, c: Tensor, w: list[Tensor]) -> tuple[Tensor, Tensor]:
    (xr, xz, xn), (hr, hz, hn) = (x @ w[0].T + w[2]).chunk(3, -1), (h @ w[1].T + w[3]).chunk(3, -1)
    z = (xz + hz).sigmoid()
    return (1 - z) * (xn + (xr + hr).sigmoid() * hn).tanh() + z * h, c


def rnn_step(x: Tensor, h: Tensor, c: Tensor, w: list[Tensor]) -> tuple[Tensor, Tensor]:
    return (x @ w[0].T + w[2] + h @ w[1].T + w[3]).tanh(), c


@pytest.mark.parametrize(("kind", "step"), [("lstm", lstm_step), ("gru", gru_step), ("rnn", rnn_step)])
def test_is_its_equations(kind: str, step: Any) -> None:
    m, x = mixer({"kind": kind}), tokens(9)
    h = c = torch.zeros(2, 16, dtype=torch.double)
    outputs = []
    for t in range(9):
        h, c = step(x[:, t], h, c, list(getattr(m, kind).values()))
        outputs.append(h)
    torch.testing.assert_close(m(x), torch.stack(outputs, 1), rtol=0, atol=1e-12)


@pytest.mark.parametrize("fields", EXAMPLES, ids=named)
def test_examples(fields: dict[str, Any]) -> None:
    c, m = config(fields), mixer(fields)
    check_tensors(c)
    check_flops(c)
    if fields.get("bidirectional"):
        assert c.arguments == ("mask",)
        x = tokens(9)
        assert not torch.equal(m(x)[:, 0], m(torch.cat((x[:, :8], -x[:, 8:]), 1))[:, 0])
    else:
        check_pieces(m)
        check_cache(m, c)


@pytest.mark.parametrize("fields", EXAMPLES, ids=named)
def test_compiles(fields: dict[str, Any]) -> None:
    check_compiles(mixer(fields), T=3)


def test_lstm_compiles_in_float32() -> None:
    """Where PyTorch would take the fused kernel of the CPU, which does not go through torch.compile."""
    m = mixer({"kind": "lstm"}).float()
    x = tokens(5).float()
    torch._dynamo.reset()
    compiled = torch.compile(m, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), m(x))
    compiled(x).sum().backward()


@pytest.mark.parametrize("kind", KINDS)
def test_dropout_acts_between_layers_in_training_only(kind: str) -> None:
    fields = {"kind": kind, "depth": 2}
    m, plain = mixer({**fields, "dropout": 0.5}), mixer(fields)
    x = tokens(9)
    assert torch.equal(m(x), plain(x))
    m.train()
    assert not torch.equal(m(x), m(x))


@pytest.mark.parametrize("kind", KINDS)
def test_initialisation_is_torchs(kind: str) -> None:
    torch.manual_seed(0)
    m = submodule(config({"kind": kind, "d_hidden": 64}))
    for weight in getattr(m, kind).values():
        assert 0.1 < weight.abs().max() <= 0.125


@pytest.mark.parametrize("kind", KINDS)
def test_doubts_dropout_without_layers_between(kind: str) -> None:
    assert [*config({"kind": kind, "dropout": 0.1}).doubts(None)] == [
        "dropout = 0.1 acts between layers, and depth is 1"
    ]
    assert not [*config({"kind": kind, "dropout": 0.1, "depth": 2}).doubts(None)]
