"""States taken back: what goes, what does not, and why."""

import pytest
import torch
from decoding_models import model_of, tokens
from torch import nn

from archspec import StateError, new_state


def test_speculative_decoding_gives_what_greedy_decoding_gives(attention: nn.Module) -> None:
    """A draft model proposes four tokens, the model keeps those that it would have chosen; many are rejected."""
    draft, prompt = model_of("attention", torch.float64), tokens(1, 5)
    with torch.no_grad():
        for p in draft.parameters():
            p.mul_(1 + 0.2 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)).double())
        greedy, state = prompt, new_state(attention, 1)
        step = greedy
        while greedy.shape[1] < 60:
            step = attention(step, state=state)[:, -1:].argmax(-1)
            greedy = torch.cat((greedy, step), dim=1)

        text, mine, theirs, rejected = prompt, new_state(attention, 1, max_len=64), new_state(draft, 1, max_len=64), 0
        while text.shape[1] < 60:
            guess = text
            for _ in range(4):
                step = draft(guess[:, theirs.length :], state=theirs)[:, -1:].argmax(-1)
                guess = torch.cat((guess, step), dim=1)
            said = attention(guess[:, mine.length :], state=mine)[:, -5:].argmax(-1)
            right = int((said[:, :4] == guess[:, -4:]).long().cumprod(1).sum())
            rejected += 4 - right
            text = torch.cat((guess[:, : text.shape[1] + right], said[:, right : right + 1]), dim=1)
            mine.truncate(text.shape[1] - 1)
            theirs.truncate(min(theirs.length, text.shape[1] - 1))
    assert rejected > 0
    assert torch.equal(text[:, :60], greedy)


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("recurrence", r"^the state cannot go back to 4 of 9 tokens: blocks.0.mixer \(mamba\) keeps the last 3 inputs"
                       r" of a convolution \(0.mixer.conv\), in which earlier tokens cannot be told apart; keep"),
        ("lstm", r"go back to 4 of 9 tokens: blocks.0.mixer \(lstm\) keeps the state of a recurrence \(0.mixer.h\)"),
        ("hybrid", r"cannot go back to 4 of 9 tokens: blocks.0.mixer \(mamba\) keeps"),
        ("window", r"cannot go back to 4 of 9 tokens: blocks.0.mixer \(attention\) keeps the last 5 tokens of a window"
                   r" \(0.mixer.k\) and has dropped earlier ones"),
    ],
)  # fmt: skip
def test_what_cannot_go_back_is_named_and_left(name: str, error: str) -> None:
    model, x, state = model_of(name), tokens(2, 12), {}
    state = new_state(model, 2)
    with torch.no_grad():
        model(x[:, :9], state=state)
        with pytest.raises(StateError, match=error):
            state.truncate(4)
        assert (model(x[:, 9:], state=state) - model(x)[:, 9:]).abs().max() < 1e-12


def test_a_window_goes_back_while_it_holds_all(attention: nn.Module) -> None:
    model, x = model_of("window"), tokens(2, 12)
    state = new_state(model, 2)
    with torch.no_grad():
        model(tokens(2, 5, 1), state=state)
        state.truncate(0)
        model(torch.cat((x[:, :3], tokens(2, 2, 1)), dim=1), state=state)
        state.truncate(3)
        assert (model(x[:, 3:], state=state) - model(x)[:, 3:]).abs().max() < 1e-12


def test_no_tokens_that_were_not_seen(attention: nn.Module) -> None:
    state = new_state(attention, 2)
    with torch.no_grad():
        attention(tokens(2, 5), state=state)
    for n in (6, -1):
        with pytest.raises(StateError, match=f"expected 0 to 5 tokens, those that the state has seen, found {n}"):
            state.truncate(n)
    state.truncate(5)
    assert state.length == 5


def test_going_back_moves_nothing(attention: nn.Module) -> None:
    state = new_state(attention, 2)
    with torch.no_grad():
        attention(tokens(2, 9), state=state)
        before = state["0"]["mixer"]["k"]
        state.truncate(4)
        assert state["0"]["mixer"]["k"] is before
        assert state["0"]["mixer"]["k_span"] == (0, 4)
