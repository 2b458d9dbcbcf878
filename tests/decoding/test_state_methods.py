"""A state from its making to its end: what it is of, its room, its checks, and what PyTorch does with it."""

import copy
from typing import Any

import pytest
import torch
from decoding_models import decoded, model_of, spec_of, steps, tokens
from torch import Tensor, nn

import archspec
from archspec import State, StateError, new_state
from archspec.codegen.load import load_text
from archspec.decoding.tree import leaves
from archspec.graph import graph
from archspec.modules.model import eager
from archspec.passes.count import cache_bytes

# What it is


def test_a_state_is_a_dict_that_any_model_of_the_spec_takes(model: nn.Module) -> None:
    spec, x = model._spec, tokens(2, 9)
    wanted = decoded(model, x, {}, 5, *steps(4))
    texts = [archspec.generate(spec, standalone=form) for form in (False, "fast", "plain")]
    by_hand = [load_text(text, f"{spec.name}{i}").Model() for i, text in enumerate(texts)]
    for other in (model, eager(spec), *by_hand):
        other.double().eval().load_state_dict(model.state_dict())
        state = new_state(spec, 2)
        assert state == {}
        got = decoded(other, x, state, 5, *steps(4))
        assert (got - wanted).abs().max() < 1e-12
        assert isinstance(state, dict)
        assert {p for p, e in state.layout.entries if e.counted} == {held.path for held in leaves(state)}


def test_new_state_wants_a_spec_or_a_model_that_knows_it(attention: nn.Module) -> None:
    text = archspec.generate(spec_of("attention"))
    for wrong in (load_text(text, "by_hand").Model(), nn.Linear(2, 2), "specs/gpt2.yaml", None):
        with pytest.raises(TypeError, match=r"expected a Spec, or a model that archspec.build made of one, found"):
            new_state(wrong, 2)  # type: ignore[arg-type]
    assert new_state(torch.compile(attention), 2).layout == new_state(spec_of("attention"), 2).layout
    with pytest.raises(StateError, match="expected at least 1 sequence, found batch = 0"):
        new_state(attention, 0)
    with pytest.raises(StateError, match="expected max_len of at least 1 token, found 0"):
        new_state(attention, 1, max_len=0)


def test_it_says_what_it_is(hybrid: nn.Module) -> None:
    state = new_state(hybrid, 2)
    assert repr(state) == "State(hybrid: 2 sequences, 0 tokens, 0 bytes)"
    decoded(hybrid, tokens(2, 5), state, 5)
    assert (state.length, state.batch, state.dtype, state.device) == (5, 2, torch.float64, torch.device("cpu"))
    assert repr(state).startswith("State(hybrid: 2 sequences, 5 tokens, ")
    alone = eager(spec_of("recurrence"))  # takes no mask, and so counts no tokens
    state = new_state(alone, 2)
    decoded(alone, tokens(2, 5), state, 5)
    assert state.length is None
    assert repr(state).startswith("State(recurrence: 2 sequences, tokens unknown, ")
    with pytest.raises(StateError, match=r"cannot go back to 2 tokens: blocks.0.mixer \(mamba\) keeps"):
        state.truncate(2)


def test_a_dict_that_a_model_filled_can_be_adopted(model: nn.Module) -> None:
    x, filled, twin = tokens(3, 9), {}, {}
    decoded(model, x[:, :5], filled, 5)
    decoded(model, x[:, :5], twin, 5)
    state = State.of(model, filled)
    assert (state.batch, state.dtype, state.device) == (3, torch.float64, torch.device("cpu"))
    state.reorder([2, 1, 0])
    wanted = decoded(model, x[:, 5:], twin, 4)
    assert (decoded(model, x[:, 5:].flip(0), state, 4) - wanted.flip(0)).abs().max() < 1e-12


def test_a_dict_of_another_model_is_not_adopted(attention: nn.Module, hybrid: nn.Module) -> None:
    filled: dict[str, Any] = {}
    decoded(hybrid, tokens(2, 5), filled, 5)
    with pytest.raises(StateError, match=r"the state holds 0.mixer.conv, which a model of attention does not keep"):
        State.of(attention, filled)
    with pytest.raises(StateError, match="the dict is empty"):
        State.of(attention, {})
    filled["2"]["mixer"]["k"] = filled["2"]["mixer"]["k"].float()
    with pytest.raises(StateError, match=r"blocks.2.mixer \(attention\): 2.mixer.k is torch.float32, expected torch.f"):
        State.of(hybrid, filled)
    filled["2"]["mixer"]["k"] = filled["2"]["mixer"]["v"][:1]
    with pytest.raises(StateError, match=r"2.mixer.k has the shape \(1, 2, 64, 4\), expected .* with B = 2"):
        State.of(hybrid, filled)


# Room in advance


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_with_max_len_nothing_moves_until_there_are_more(attention: nn.Module, mode: Any) -> None:
    x = tokens(2, 330)
    with mode():
        state, plain = new_state(attention, 2, max_len=300), {}
        held = state.bytes
        nodes = graph(spec_of("attention")).nodes
        assert held == 2 * cache_bytes(nodes, 300, 8, held=True)
        assert state.bytes_used == 0
        addresses = {(h.path, h.tensor.data_ptr()) for h in leaves(state)}
        assert len(addresses) == 4
        for start, end in [(0, 70), *((i, i + 1) for i in range(70, 300))]:
            wanted = attention(x[:, start:end], state=plain)
            assert (attention(x[:, start:end], state=state) - wanted).abs().max() < 1e-12
            assert {(h.path, h.tensor.data_ptr()) for h in leaves(state)} == addresses
        assert state.bytes == held
        assert state.bytes_used == 2 * cache_bytes(nodes, 300, 8)
        for i in range(300, 330):  # then it grows as it does without
            assert (
                attention(x[:, i : i + 1], state=state) - attention(x[:, i : i + 1], state=plain)
            ).abs().max() < 1e-9
        assert state.bytes == 2 * cache_bytes(nodes, 330, 8, held=True)


def test_without_max_len_a_cache_moves_once_in_64_tokens(attention: nn.Module) -> None:
    state = new_state(attention, 1)
    places = set()
    for i in range(200):
        decoded(attention, tokens(1, 1, i), state, 1)
        places.add(id(state["0"]["mixer"]["k"]))
        assert state.bytes == cache_bytes(graph(spec_of("attention")).nodes, i + 1, 8, held=True)
    assert len(places) <= 4


def test_room_leaves_inference_mode(attention: nn.Module) -> None:
    with torch.inference_mode():
        state = new_state(attention, 2, max_len=100)
    before = state["0"]["mixer"]["k_room"].data_ptr()
    decoded(attention, tokens(2, 5), state, 5)
    assert state["0"]["mixer"]["k"].data_ptr() == before


@pytest.mark.parametrize("change", [State.clone, lambda s: s.repeat(2), lambda s: s.select([1]), lambda s: s.to("cpu")])
@pytest.mark.parametrize("filled", [False, True])
def test_copies_have_as_much_room(attention: nn.Module, change: Any, filled: bool) -> None:
    state = new_state(attention, 2, max_len=300)
    if filled:
        decoded(attention, tokens(2, 5), state, 5)
    other = change(state)
    assert other.bytes * state.batch == state.bytes * other.batch
    x = tokens(other.batch, 200)
    decoded(attention, x, other, 200)
    before = other["0"]["mixer"]["k"].data_ptr()
    decoded(attention, x[:, :90], other, 90)
    assert other["0"]["mixer"]["k"].data_ptr() == before
    state.reorder([1, 0])
    assert state.bytes * other.batch == other.bytes * state.batch


def test_a_window_has_room_for_itself_alone() -> None:
    window = model_of("window")
    state = new_state(window, 2, max_len=400)
    held, x = state.bytes, tokens(2, 400)
    assert held == 2 * cache_bytes(graph(spec_of("window")).nodes, 400, 8, held=True)
    got = decoded(window, x, state, 30, *steps(370))
    assert state.bytes == held
    assert (got - decoded(window, x, {}, 400)).abs().max() < 1e-9


# What does not go with it


def snapshot(tree: Any) -> Any:
    """What a state holds, of buffers the filled part."""
    if not isinstance(tree, dict):
        return tree
    filled = {k: v[:, :, slice(*tree.get(f"{k}_span", (None,)))].clone() for k, v in tree.items() if is_tensor(v)}
    return {k: filled[k] if k in filled else snapshot(v) for k, v in tree.items()}


def is_tensor(x: Any) -> bool:
    return isinstance(x, Tensor)


def same(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    return torch.equal(a, b) if isinstance(a, Tensor) else a == b


def refused(model: nn.Module, x: Tensor, state: Any, error: str, kind: type[Exception] = StateError) -> None:
    before = snapshot(state)
    with torch.no_grad():
        with pytest.raises(kind, match=error):
            model(x, state=state)
        if "_spec" in vars(model):
            between = [None] * (len(model._spec.arguments) - 2)
            with pytest.raises(kind, match=error):
                model(x, *between, state)
    assert same(snapshot(state), before)


def test_a_call_that_does_not_go_with_a_state_is_one_clear_error(model: nn.Module) -> None:
    state = new_state(model, 3)
    for n in (0, 5):
        if n:
            decoded(model, tokens(3, n), state, n)
        refused(
            model, tokens(2, 1), state,
            r"^this is a state of 3 sequences, and tokens has the shape \(2, 1\): give it \(3, ...\), or make a state"
            r" with batch=2$",
        )  # fmt: skip
        refused(model, tokens(3, 1).to("meta"), state, "this is a state on cpu, and tokens is on meta: bring it there")
        single = copy.deepcopy(model).float()
        refused(
            single, tokens(3, 1), state, "this is a state of torch.float64, and the model is torch.float32: bring it"
        )
        with torch.autocast("cpu", torch.bfloat16):
            assert new_state(single, 3).dtype == torch.float32
            single(tokens(3, 1), state=new_state(single, 3))
    assert decoded(model, tokens(3, 1), state, 1).shape == (3, 1, 11)


def test_a_state_of_another_model_is_one_clear_error(attention: nn.Module, hybrid: nn.Module) -> None:
    for other in (hybrid, eager(spec_of("hybrid")), load_text(archspec.generate(spec_of("hybrid")), "by_hand").Model()):
        refused(
            other, tokens(2, 1), new_state(attention, 2),
            r"this is a state of attention \(hash \w{12}\), and the model is of another spec \(hash \w{12}\)",
        )  # fmt: skip


def test_a_state_of_a_spec_is_that_of_its_first_call(attention: nn.Module) -> None:
    state = new_state(spec_of("attention"), 2)
    single = model_of("attention", torch.float32)
    with pytest.raises(IndexError):
        single(torch.full((2, 1), 99), state=state)  # no such token: the call was none
    decoded(attention, tokens(2, 3), state, 3)
    assert state.dtype == torch.float64
    refused(single, tokens(2, 1), state, "this is a state of torch.float64")


def test_a_plain_dict_refuses_other_tokens_than_it_holds(attention: nn.Module) -> None:
    state: dict[str, Any] = {}
    decoded(attention, tokens(3, 5), state, 5)
    for x in (tokens(2, 1), tokens(1, 1)):  # one sequence would be written to all
        refused(attention, x, state, r"state: 'k' holds \(3, 2, '...', 4\) of torch.float64 on cpu, and", ValueError)
    refused(model_of("attention", torch.float32), tokens(3, 1), state, "this call gives .* torch.float32", ValueError)


def test_plain_files_check_when_asked() -> None:
    spec = spec_of("attention")
    plain = load_text(archspec.generate(spec, standalone="plain"), "plain").Model().double()
    state = new_state(spec, 2, dtype=torch.float64)
    decoded(plain, tokens(2, 5), state, 5)
    state.expect(plain, tokens(2, 1))
    with pytest.raises(StateError, match="of 2 sequences"):
        state.expect(plain, tokens=tokens(3, 1))
    with pytest.raises(StateError, match="another spec"):
        new_state(spec_of("hybrid"), 2).expect(plain, tokens(2, 1))


def test_what_a_plain_file_left_goes_on_in_the_package(attention: nn.Module) -> None:
    spec, x = spec_of("attention"), tokens(2, 9)
    plain = load_text(archspec.generate(spec, standalone="plain"), "plain").Model().double().eval()
    plain.load_state_dict(attention.state_dict())
    state = new_state(spec, 2)
    decoded(plain, x[:, :5], state, 5)
    wanted = decoded(attention, x, {}, 9)[:, 5:]
    assert (decoded(attention, x[:, 5:], state, *steps(4)) - wanted).abs().max() < 1e-12
