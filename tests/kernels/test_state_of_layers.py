"""Decoding state in the hands of layers: keys of their own, failures that leave no trace, copies and compilers."""

import copy
import inspect
import pickle
from typing import Any

import pytest
import torch
from kernel_checks import assert_close
from torch import Tensor, nn

from archspec.kernels.attention.lsh import lsh_attention
from archspec.kernels.convolutions.long_conv import long_conv
from archspec.kernels.convolutions.short_conv import short_conv
from archspec.kernels.memory.delta_rule import delta_product, delta_rule
from archspec.kernels.memory.dplr import dplr
from archspec.kernels.memory.matrix_memory import matrix_memory
from archspec.kernels.memory.mlstm import mlstm
from archspec.kernels.memory.ssd import ssd
from archspec.kernels.moe.router import admitted
from archspec.kernels.rnn.recurrent import gru, lstm, rnn
from archspec.kernels.rnn.slstm import slstm
from archspec.kernels.scans.linear_scan import linear_scan
from archspec.kernels.scans.selective_scan import selective_scan
from archspec.kernels.scans.wkv import wkv
from archspec.kernels.state import advance, append, atomic, substate

B, T, D = 2, 3, 4


def made(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def weights(gates: int) -> list[Tensor]:
    return [made(gates * D, D), made(gates * D, D), made(gates * D), made(gates * D)]


def unit(*shape: int) -> Tensor:
    return nn.functional.normalize(made(*shape), dim=-1)


USES = {  # what keeps a state, for n tokens
    "append": lambda n, s: append(s, k=made(B, 1, n, D))[0][:, :, -n:],
    "append_window": lambda n, s: append(s, keep=2, k=made(B, 1, n, D))[0][:, :, -n:],
    "short_conv": lambda n, s: short_conv(made(B, n, D), made(D, 1, 4), state=s),
    "long_conv": lambda n, s: long_conv(made(B, n, D), made(99, D), state=s),
    "linear_scan": lambda n, s: linear_scan(torch.rand(D), made(B, n, D), state=s),
    "selective_scan": lambda n, s: selective_scan(
        made(B, n, D), made(B, n, D).exp(), -made(D, 2).exp(), made(B, n, 2), made(B, n, 2), state=s
    ),
    "wkv": lambda n, s: wkv(-made(D).exp(), made(D), made(B, n, D), made(B, n, D), state=s),
    "ssd": lambda n, s: ssd(
        made(B, n, 2, D), made(B, n, 2).exp(), -made(2).exp(), made(B, n, 1, 2), made(B, n, 1, 2), state=s
    ),
    "matrix_memory": lambda n, s: matrix_memory(
        made(B, n, 2, D).exp(), made(B, n, 2, D).exp(), made(B, n, 2, D), normalise=True, state=s
    ),
    "mlstm": lambda n, s: mlstm(*(made(B, n, 2, D) for _ in range(3)), made(B, n, 2), made(B, n, 2), state=s),
    "delta_rule": lambda n, s: delta_rule(
        made(B, n, 2, D), unit(B, n, 2, D), made(B, n, 2, D), torch.rand(B, n, 2), state=s
    ),
    "delta_product": lambda n, s: delta_product(
        made(B, n, 2, D), unit(B, n, 2, 2, D), made(B, n, 2, 2, D), torch.rand(B, n, 2, 2), state=s
    ),
    "dplr": lambda n, s: dplr(
        *(made(B, n, 2, D) for _ in range(3)), -unit(B, n, 2, D), unit(B, n, 2, D), -made(B, n, 2, D).exp(), state=s
    ),
    "lsh_attention": lambda n, s: lsh_attention(
        made(B, 1, n, D), made(B, 1, n, D), 4, 1, rotations=made(1, D, 2, 2), causal=True, state=s
    ),
    "admitted": lambda n, s: admitted(torch.zeros(B, n, 1, dtype=torch.long), 2, 99, s),
    "lstm": lambda n, s: lstm(made(B, n, D), weights(4), s),
    "gru": lambda n, s: gru(made(B, n, D), weights(3), s),
    "rnn": lambda n, s: rnn(made(B, n, D), weights(1), s),
    "slstm": lambda n, s: slstm(made(B, n, 4, 2, D), made(4, 2, D, D), state=s),
}
every_use = pytest.mark.parametrize("use", USES)


def tensors(state: dict[str, Any]) -> dict[str, Tensor]:
    """The tensors of a state, of buffers the filled part."""
    spans = {name: state.get(f"{name}_span", (None, None)) for name in state}
    held = {name: x for name, x in state.items() if isinstance(x, Tensor)}
    return {name: x if spans[name][1] is None else x[:, :, slice(*spans[name])] for name, x in held.items()}


@every_use
def test_two_uses_on_one_state_are_refused(use):
    model: dict[str, Any] = {}
    for n in (T, 1):
        layer = substate(model, "layer")
        USES[use](n, layer)
        with pytest.raises(ValueError, match=r"is used twice in one call; give each user its own substate"):
            USES[use](n, layer)
        USES[use](n, substate(layer, "second"))


@every_use
@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("n", [1, T, 70])
def test_a_call_leaves_the_tensors_of_the_earlier_state_as_they_were(use, gradients, n):
    with torch.set_grad_enabled(gradients):
        state: dict[str, Any] = {}
        USES[use](T, state)
        before = dict(state)
        kept = {name: x.clone() for name, x in tensors(before).items()}
        USES[use](n, state)
    assert kept
    for name, x in tensors(before).items():
        assert torch.equal(x, kept[name]), name


@every_use
def test_a_state_that_was_put_back_gives_the_same_again(use):
    with torch.no_grad():
        state: dict[str, Any] = {}
        USES[use](T, state)
        before = dict(state)
        torch.manual_seed(0)
        wanted = USES[use](1, state)
        torch.manual_seed(0)
        assert torch.equal(USES[use](1, before), wanted)


@every_use
def test_a_state_is_no_larger_than_its_tensors(use):
    with torch.no_grad():
        state: dict[str, Any] = {}
        for n in (70, 1, 1):
            USES[use](n, state)
    for name, x in state.items():
        if isinstance(x, Tensor):
            assert x.untyped_storage().nbytes() == x.numel() * x.element_size(), name


class Layer(nn.Module):
    """A convolution, a scan and a count, with a state each; `fails` raises after all of them."""

    def __init__(self, fails: BaseException | None = None):
        super().__init__()
        self.weight = nn.Parameter(made(D, 1, 4))
        self.fails = fails

    def forward(self, x: Tensor, state: dict[str, Any] | None = None) -> Tensor:
        start = advance(state, x.shape[1])
        x = short_conv(x, self.weight, state=state)
        x = short_conv(x, self.weight, state=substate(state, "second"))
        (seen,) = append(state, x=x.unsqueeze(1))
        x = linear_scan(torch.full((D,), 0.5), x, state=state) + start + seen.sum()
        if self.fails is not None:
            raise self.fails
        return x


class Model(nn.Module):
    """Two layers for at most 32 tokens."""

    def __init__(self, fails: BaseException | None = None):
        super().__init__()
        self.layers = nn.ModuleList([Layer(), Layer(fails)])

    @atomic
    def forward(self, x: Tensor, state: dict[str, Any] | None = None) -> Tensor:
        """x (B, T, D) -> (B, T, D)."""
        if advance(state, x.shape[1]) + x.shape[1] > 32:
            raise ValueError("more than 32 tokens")
        for i, layer in enumerate(self.layers):
            x = layer(x, substate(state, i))
        return x


def snapshot(state: Any) -> Any:
    """Which dicts and tensors a tree has, and what they hold."""
    if not isinstance(state, dict):
        return id(state) if isinstance(state, Tensor) else state
    held = {name: x.clone() for name, x in tensors(state).items()}
    return id(state), held, {name: snapshot(value) for name, value in state.items()}


def same(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[name], b[name]) for name in a)
    if isinstance(a, tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return torch.equal(a, b) if isinstance(a, Tensor) else a == b


def test_a_position_out_of_range_leaves_the_state_as_it_was():
    model, state, x = Model(), {}, made(B, 33, D)
    with torch.no_grad():
        model(x[:, :30], state)
        before = snapshot(state)
        with pytest.raises(ValueError, match="more than 32 tokens"):
            model(x[:, 30:], state)
        assert same(snapshot(state), before)
        assert state["seen"] == 30
        got = model(x[:, 30:32], state)
        assert_close("the rest", got, model(x[:, :32])[:, 30:], 1)  # it goes on
        whole: dict[str, Any] = {}
        model(x[:, :30], whole)
        assert torch.equal(got, model(x[:, 30:32], state=whole))


@pytest.mark.parametrize("fails", [RuntimeError("late"), KeyboardInterrupt()])
@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("pieces", [[], [5], [5, 1]])
def test_a_failure_in_the_middle_leaves_the_state_as_it_was(fails, gradients, pieces):
    model, broken, x = Model(), Model(fails), made(B, 30, D)
    broken.load_state_dict(model.state_dict())
    with torch.set_grad_enabled(gradients):
        for options in ({}, {"keyword": True}):
            state: dict[str, Any] = {}
            twin: dict[str, Any] = {}
            for piece in x.split([*pieces, 30 - sum(pieces)], dim=1)[:-1]:
                model(piece, state)
                model(piece, twin)
            before, layers = snapshot(state), [state.get(str(i)) for i in range(2)]
            with pytest.raises(type(fails)):
                broken(x[:, :1], state=state) if options else broken(x[:, :1], state)
            assert same(snapshot(state), before)
            assert all(state.get(str(i)) is layer for i, layer in enumerate(layers))
            assert torch.equal(model(x[:, :2], state), model(x[:, :2], twin))


def test_atomic_keeps_the_signature_and_wants_a_state():
    assert list(inspect.signature(Model.forward).parameters) == ["self", "x", "state"]
    assert Model.forward.__doc__ == "x (B, T, D) -> (B, T, D)."
    with pytest.raises(TypeError, match="takes no state"):
        atomic(lambda x: x)

    @atomic
    def forward(*args: Tensor, **kwargs: Any) -> None:
        kwargs["state"]["new"] = 1
        raise RuntimeError

    state: dict[str, Any] = {"old": 0}
    with pytest.raises(RuntimeError):
        forward(state=state)
    assert state == {"old": 0}


def test_models_with_states_compile_as_one_graph():
    torch.compiler.reset()
    model, x = Model(), made(B, 10, D)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        ours: dict[str, Any] = {}
        theirs: dict[str, Any] = {}
        for piece in x.split([4, 1, 1, 4], dim=1):
            assert_close("output", compiled(piece, ours), model(piece, theirs), 1e-6)
    assert {name: x.shape for name, x in tensors(ours["1"]).items()} == {
        name: x.shape for name, x in tensors(theirs["1"]).items()
    }
    assert_close("alone", compiled(x), model(x), 1e-6)


def test_a_layer_with_a_substate_compiles_and_a_second_use_is_still_refused():
    torch.compiler.reset()
    layer, x = Layer(), made(B, 4, D)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    model: dict[str, Any] = {}
    with torch.no_grad():
        for _ in range(3):
            compiled(x, substate(model, "layer"))
        with pytest.raises(Exception, match="is used twice"):
            compiled(x, model["layer"])


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda state: pickle.loads(pickle.dumps(state))])
def test_a_copied_state_goes_on_by_itself(copied):
    model, x = Model(), made(B, 8, D)
    with torch.no_grad():
        state: dict[str, Any] = {}
        model(x[:, :5], state)
        other = copied(state)
        wanted = model(x[:, 5:], state)
        model(x[:, :1], state)
        assert torch.equal(model(x[:, 5:], other), wanted)


def test_exporting_sees_through_atomic():
    model, x = Model(), made(B, 8, D)
    exported = torch.export.export(model, (x,)).module()
    assert_close("output", exported(x), model(x), 1e-6)
