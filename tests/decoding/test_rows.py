"""Sequences of a state in another order, several times, fewer of them, or beside those of others."""

from typing import Any

import pytest
import torch
from decoding_models import model_of, spec_of, tokens
from torch import Tensor, nn

from archspec import State, StateError, new_state
from archspec.decoding.tree import leaves
from archspec.modules.model import eager


def filled(model: nn.Module, x: Tensor) -> State:
    state = new_state(model, len(x))
    with torch.no_grad():
        model(x, state=state)
    return state


def contents(state: State) -> dict[str, Tensor]:
    return {held.path: held.filled(state.layout.entry(held.path).token_axis) for held in leaves(state)}


def test_every_tensor_is_picked_along_its_own_axis(model: nn.Module) -> None:
    x = tokens(3, 5)
    state = filled(model, x)
    before = contents(state.clone())
    state.reorder([2, 0, 1])
    assert contents(state).keys() == before.keys()
    for path, after in contents(state).items():
        axis = {"h": 1, "c": 1}.get(path.rpartition(".")[2], 0)
        for new, old in enumerate([2, 0, 1]):
            assert torch.equal(after.select(axis, new), before[path].select(axis, old))


@pytest.mark.parametrize("given", [[2, 0], torch.tensor([2, 0]), torch.tensor([2, 0], dtype=torch.int32), (2, 0)])
def test_numbers_may_be_of_any_whole_type(attention: nn.Module, given: Any) -> None:
    x = tokens(3, 5)
    for got, wanted in zip(contents(filled(attention, x).select(given)).values(),
                           contents(filled(attention, x[[2, 0]])).values(), strict=True):  # fmt: skip
        assert (got - wanted).abs().max() < 1e-12


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ([0, 3], "expected numbers of sequences from 0 to 2, found 3"),
        ([-1], "expected numbers of sequences from 0 to 2, found -1"),
        ([], "expected a list or tensor .* of whole numbers"),
        ([0.0], r"found a tensor of torch.float32 with shape \(1,\)"),
        ([True, False, True], r"found a tensor of torch.bool"),
        ([[0]], r"with shape \(1, 1\)"),
    ],
)
def test_wrong_numbers_are_refused_and_change_nothing(attention: nn.Module, given: Any, error: str) -> None:
    state = filled(attention, tokens(3, 5))
    before = contents(state.clone())
    for method in (state.select, state.reorder):
        with pytest.raises(StateError, match=error):
            method(given)
    assert all(torch.equal(x, before[path]) for path, x in contents(state).items())


def test_reorder_is_of_the_whole_batch(attention: nn.Module) -> None:
    with pytest.raises(StateError, match=r"expected 3 indices, one a sequence, found 2; select\(\) takes any"):
        filled(attention, tokens(3, 5)).reorder([0, 1])
    with pytest.raises(StateError, match="expected to repeat each sequence at least 1 time, found 0"):
        filled(attention, tokens(3, 5)).repeat(0)


def test_a_reordered_state_shares_nothing_with_what_it_was(model: nn.Module) -> None:
    state = filled(model, tokens(2, 5))
    other = state.clone()
    pointers = {held.tensor.data_ptr() for held in leaves(state)}
    assert not pointers & {held.tensor.data_ptr() for held in leaves(other)}
    assert not pointers & {held.tensor.data_ptr() for held in leaves(State.cat([state]))}
    assert not pointers & {held.tensor.data_ptr() for held in leaves(state.to("cpu"))}


def test_states_of_different_models_lengths_or_types_do_not_join(attention: nn.Module) -> None:
    state, x = filled(attention, tokens(2, 5)), tokens(2, 5)
    with pytest.raises(StateError, match="expected at least one state to join, found none"):
        State.cat([])
    with pytest.raises(StateError, match="a state of attention and one of hybrid cannot be joined"):
        State.cat([state, filled(model_of("hybrid"), x)])
    without = eager(spec_of("attention")).double()
    with pytest.raises(
        StateError, match=r"nothing in this state of attention can say what is padding: it is empty, or its"
    ):
        State.cat([filled(without, x), filled(without, x[:, :4])])
    with pytest.raises(StateError, match=r"k is torch.float64 on cpu, torch.float32 on cpu; bring all states to one"):
        State.cat([state, filled(model_of("attention", torch.float32), x)])
    with pytest.raises(StateError, match=r"nothing in this state of attention can say what is padding: it is empty"):
        State.cat([state, new_state(attention, 1)])
    assert State.cat([new_state(attention, 1), new_state(attention, 2)]).batch == 3


def test_recurrences_of_any_length_join() -> None:
    lstm, x, y = eager(spec_of("lstm")).double(), tokens(2, 5), tokens(1, 9, 1)  # takes no mask and needs none
    both = State.cat([filled(lstm, x), filled(lstm, y)])
    z = tokens(3, 4, 2)
    with torch.no_grad():
        got = lstm(z, state=both)
        wanted = torch.cat((lstm(torch.cat((x, z[:2]), 1))[:, 5:], lstm(torch.cat((y, z[2:]), 1))[:, 9:]))
    assert (got - wanted).abs().max() < 1e-12


def test_joined_states_have_the_most_room(attention: nn.Module) -> None:
    one, two = new_state(attention, 1, max_len=300), new_state(attention, 2)
    with torch.no_grad():
        attention(tokens(1, 5), state=one)
        attention(tokens(2, 5), state=two)
    assert State.cat([two, one]).bytes == 3 * one.bytes
    rooms = [new_state(attention, n, max_len=300) for n in (1, 2)]
    assert State.cat(rooms).bytes == 3 * one.bytes
