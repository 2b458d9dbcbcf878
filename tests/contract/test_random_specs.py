"""Random components and random whole specs: counted as they are built, generated as interpreted, causal, decodable."""

import ast
import json
from typing import Any

import pytest
import torch
from contract_changes import changed, changes
from contract_models import WIRINGS, model
from contract_specs import (
    LENGTH,
    MLP,
    PLAIN,
    SIZES,
    Document,
    cases,
    cut,
    double,
    every_component,
    example,
    found_at,
    host,
    inputs,
    kinds,
    name,
    redraw,
    remembers,
    run,
)
from contract_texts import interpreted
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from archspec.codegen import generate
from archspec.codegen.layout import WIDTH
from archspec.codegen.load import build
from archspec.errors import SpecError
from archspec.graph import lower, problems
from archspec.language.load import load, loads
from archspec.language.model import Spec
from archspec.language.names import bad_block_name
from archspec.language.show import show
from archspec.language.wirings import BUILTINS
from archspec.passes.count import count

SLOW = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]


def at_most(examples: int) -> settings:
    """The same examples in every run."""
    return settings(
        max_examples=examples, deadline=None, derandomize=True, database=None, suppress_health_check=SLOW,
        phases=(Phase.generate,),
    )  # fmt: skip


def try_load(document: Document) -> Spec | None:
    try:
        return load(document)
    except SpecError:
        return None


# What must hold of any spec


def check(spec: Spec) -> None:
    assert problems(lower(spec)) == []
    assert loads(show(spec)) == spec
    check_text(generate(spec))
    made, read = build(spec), interpreted(spec)
    check_count(spec, made)
    read.load_state_dict(redraw(made).state_dict())
    check_same(spec, made, read)
    if spec.causal:
        check_decoding(spec, made.double().eval())


def check_text(text: str) -> None:
    """It is Python, and no line is longer than the house allows, whatever the names."""
    ast.parse(text)
    assert [line for line in text.splitlines() if len(line) > WIDTH] == []


def check_count(spec: Spec, made: nn.Module) -> None:
    counted = count(spec)
    parameters = [(t.name, t.shape) for t in counted.tensors if not t.buffer]
    assert parameters == [(k, tuple(p.shape)) for k, p in made.named_parameters()]
    assert counted.total == sum(p.numel() for p in made.parameters())
    assert counted.active <= counted.total


def check_same(spec: Spec, made: nn.Module, read: nn.Module) -> None:
    for training in (False, True):
        arguments = inputs(spec, optional=training, T=9)
        outputs = []
        for m in (made.train(training), read.train(training)):
            m.zero_grad()
            torch.manual_seed(0)
            y, aux, _ = run(m, spec, arguments)
            (y.square().mean() + aux).backward()
            outputs.append(y)
        assert same(*outputs)
        for (k, p), q in zip(made.named_parameters(), read.parameters(), strict=True):
            assert same(p.grad, q.grad), k


def same(a: Tensor | None, b: Tensor | None) -> bool:
    """Equal to the bit; a random model without norms may also overflow, in both in the same places."""
    if a is None or b is None:
        return a is b
    return torch.equal(a.isnan(), b.isnan()) and torch.equal(a.nan_to_num(), b.nan_to_num())


@torch.no_grad()
def check_decoding(spec: Spec, made: nn.Module) -> None:
    length = min(remembers(c) for c in every_component(spec))
    arguments = double(inputs(spec, T=length))
    whole = made(**arguments)
    tolerance = 1e-9 * max(1.0, float(whole.nan_to_num().abs().max()))  # one without norms may overflow
    for k in (1, 4, length - 1):
        torch.testing.assert_close(
            made(**cut(spec, arguments, 0, k)), whole[:, :k], rtol=0, atol=tolerance, equal_nan=True
        )
    if not any(a.of == "state" for a in spec.arguments):
        return
    for sizes in ([1] * length, [3, 1, length - 4]):
        state: dict[str, Any] = {}
        ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
        pieces = [cut(spec, arguments, end - n, end) for n, end in zip(sizes, ends, strict=True)]
        decoded = torch.cat([made(**piece, state=state) for piece in pieces], dim=1)
        torch.testing.assert_close(decoded, whole, rtol=0, atol=tolerance, equal_nan=True)


# Components with several settings changed at once


@st.composite
def perturbed(draw: st.DrawFn, role: str, kind: str) -> Spec:
    """The spec around an example, after some changes that validation accepts."""
    number = draw(st.sampled_from([n for r, k, n in cases(role) if k == kind]))
    document, path = host(role, example(role, kind, number))
    spec = load(document)
    for _ in range(draw(st.integers(1, 5))):
        options = [c for c in changes(found_at(spec, role, kind), path) if not is_huge(c.value)]
        other = changed(document, draw(st.sampled_from(options))) if options else document
        accepted = try_load(other)
        if accepted is not None:
            document, spec = other, accepted
    return spec


def is_huge(value: Any) -> bool:
    return isinstance(value, int) and value > 64


RANDOM = [k for k in kinds("mixer", "ffn", "embedding", "head") if k != ("head", "none")]


@pytest.mark.parametrize(("role", "kind"), RANDOM, ids=map(name, RANDOM))
@at_most(3)
@given(data=st.data())
def test_random_component(role: str, kind: str, data: st.DataObject) -> None:
    check(data.draw(perturbed(role, kind)))


# Whole specs


def examples(*kinds: tuple[str, str]) -> st.SearchStrategy[Document]:
    """Examples of these kinds that may stand in any causal block."""
    found = [example(*case) for case in cases() if case[:2] in kinds]
    return st.sampled_from([e for e in found if e.get("mask", "causal") == "causal" and not e.get("bidirectional")])


MIXERS, FFNS, NORMS, INITS = (examples(*kinds(role)) for role in ("mixer", "ffn", "norm", "init"))
POSITIONS = examples(("position", "rope"), ("position", "alibi"))
WIRED = st.sampled_from([*BUILTINS, *WIRINGS.values()])
LONGEST = 60
LABELS = st.from_regex(r"[a-zA-Z][a-zA-Z0-9_]{0,58}[a-zA-Z]", fullmatch=True).filter(lambda s: not bad_block_name(s))
LONG_LABELS = st.text("abcdXYZ", min_size=LONGEST, max_size=LONGEST)
HEADS = st.sampled_from(
    [{"kind": "lm"}, {"kind": "lm", "tied": True}, {"kind": "masked_lm"}, {"kind": "lm", "softcap": 3.0},
     {"kind": "none"}, {"kind": "regression", "pool": "none"},
     {"kind": "classification", "n_classes": 3, "pool": "mean"}]
)  # fmt: skip
EMBEDDINGS = st.sampled_from(
    [{"kind": "token"}, {"kind": "token", "position": {"kind": "learned"}}, {"kind": "token", "d_factor": 6},
     {"kind": "token", "position": {"kind": "sinusoidal"}, "scale": 4.0, "norm": {"kind": "layernorm"}}]
)  # fmt: skip


@st.composite
def blocks(draw: st.DrawFn) -> Document:
    block: Document = {"mixer": draw(MIXERS), "ffn": draw(FFNS), "wiring": draw(WIRED)}
    if draw(st.booleans()) and block["mixer"]["kind"] == "attention":
        block["mixer"] = {"kind": "attention", "n_heads": 1, "head_dim": 16, "position": draw(POSITIONS)}
    if isinstance(block["wiring"], str) and not block["wiring"].startswith("parallel"):
        block.pop(draw(st.sampled_from(["mixer", "ffn", "", ""])), None)
    if draw(st.booleans()):
        block["norm"] = draw(NORMS)
    return block


@st.composite
def documents(draw: st.DrawFn) -> Document:
    top: Document = {"norm": draw(NORMS), "init": draw(INITS), "embedding": draw(EMBEDDINGS), "head": draw(HEADS)}
    if draw(st.booleans()):
        top["dropout"] = 0.25
    labels = draw(st.lists(st.one_of(LABELS, LONG_LABELS), min_size=1, max_size=3, unique=True))
    define = {label: draw(blocks()) for label in labels}
    repeat = {"repeat": draw(st.integers(2, 3)), "pattern": list(define)} | draw(st.sampled_from([{}, {"share": True}]))
    return model(draw(st.sampled_from([[repeat], list(define), [*define, labels[0], repeat]])), define=define, **top)


@st.composite
def specs(draw: st.DrawFn) -> Spec:
    """A random document; what validation refuses in it is taken out."""
    document = draw(documents())
    for _ in range(20):
        try:
            return load(document)
        except SpecError as error:
            for problem in error.problems:
                if "remove share" in problem.message:  # told of the layers, which may be defined elsewhere
                    document["blocks"] = [_apart(item) for item in document["blocks"]]
                else:
                    remove(document, problem.path)
    raise AssertionError("nothing loads")


def _apart(item: Any) -> Any:
    """An entry of the blocks without shared weights."""
    return {key: value for key, value in item.items() if key != "share"} if isinstance(item, dict) else item


def remove(document: Any, path: str) -> None:
    """Drop the setting that a problem speaks of, or the nearest thing around it that can go."""
    keys = [k for k in path.replace("[", ".[").split(".") if k]
    here, parents = document, []
    for key in keys:
        step: Any = int(key[1:-1]) if key.startswith("[") else key
        parents.append((here, step))
        here = here.get(step) if isinstance(here, dict) else here[step] if isinstance(here, list) else None
    for parent, step in reversed(parents):
        kept = step in ("define", "blocks", "kind") or parent is document.get("define")
        if isinstance(parent, dict) and step in parent and not kept:
            del parent[step]
            return


# Several variants of one kind in one file


def variants(role: str, kind: str) -> list[Document]:
    """Blocks around the examples of a kind, and around some changes of each that validation accepts."""
    found: dict[str, Document] = {}
    for number in range(sum(case[:2] == (role, kind) for case in cases(role))):
        document, path = host(role, example(role, kind, number))
        if "stacks" in document:
            continue  # cross-attention stands in another stack
        options = [c for c in changes(found_at(load(document), role, kind), path) if not is_huge(c.value)]
        for other in [document, *(changed(document, option) for option in options[:: max(1, len(options) // 3)])]:
            if try_load(other) is not None:
                block = {k: v for k, v in other["blocks"][0].items() if k != "repeat"}
                block |= {"norm": other["norm"]} if role == "norm" else {}
                found[json.dumps(block, sort_keys=True)] = block
    return list(found.values())


VARIED = kinds("mixer", "ffn", "norm", "position", "rope_scaling", "scale")


@pytest.mark.parametrize(("role", "kind"), VARIED, ids=map(name, VARIED))
def test_variants_of_one_kind_share_a_file(role: str, kind: str) -> None:
    define: Document = {}
    for block in variants(role, kind):
        wider = define | {f"{'variant_' * 8}"[: LONGEST - 2] + f"{len(define):02}": block}
        if len(define) < 8 and try_load(model(list(wider), define=wider)) is not None:  # one T5 table serves a stack
            define = wider
    spec = load(model(list(define), define=define))
    check(spec)
    check_text(generate(spec, standalone=True))


def test_variants_of_embeddings_share_a_file() -> None:
    """Each in a stack of its own, under names of the greatest length."""
    found = [example(*case) for case in cases("embedding") if case[1] == "token"][:6]
    found += [{"kind": "token", "position": example(*case)} for case in cases("absolute_position")]
    stacks: Document = {}
    for number, embedding in enumerate(found):
        block = {"mixer": {**PLAIN, "mask": "causal" if number + 1 == len(found) else "bidirectional"}}
        before = {"memory": list(stacks)[-1]} if stacks else {}
        cross = {"cross": PLAIN} if stacks else {}
        label = f"stack{number:02}_" + "x" * (LONGEST - 8)
        stacks[label] = {"embedding": embedding, "d_model": 16, "blocks": [block | cross], **before}
    head = {"kind": "classification", "n_classes": 3, "pool": "mean"}
    check(load({"name": "stacks", **SIZES, "stacks": stacks, "head": head}))


@at_most(15)
@given(spec=specs())
def test_random_spec(spec: Spec) -> None:
    check(spec)


def test_a_random_spec_can_go_wrong() -> None:
    """The checks see a model that is not the spec's."""
    spec = load(model([{"mixer": PLAIN, "ffn": MLP}]))
    other = load(model([{"mixer": PLAIN, "ffn": {**MLP, "activation": "silu"}}]))
    made, read = build(spec), interpreted(other)
    read.load_state_dict(redraw(made).state_dict())
    with pytest.raises(AssertionError):
        check_same(spec, made, read)
    with pytest.raises(AssertionError):
        check_count(load(model([{"mixer": PLAIN, "ffn": {**MLP, "bias": True}}])), made)
    bidirectional = load(model([{"mixer": {**PLAIN, "mask": "bidirectional"}, "ffn": MLP}]))
    with pytest.raises(AssertionError):
        check_decoding(bidirectional, redraw(interpreted(bidirectional)).double().eval())
    assert LENGTH
