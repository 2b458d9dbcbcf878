"""What PyTorch does with a state: copies, gradients, modes of inference, types and compilers."""

import copy
import pickle
from typing import Any

import pytest
import torch
from decoding_models import decoded, model_of, steps, tokens
from torch import nn

from archspec import State, new_state
from archspec.decoding.tree import leaves
from archspec.modules.model import eager


@pytest.mark.parametrize("copied", [copy.deepcopy, copy.copy, State.copy, lambda s: pickle.loads(pickle.dumps(s))])
def test_a_copied_state_goes_on_by_itself(model: nn.Module, copied: Any) -> None:
    x, state = tokens(2, 9), new_state(model, 2)
    decoded(model, x[:, :5], state, 5)
    other = copied(state)
    assert type(other) is State
    wanted = decoded(model, x[:, 5:], state, *steps(4))
    decoded(model, tokens(2, 2, 7), state, 2)
    assert torch.equal(decoded(model, x[:, 5:], other, *steps(4)), wanted)
    assert (other.batch, other.layout, other.dtype) == (2, state.layout, torch.float64)


def test_models_that_know_their_spec_are_copied_and_pickled(hybrid: nn.Module) -> None:
    for model in (
        copy.deepcopy(hybrid),
        pickle.loads(pickle.dumps(eager(hybrid._spec))),
    ):
        assert new_state(model, 2).layout == new_state(hybrid, 2).layout
        model.double()(tokens(2, 3), state=new_state(model, 2))
    assert list(hybrid.state_dict()) == list(eager(hybrid._spec).state_dict())


def test_gradients_reach_the_prompt_through_every_copy(model: nn.Module) -> None:
    x, y = tokens(2, 5), tokens(4, 3)
    whole = torch.cat((x.repeat_interleave(2, dim=0), y), dim=1)
    wanted = torch.autograd.grad(model(whole)[:, 5:].square().sum(), list(model.parameters()), allow_unused=True)
    state = new_state(model, 2)
    prompt = model(x, state=state)
    answers = state.clone().repeat(2).to("cpu")
    answers.reorder([1, 0, 3, 2])
    joined = State.cat([answers.select([0, 1]), answers.select([2, 3])])
    got = torch.autograd.grad(model(y, state=joined).square().sum(), list(model.parameters()), allow_unused=True)
    assert prompt.requires_grad
    for g, w in zip(got, wanted, strict=True):
        assert (g is None) == (w is None)
        assert g is None or (g - w).abs().max() <= 1e-9 * w.abs().max() + 1e-12


def test_truncating_leaves_what_autograd_has_saved(attention: nn.Module) -> None:
    x, state = tokens(2, 8), new_state(attention, 2)
    first = attention(x[:, :5], state=state)
    loss = first.square().sum() + attention(x[:, 5:7], state=state).square().sum()
    state.truncate(5)
    got = decoded(attention, x[:, 7:], state, 1)
    loss.backward()
    assert (got - decoded(attention, torch.cat((x[:, :5], x[:, 7:]), dim=1), {}, 6)[:, 5:]).abs().max() < 1e-12


def test_modes_may_change_between_calls(model: nn.Module) -> None:
    x, state = tokens(2, 8), new_state(model, 2)
    with torch.inference_mode():
        model(x[:, :3], state=state)
        state.reorder([0, 1])
    got = decoded(model, x[:, 3:5], state, 2)
    other = state.clone()
    with torch.inference_mode():
        model(x[:, 5:6], state=other)
    model(x[:, 5:], state=state).sum().backward()
    assert (got - decoded(model, x, {}, 8)[:, 3:5]).abs().max() < 1e-12


def test_bfloat16(model: nn.Module) -> None:
    half, x = copy.deepcopy(model).bfloat16(), tokens(2, 9)
    state, plain = new_state(half, 2, max_len=20), {}
    decoded(half, x[:, :5], plain, 5)
    decoded(half, x[:, :5], state, 5)
    state.reorder([0, 1])
    assert torch.equal(decoded(half, x[:, 5:], state, *steps(4)), decoded(half, x[:, 5:], plain, *steps(4)))
    wide = state.to(dtype=torch.float64)
    assert decoded(model, x[:, 5:], wide, 4).dtype == torch.float64
    kept = {e.kept.dtype for _, e in state.layout.entries if e.counted}
    assert {h.tensor.dtype for h in leaves(state)} == (
        {torch.bfloat16} if kept == {"model"} else {torch.bfloat16, torch.float32}
    )
    assert {h.tensor.dtype for h in leaves(wide)} == {torch.float64}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "max_len"), [("window", None), ("window", 50), ("lstm", None)])
def test_a_state_compiles_as_a_dict_does(name: str, max_len: int | None) -> None:
    torch.compiler.reset()
    model = model_of(name)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    x, state = tokens(2, 9), new_state(model, 2, max_len)
    wanted = decoded(model, x, {}, 9)
    got = decoded(compiled, x[:, :6], state, 4, 1, 1)
    state.reorder([1, 0])
    rest = decoded(compiled, x[:, 6:].flip(0), state, 1, 2)
    assert (torch.cat((got, rest.flip(0)), dim=1) - wanted).abs().max() < 1e-9


def test_an_empty_dict_still_works(model: nn.Module) -> None:
    x = tokens(2, 6)
    assert (decoded(model, x, {}, 4, 1, 1) - decoded(model, x, new_state(model, 2), 4, 1, 1)).abs().max() < 1e-12
