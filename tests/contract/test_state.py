"""Decoding states in the hands of people: beams, shared prompts, rejected drafts, batches that change, files.

For every kind that keeps something, and for eager, generated and plain standalone models alike.
"""

from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch
from contract_models import models
from contract_specs import Document, cases, cut, double, example, host, inputs, name, redraw
from contract_texts import interpreted
from torch import Tensor, nn

from archspec.codegen import generate
from archspec.codegen.load import build, load_text
from archspec.decoding import State, new_state
from archspec.errors import StateError
from archspec.graph import graph
from archspec.language.load import load
from archspec.language.model import Spec
from archspec.layers.arguments import INPUTS
from archspec.layers.ops import Run
from archspec.passes.count import cache_bytes, kept

B, LONGEST, TOLERANCE = 3, 14, 1e-11
ROLES = ("mixer", "ffn", "position", "absolute_position", "rope_scaling", "embedding")
FORMS = ("eager", "generated", "plain")
WHOLE = ("hybrid", "encoder_decoder", "three_stacks", "shared", "overrides", "with_modules")
FORGETS = {"mamba", "mamba2", "lstm", "gru", "rnn", "hyena", "rwkv4", "rwkv4_channel_mix"}  # cannot go back


def by_rows(component: Document) -> bool:
    """Whether a row gives the same alone: not where experts choose among the tokens of the whole batch."""
    return component.get("choice_over") != "batch"


@cache
def documents() -> dict[str, Document]:
    found = {name(case): host(case[0], example(*case))[0] for case in cases(*ROLES) if by_rows(example(*case))}
    found |= {key: models()[key] for key in WHOLE}
    return {key: document for key, document in found.items() if any(a.of == "state" for a in load(document).arguments)}


@cache
def made(document: str, form: str) -> tuple[Spec, nn.Module]:
    """The spec and a model of it in float64, weights of unit gain, the same in every form."""
    spec = load(documents()[document]).taking(*INPUTS)
    if form == "eager":
        model = interpreted(spec)
    elif form == "generated":
        model = build(spec)
    else:
        model = load_text(generate(spec.taking("mask"), standalone="plain"), f"plain_{spec.name}_{spec.digest}").Model()
    return spec, redraw(model).double().eval()


class Case:
    """One model, with sequences for it."""

    def __init__(self, document: str, form: str):
        self.form = form
        self.spec, self.model = made(document, form)
        every = (*self.spec.main.parts, self.spec.main.embedding)
        within = [n for c in every for n in (c.longest, c.exact_within) if n is not None]
        self.T = min(LONGEST, *within) if within else LONGEST

    def given(self, seed: int = 1, B: int = B) -> dict[str, Any]:
        return double(inputs(self.spec, T=self.T, B=B, seed=seed))

    def state(self, batch: int = B, **options: Any) -> State:
        return new_state(self.spec, batch, dtype=torch.float64, **options)

    def run(self, given: dict[str, Any], state: Any, *cuts: int) -> Tensor:
        """The outputs of the tokens between the first cut and the last, in pieces."""
        pieces = pairwise(cuts)
        with torch.no_grad():
            parts = [self.model(**cut(self.spec, given, *ends), state=state) for ends in pieces]
        return torch.cat(parts, dim=1)

    def alone(self, given: dict[str, Any], *cuts: int) -> Tensor:
        """What each sequence gives by itself, from an empty dict."""
        rows = [rows_of(given, [i]) for i in range(len(next(iter(given.values()))))]
        return torch.cat([self.run(row, {}, *cuts) for row in rows])


def rows_of(given: dict[str, Any], rows: list[int]) -> dict[str, Any]:
    return {k: v[rows] if isinstance(v, Tensor) else v for k, v in given.items()}


def mixed(case: Case, first: dict[str, Any], then: dict[str, Any], n: int) -> dict[str, Any]:
    """The first n tokens of one and the rest of another; memories of the first."""
    own = {a.name for a in case.spec.arguments if a.stack == case.spec.main.name}
    return {k: torch.cat((v[:, :n], then[k][:, n:]), dim=1) if k in own else v for k, v in first.items()}


def close(got: Tensor, wanted: Tensor) -> None:
    assert got.shape == wanted.shape
    assert (got - wanted).abs().max() <= TOLERANCE * wanted.abs().max()


def chosen() -> list[tuple[str, str]]:
    """Eager models of all, generated and plain ones of those whose states differ; a plain file takes long to write."""
    alike = ("rope_scaling", "embedding", "position-rope", "ffn")
    other = [(d, f) for d in documents() for f in FORMS if f == "eager" or keeps(d) or not d.startswith(alike)]
    return [case for case in other if case not in (("hybrid", "plain"), ("overrides", "plain"))]


def keeps(document: str) -> bool:
    """Whether its feed-forward network keeps something itself."""
    return any(part.role == "ffn" and "state" in part.arguments for part in load(documents()[document]).main.parts)


@pytest.fixture(params=chosen(), ids="-".join, scope="module")
def case(request: pytest.FixtureRequest) -> Case:
    return Case(*request.param)


def test_beam_search_by_reorder_equals_each_beam_from_scratch(case: Case) -> None:
    T = case.T
    prompt, first, second = case.given(1), case.given(2), case.given(3)
    memory = rows_of(prompt, [0] * B)  # beams of one text share its memory
    prompt = mixed(case, memory, prompt, 0)
    state = case.state()
    case.run(prompt, state, 0, 3, T - 4)
    state.reorder([2, 0, 0])
    history = mixed(case, rows_of(prompt, [2, 0, 0]), first, T - 4)
    case.run(history, state, T - 4, T - 2)
    state.reorder(torch.tensor([1, 1, 2]))
    history = mixed(case, rows_of(history, [1, 1, 2]), second, T - 2)
    got = case.run(history, state, T - 2, T - 1, T)
    close(got, case.alone(history, 0, 3, T - 4, T - 2, T - 1, T)[:, T - 2 :])


def test_a_prompt_cloned_to_three_answers_equals_three_runs(case: Case) -> None:
    T = case.T
    prompt, n = case.given(1), T - 3
    whole = [mixed(case, prompt, case.given(seed), n) for seed in (2, 3, 4)]
    state = case.state()
    case.run(prompt, state, 0, n)
    answers = [state, state.clone(), state.clone()]
    got: list[list[Tensor]] = [[], [], []]
    for t in range(n, T):  # in turns, so that one would write on another's tokens
        for i, answer in enumerate(answers):
            got[i].append(case.run(whole[i], answer, t, t + 1))
    for i in range(3):
        close(torch.cat(got[i], dim=1), case.alone(whole[i], 0, n, *range(n + 1, T + 1))[:, n:])


def test_a_repeated_prompt_equals_separate_runs(case: Case) -> None:
    n = case.T - 2
    prompt = case.given(1)
    state = case.state()
    case.run(prompt, state, 0, n)
    rows = [0, 0, 1, 1, 2, 2]
    answers = mixed(case, rows_of(prompt, rows), case.given(2, B=6), n)
    twice = state.repeat(2)
    assert twice.batch == 6
    close(case.run(answers, twice, n, case.T), case.alone(answers, 0, n, case.T)[:, n:])
    close(case.run(prompt, state, n, case.T), case.alone(prompt, 0, n, case.T)[:, n:])


def test_a_rejected_draft_was_never_there_or_the_layer_is_named(case: Case) -> None:
    prompt, draft, n = case.given(1), case.given(2), 4
    taken = mixed(case, prompt, draft, n)
    state, whole = case.state(), mixed(case, mixed(case, prompt, draft, n), case.given(3), n + 1)
    case.run(prompt, state, 0, n)
    if forgets(case.spec):
        with pytest.raises(StateError, match=r"cannot go back to 2 of|cannot go back to 2 tokens") as error:
            state.truncate(2)
        assert any(f"({kind})" in str(error.value) for kind in (*FORGETS, "moe", "attention"))
        close(case.run(prompt, state, n, case.T), case.alone(prompt, 0, n, case.T)[:, n:])
        return
    before = state.bytes
    case.run(taken, state, n, n + 3)
    if case.form != "plain":
        assert state.bytes == before
    if (window := narrowest(case.spec)) is not None and n + 3 > window:
        with pytest.raises(StateError, match=f"keeps the last {window} tokens of a window"):
            state.truncate(n + 1)
        close(case.run(taken, state, n + 3, case.T), case.alone(taken, 0, n, n + 3, case.T)[:, n + 3 :])
        return
    state.truncate(n + 1)
    assert state.length == n + 1
    close(case.run(whole, state, n + 1, case.T - 1, case.T), case.alone(whole, 0, n, n + 1, case.T)[:, n + 1 :])


def forgets(spec: Spec) -> bool:
    """Whether some layer of the decoding stack adds all tokens up."""
    parts = spec.main.parts
    experts = [part for part in parts if part.role == "ffn"]
    chosen_late = any(getattr(part, "assignment", "token") == "expert" for part in experts)
    return chosen_late or any(part.kind in FORGETS for part in parts) or any("state" in p.arguments for p in experts)


def narrowest(spec: Spec) -> int | None:
    windows = [w - 1 for part in spec.main.parts if (w := getattr(part, "window", None)) is not None]
    return min(windows, default=None)


def test_every_state_can_start_again(case: Case) -> None:
    given, state = case.given(), case.state()
    wanted = case.run(given, state, 0, 3, case.T)
    state.truncate(0)
    assert state.length == 0
    close(case.run(given, state, 0, 3, case.T), wanted)


def test_sequences_leave_and_join(case: Case) -> None:
    T = case.T
    first, second = case.given(1), case.given(2)
    one, two = case.state(), case.state()
    case.run(first, one, 0, 4)
    case.run(second, two, 0, 4)
    both = State.cat([one.select([2, 0]), two.select([1])])
    assert both.batch == 3
    left, right = rows_of(first, [2, 0]), rows_of(second, [1])
    whole = {k: torch.cat((v, right[k])) if isinstance(v, Tensor) else v for k, v in left.items()}
    close(case.run(whole, both, 4, 5, T), case.alone(whole, 0, 4, 5, T)[:, 4:])
    close(case.run(first, one, 4, 5, T), case.alone(first, 0, 4, 5, T)[:, 4:])


def test_sequences_of_different_lengths_join_and_leave(case: Case) -> None:
    """Five, two and two tokens, then more for all, then for the short ones alone; what one has is that of itself."""
    T = case.T
    long, short = case.given(1, B=1), case.given(2, B=2)
    one, two = case.state(1), case.state(2)
    case.run(long, one, 0, 5)
    case.run(short, two, 0, 2)
    both = State.cat([one, two])
    assert (both.batch, both.length) == (3, 5)
    apart_long, apart_short = case.alone(long, 0, 5, 6, T), case.alone(short, 0, 2, 3, T)
    reads = both.layout.reads
    step = {**both_of(long, short), reads: torch.cat((long[reads][:, 5:6], short[reads][:, 2:3]))}
    got = case.run(step, both, 0, 1)
    close(got, torch.cat((apart_long[:, 5:6], apart_short[:, 2:3])))
    rest = both.select([2, 1])
    assert rest.length == 3
    close(case.run(rows_of(short, [1, 0]), rest, 3, T), apart_short[[1, 0], 3:])
    close(case.run(long, both.select([0]), 6, T), apart_long[:, 6:])


def both_of(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    return {k: torch.cat((v, b[k])) if isinstance(v, Tensor) else v for k, v in a.items()}


def test_a_state_in_a_file_goes_on_to_the_bit(case: Case, tmp_path: Path) -> None:
    given, state, path = case.given(), case.state(), tmp_path / "state.safetensors"
    case.run(given, state, 0, 4, 5)
    state.save(path)
    loaded = State.load(path, case.spec, batch=B, dtype=torch.float64)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert loaded.length == state.length
    assert torch.equal(case.run(given, loaded, 5, 6, case.T), case.run(given, state, 5, 6, case.T))


def test_bytes_are_those_of_torch_and_of_count(case: Case) -> None:
    given, state = case.given(), case.state()
    case.run(given, state, 0, 4, case.T)
    memory = next((v.shape[1] for k, v in given.items() if k != state.layout.reads), 0)
    nodes = [node for node in graph(case.spec).nodes if node.stack == case.spec.main.name]
    held = case.form != "plain"
    counted = B * cache_bytes(with_batch(nodes), case.T, 8, held=held) if not memory else 0
    earlier = [p for p, e in state.layout.entries if not e.counted and isinstance(state.get(p), Tensor)]
    beside = sum(state[p].numel() * 8 for p in earlier)
    stored = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors(state)}
    assert state.bytes == sum(stored.values())
    run = Run(B, 1, case.T, memory)
    needed = sum(n.repeat * k.width(8) * prod(k.needed(run)) for n, k in kept(nodes))
    if len(earlier) < 2:  # further stacks have memories of their own lengths
        assert state.bytes_used == needed + beside
    if not memory:
        shared = sum(n.repeat * k.width(8) * prod(k.held(run)) for n, k in kept(nodes) if k.batch_axis is None)
        assert state.bytes == counted + shared


def with_batch(nodes: list[Any]) -> list[Any]:
    """The nodes without what serves all sequences at once, which is there once however many there are."""
    only = [(n, tuple(k for k in n.op.kept if k.batch_axis is not None)) for n in nodes]
    return [n._replace(op=type(n.op)(**{**fields(n.op), "kept": k})) for n, k in only]


def fields(op: Any) -> dict[str, Any]:
    from dataclasses import fields as names

    return {f.name: getattr(op, f.name) for f in names(op)}


def tensors(tree: Any) -> Iterator[Tensor]:
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, dict | tuple):
        for value in tree.values() if isinstance(tree, dict) else tree:
            yield from tensors(value)
