"""Rows of different lengths in one state: batches that sequences join and leave while they are decoded."""

from pathlib import Path
from typing import Any

import pytest
import torch
from decoding_models import MLP, model_of, spec_of, tokens
from torch import Tensor, nn

import archspec
from archspec import State, StateError, new_state
from archspec.layers.arguments import INPUTS
from archspec.modules.model import eager
from archspec.verify.sample import unit_gain


def alone(model: nn.Module, text: Tensor, n: int) -> Tensor:
    """What the last n tokens of one sequence give."""
    with torch.no_grad():
        return model(text)[:, -n:]


def filled(model: nn.Module, x: Tensor, **options: Any) -> State:
    state = new_state(model, len(x), **options)
    with torch.no_grad():
        model(x, state=state)
    return state


def test_a_batch_that_sequences_join_and_leave(model: nn.Module) -> None:
    """Sequences of random lengths come and go, and each gives at every step what it gives by itself."""
    random = torch.Generator().manual_seed(3)
    texts: list[Tensor] = []
    batch: State | None = None
    for step in range(30):
        if step % 3 == 0:
            n = int(torch.randint(1, 20, (), generator=random))
            texts.append(tokens(1, n, seed=step))
            new = filled(model, texts[-1])
            batch = new if batch is None else State.cat([batch, new])
        elif len(texts) > 2 and step % 5 == 0:
            texts = [texts[i] for i in (len(texts) - 1, *range(1, len(texts) - 1))]  # the oldest leaves
            batch = batch.select([len(texts), *range(1, len(texts))])
        token = tokens(len(texts), 1, seed=100 + step)
        texts = [torch.cat((text, token[i : i + 1]), dim=1) for i, text in enumerate(texts)]
        with torch.no_grad():
            got = model(token, state=batch)
        assert batch.length == max(text.shape[1] for text in texts)
        for i, text in enumerate(texts):
            assert (got[i : i + 1] - alone(model, text, 1)).abs().max() < 1e-10


def test_a_padded_prompt_can_be_reordered_cloned_and_taken_back(attention: nn.Module) -> None:
    x, draft, rest = tokens(3, 6), tokens(3, 3, 1), tokens(3, 2, 2)
    mask = torch.arange(6) < torch.tensor([[6], [2], [4]])
    state = new_state(attention, 3)
    with torch.no_grad():
        attention(x, mask=mask, state=state)
        order = [1, 2, 0]
        state.reorder(order)
        attention(draft, state=state.clone())
        attention(draft, state=state)
        state.truncate(7)
        got = attention(rest, state=state)
    for i, row in enumerate(order):
        text = torch.cat((x[row : row + 1, : int(mask[row].sum())], draft[i : i + 1, :1], rest[i : i + 1]), dim=1)
        assert (got[i : i + 1] - alone(attention, text, 2)).abs().max() < 1e-10


def test_rows_that_were_moved_are_not_cut_apart(attention: nn.Module) -> None:
    """Padding of a call is moved before all tokens, so that the first n columns are other tokens in every row."""
    x, mask = tokens(2, 6), torch.tensor([[True] * 6, [True] * 2 + [False] * 4])
    state = new_state(attention, 2)
    with torch.no_grad():
        attention(x, mask=mask, state=state)
        attention(x[:, :3], state=state)
        with pytest.raises(archspec.StateError, match="there is padding among them"):
            state.truncate(5)
        state.truncate(7)
        got = attention(x[:, 1:2], state=state)
    wanted = alone(attention, torch.cat((x[1:, :2], x[1:, :1], x[1:, 1:2]), dim=1), 1)
    assert (got[1:] - wanted).abs().max() < 1e-10


@torch.no_grad()
def test_tokens_of_a_prefix_are_not_cut_apart() -> None:
    mixer = {"kind": "attention", "n_heads": 2, "mask": "prefix"}
    spec = archspec.load({"name": "p", "d_model": 16, "vocab_size": 11, "blocks": [{"mixer": mixer}]})
    model = archspec.build(spec).double().eval()
    state = new_state(model, 1)
    model(tokens(1, 5), prefix_len=4, state=state)
    with pytest.raises(archspec.StateError, match="tokens of a prefix depend on later ones"):
        state.truncate(2)
    state.truncate(4)
    with pytest.raises(ValueError, match="prefix_len is 5, but the first call"):
        model(tokens(1, 1), prefix_len=5, state=state)


@pytest.mark.parametrize("position", ["alibi", {"kind": "t5", "n_buckets": 8, "max_distance": 16}, "rope"])
def test_positions_of_the_caller_join_too(position: Any) -> None:
    mixer = {"kind": "attention", "n_heads": 4, "position": position}
    spec = archspec.load(
        {"name": "placed", "d_model": 16, "vocab_size": 11, "blocks": [{"mixer": mixer, "ffn": MLP}] * 2,
         "head": {"kind": "lm"}}
    )  # fmt: skip
    model = unit_gain(archspec.build(spec), torch.Generator().manual_seed(0)).double().eval()
    texts, places = [tokens(1, 5), tokens(1, 3, 1)], [torch.tensor([[0, 1, 1, 2, 4]]), torch.tensor([[3, 5, 6]])]
    step, at = tokens(2, 1, 2), torch.tensor([[5], [8]])
    states = [new_state(model, 1) for _ in texts]
    with torch.no_grad():
        for text, place, state in zip(texts, places, states, strict=True):
            model(text, positions=place, state=state)
        got = model(step, positions=at, state=State.cat(states))
        wanted = [model(step[i : i + 1], positions=at[i : i + 1], state=state) for i, state in enumerate(states)]
        assert (got - torch.cat(wanted)).abs().max() < 1e-10
        with pytest.raises(StateError, match="placed holds of some of the states alone"):
            State.cat([states[0], filled(model, tokens(1, 6))])
        states[0].truncate(0)
        model(texts[0], state=states[0])  # it starts again, without positions


def test_a_model_without_masks_refuses_padded_rows() -> None:
    spec = spec_of("attention")
    masked, without = (eager(s).double() for s in (spec.taking(*INPUTS), spec))
    without.load_state_dict(masked.state_dict())
    state = State.cat([filled(masked, tokens(1, 5)), filled(masked, tokens(1, 3))])
    with pytest.raises(StateError, match=r"rows of this state of attention are padded, and the model takes no mask"):
        without(tokens(2, 1), state=state)
    with torch.no_grad():
        without(tokens(1, 1), state=state.select([1]))  # nothing of it is padding now
    with pytest.raises(StateError, match=r"its model takes no mask \(a spec says so under inputs"):
        filled(without, tokens(1, 3)).pad(2)
    with pytest.raises(StateError, match="expected 0 or more columns of padding, found -1"):
        state.pad(-1)


def test_padded_rows_come_back_from_a_file(hybrid: nn.Module, tmp_path: Path) -> None:
    state = State.cat([filled(hybrid, tokens(1, 9), max_len=80), filled(hybrid, tokens(1, 3))])
    state.save(tmp_path / "state")
    loaded = State.load(tmp_path / "state", hybrid)
    with torch.no_grad():
        for i in range(3):
            assert torch.equal(hybrid(tokens(2, 1, i), state=loaded), hybrid(tokens(2, 1, i), state=state))


def test_room_stays_when_rows_are_padded_or_masked() -> None:
    model = model_of("attention")
    state = filled(model, tokens(1, 5), max_len=200)
    both = State.cat([state, filled(model, tokens(1, 90))])
    assert both.bytes - both["padding"].nbytes == 2 * state.bytes
    with torch.no_grad():
        model(tokens(2, 3), mask=torch.tensor([[True, True, False], [True] * 3]), state=both)
    assert both.bytes - both["padding"].nbytes == 2 * state.bytes


def test_gradients_reach_a_padded_prompt(attention: nn.Module) -> None:
    one, two, step = tokens(1, 5), tokens(1, 3, 1), tokens(2, 1, 2)
    states = [new_state(attention, 1), new_state(attention, 1)]
    attention(one, state=states[0])
    attention(two, state=states[1])
    weights = list(attention.parameters())
    got = torch.autograd.grad(attention(step, state=State.cat(states)).square().sum(), weights)
    rows = [torch.cat((text, step[i : i + 1]), dim=1) for i, text in enumerate((one, two))]
    wanted = torch.autograd.grad(sum(attention(row)[:, -1].square().sum() for row in rows), weights)
    for g, w in zip(got, wanted, strict=True):
        assert (g - w).abs().max() <= 1e-9 * w.abs().max()
