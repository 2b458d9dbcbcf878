"""What people give to states, right or wrong: one clear error for what is wrong, and nothing changed by it."""

import re
from collections.abc import Callable
from typing import Any

import numpy
import pytest
import torch
from decoding_models import decoded, spec_of, tokens
from torch import Tensor, nn

from archspec import State, StateError, new_state
from archspec.decoding.tree import leaves

NO_NUMBERS = [None, True, False, 2.5, float("nan"), "2", b"2", [2], {}, 1j, torch.tensor(2.0), torch.tensor(True)]
NO_NUMBERS += [torch.tensor([2, 2]), numpy.float32(2), object(), 2**70, -(2**70), -1]


def named(value: object) -> str:
    """A value without the place where it stands in memory: workers must know a test by the same name."""
    return re.sub(r" at 0x\w+", "", repr(value))


def filled(model: nn.Module) -> State:
    state = new_state(model, 2)
    decoded(model, tokens(2, 5), state, 5)
    return state


def unchanged(state: State, call: Callable[[], object], error: str) -> None:
    """The call is one error of a state, which is as it was."""
    before = contents(state.clone())
    numbers = state.batch, state.length, list(state)
    with pytest.raises(StateError, match=error):
        call()
    assert (state.batch, state.length, list(state)) == numbers
    assert all(torch.equal(x, before[path]) for path, x in contents(state).items())


def contents(state: State) -> dict[str, Tensor]:
    return {held.path: held.filled(state.layout.entry(held.path).token_axis) for held in leaves(state)}


@pytest.mark.parametrize("given", [*NO_NUMBERS, 0], ids=named)
def test_sizes_are_whole_numbers_from_1(attention: nn.Module, given: Any) -> None:
    for of in (attention, spec_of("attention")):
        with pytest.raises(StateError, match=r"expected at least 1 sequence, found batch = "):
            new_state(of, given)
        if given is not None:
            with pytest.raises(StateError, match=r"expected max_len of at least 1 token, found "):
                new_state(of, 2, max_len=given)
    state = filled(attention)
    unchanged(state, lambda: state.repeat(given), "expected to repeat each sequence at least 1 time, found ")


@pytest.mark.parametrize("given", NO_NUMBERS, ids=named)
def test_lengths_are_whole_numbers_from_0(attention: nn.Module, given: Any) -> None:
    state = filled(attention)
    unchanged(state, lambda: state.truncate(given), "expected 0 to 5 tokens, those that the state has seen, found ")
    unchanged(state, lambda: state.pad(given), "expected 0 or more columns of padding, found ")


@pytest.mark.parametrize("two", [2, numpy.int64(2), torch.tensor(2), torch.tensor([2])], ids=named)
def test_whatever_stands_for_a_whole_number_is_one(attention: nn.Module, two: Any) -> None:
    state = new_state(attention, two, max_len=two)
    assert (type(state.batch), state.batch, type(state.max_len), state.max_len) == (int, 2, int, 2)
    decoded(attention, tokens(2, 5), state, 5)
    state.truncate(two)
    assert (state.length, state.repeat(two).batch, state.pad(two).length) == (2, 4, 4)


def test_more_room_than_there_is_memory_is_refused(attention: nn.Module) -> None:
    with pytest.raises(StateError, match=r"no room for max_len = 1099511627776 tokens of 2 sequences: "):
        new_state(attention, 2, max_len=2**40)


@pytest.mark.parametrize("given", ["nowhere", "cuda:99", 2.5, [], "", torch.float32, "bfloat16", 99], ids=named)
def test_devices_are_those_that_there_are(attention: nn.Module, given: Any) -> None:
    state = filled(attention)
    unchanged(state, lambda: state.to(given), "expected a device")
    for of in (attention, spec_of("attention")):
        for max_len in (None, 5):
            with pytest.raises(StateError, match="expected a device"):
                new_state(of, 2, max_len, device=given)


@pytest.mark.parametrize("given", ["float32", torch.int8, torch.bool, torch.complex64, float, 5, []], ids=named)
def test_types_are_floating(attention: nn.Module, given: Any) -> None:
    state = filled(attention)
    unchanged(state, lambda: state.to(dtype=given), "expected a floating dtype such as torch.bfloat16, found ")
    for of in (attention, spec_of("attention")):
        with pytest.raises(StateError, match="expected a floating dtype"):
            new_state(of, 2, dtype=given)


def test_a_type_in_the_place_of_a_device_is_told(attention: nn.Module) -> None:
    with pytest.raises(StateError, match=r"found torch.bfloat16: a type is given as dtype=torch.bfloat16"):
        filled(attention).to(torch.bfloat16)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "given",
    [None, 0, "10", {0: 1}, {0, 1}, iter((0, 1)), [0, None], [[0], [0, 1]], [2**70], torch.tensor(0),
     torch.tensor([0j, 1]), torch.tensor([0, 1], device="meta"), object()],
    ids=named,
)  # fmt: skip
def test_what_are_no_numbers_of_sequences_is_told(attention: nn.Module, given: Any) -> None:
    state = filled(attention)
    for method in (state.select, state.reorder):
        unchanged(state, lambda method=method: method(given), "expected a list or tensor .* of whole numbers of seq")


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.uint16, torch.uint32])
def test_numbers_of_sequences_are_of_any_whole_type(attention: nn.Module, dtype: torch.dtype) -> None:
    assert filled(attention).select(torch.tensor([1], dtype=dtype)).batch == 1


@pytest.mark.parametrize("given", [None, 3, "ab", {}, [None], [{}], torch.tensor(1), numpy.int64(2)], ids=named)
def test_only_states_are_joined(attention: nn.Module, given: Any) -> None:
    state = filled(attention)
    unchanged(state, lambda: State.cat(given), "expected (a list of )?states to join, found a ")
    unchanged(state, lambda: State.cat([state, given]), "expected states to join, found a .* among them")
    unchanged(state, lambda: State.cat(state), "expected a list of states to join, found a State")  # type: ignore[arg-type]


# Dicts that are adopted


def adopted(model: nn.Module, **changes: Any) -> State:
    """A dict of that model as a state, with other values in its first mixer."""
    state: dict[str, Any] = {}
    decoded(model, tokens(2, 5), state, 5)
    state["0"]["mixer"] |= changes
    return State.of(model, state)


@pytest.mark.parametrize("given", [None, 3, "ab", [], torch.zeros(2)], ids=named)
def test_only_a_dict_is_adopted(attention: nn.Module, given: Any) -> None:
    with pytest.raises(StateError, match="expected a dict that a model has filled, found a "):
        State.of(attention, given)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"k_span": 7}, r"0.mixer.k_span is 7, expected \(start, end\) within the tokens"),
        ({"k_span": (0, 65)}, r"0.mixer.k_span is \(0, 65\)"),
        ({"k_span": (3, 2)}, r"0.mixer.k_span is \(3, 2\)"),
        ({"k_span": (0.0, 5)}, r"0.mixer.k_span is \(0.0, 5\)"),
        ({"seen": "5"}, "0.mixer.seen is '5', expected a number of tokens"),
        ({"seen": -1}, "0.mixer.seen is -1, expected a number of tokens"),
        ({"seen": {}}, "0.mixer.seen is {}, expected a number of tokens"),
        ({"extra": "text"}, "the state holds a str under 0.mixer.extra, which no model leaves there"),
        ({"extra": torch.zeros(2)}, "the state holds 0.mixer.extra, which a model of attention does not keep"),
        ({"k": torch.zeros(2)}, "0.mixer.k_span is .*, expected"),
        ({"k": None}, "0.mixer.k_span is .*, expected"),
    ],
    ids=named,
)
def test_what_no_model_leaves_is_not_adopted(attention: nn.Module, changes: dict[str, Any], error: str) -> None:
    with pytest.raises(StateError, match=error):
        adopted(attention, **changes)


def test_a_state_is_adopted_whole(hybrid: nn.Module) -> None:
    for layer, name in (("0", "conv"), ("0", "ssm"), ("2", "k")):
        state: dict[str, Any] = {}
        decoded(hybrid, tokens(2, 5), state, 5)
        del state[layer]["mixer"][name]
        state[layer]["mixer"].pop(f"{name}_span", None)
        with pytest.raises(
            StateError, match=rf"blocks.{layer}.mixer .*: the state holds no {layer}.mixer.{name}, which"
        ):
            State.of(hybrid, state)
    with pytest.raises(StateError, match="the state has the key 0 under its top, and the keys of models are names"):
        State.of(hybrid, {0: {}})  # type: ignore[dict-item]
    whole: dict[str, Any] = {}
    decoded(hybrid, tokens(2, 5), whole, 5)
    whole["2"]["mixer"]["k"] = torch.zeros_like(whole["2"]["mixer"]["k"], dtype=torch.int64)
    with pytest.raises(StateError, match=r"2.mixer.k is torch.int64, expected torch.float64"):
        State.of(hybrid, whole)


def test_a_call_with_an_input_of_no_axes_is_told(attention: nn.Module) -> None:
    state = filled(attention)
    unchanged(state, lambda: attention(torch.tensor(1), state=state), r"tokens has the shape \(\): give it \(2, ...\)$")
    unchanged(
        state, lambda: attention(tokens(0, 1), state=state), r"tokens has the shape \(0, 1\): give it \(2, ...\)$"
    )
