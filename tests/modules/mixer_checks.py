"""What every recurrent mixer must do, whatever it computes: used by the tests of single kinds."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from archspec.language.resolve import make
from archspec.layers.base import Component
from archspec.layers.ops import Run
from archspec.modules import by_itself, submodule

D_MODEL, MAX_SEQ_LEN = 16, 32


def config(fields: dict[str, Any], d_model: int = D_MODEL, max_seq_len: int = MAX_SEQ_LEN) -> Component:
    return make("mixer", fields, d_model=d_model, vocab_size=11, max_seq_len=max_seq_len)


def mixer(fields: dict[str, Any], seed: int = 0, d_model: int = D_MODEL) -> nn.Module:
    torch.manual_seed(seed)
    return submodule(config(fields, d_model)).double().eval()


def tokens(T: int, B: int = 2, d_model: int = D_MODEL, seed: int = 1) -> Tensor:
    return torch.randn(B, T, d_model, dtype=torch.double, generator=torch.Generator().manual_seed(seed))


def check_tensors(c: Component) -> None:
    """Names, shapes and order of `ops()` are those of the module; the flow leads from op to op."""
    with torch.device("meta"):
        m = by_itself(c, layer=1)
    declared = [(p.name, p.shape) for op in c.ops() for p in op.params if not p.buffer]
    assert declared == [(name, tuple(p.shape)) for name, p in m.named_parameters()]
    assert not list(m.named_buffers())
    seen = {"x"}
    for op in c.ops():
        assert set(op.inputs) <= seen, (op.name, op.inputs)
        assert op.name not in seen
        seen.add(op.name)
    read = {i for op in c.ops() for i in op.inputs}
    assert {op.name for op in c.ops()} - read == {c.ops()[-1].name}


def check_flops(c: Component, T: int = 16, B: int = 2) -> None:
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        by_itself(c, layer=1)(torch.randn(B, T, D_MODEL))
    ours = sum(op.flops(Run(B=B, T=T, S=T)) for op in c.ops() if type(op).__name__ != "FFTConv")
    assert counter.get_total_flops() == ours


def check_pieces(m: nn.Module, T: int = 13) -> None:
    """The sequence at once = in pieces = token by token, and earlier outputs do not depend on later tokens."""
    x = tokens(T)
    whole = m(x)
    for sizes in ([5, 1, 4, T - 10], [1] * T, [T]):
        state: dict[str, Any] = {}
        pieces = [m(piece, state=state) for piece in x.split(sizes, dim=1)]
        torch.testing.assert_close(torch.cat(pieces, dim=1), whole, rtol=0, atol=1e-9)
    for k in (1, 2, 7):
        torch.testing.assert_close(m(x[:, :k]), whole[:, :k], rtol=0, atol=1e-9)


def check_cache(m: nn.Module, c: Component, T: int = 6) -> None:
    """The state of one sequence has the sizes that the ops declare."""
    state: dict[str, Any] = {}
    m(tokens(T, B=1), state=state)
    declared = sum(k.per_token() * T + k.fixed() for op in c.ops() for k in op.kept)
    assert held(state) == declared


def held(state: dict[str, Any]) -> int:
    total = 0
    for name, value in state.items():
        if isinstance(value, dict):
            total += held(value)
        elif isinstance(value, Tensor):
            start, end = state.get(f"{name}_span", (0, None))
            total += value[:, :, start:end].numel() if end is not None else value.numel()
    return total


def check_compiles(m: nn.Module, T: int = 8) -> None:
    x = tokens(T)
    torch._dynamo.reset()
    compiled = torch.compile(m, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), m(x), rtol=0, atol=1e-10)
    compiled(x).sum().backward()
