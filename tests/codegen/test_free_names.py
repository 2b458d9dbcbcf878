"""Any name that validation lets through gives a file that compiles and runs, whatever else has that name in it."""

import ast
import builtins
import itertools
import json
import keyword
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import archspec
from archspec.codegen.load import load_text
from archspec.codegen.names import camel
from archspec.language.names import bad_block_name, bad_name

Document = dict[str, Any]
ROOT = Path(__file__).resolve().parents[2]
WIDTH = 120
SIZES = {"d_model": 8, "vocab_size": 11, "max_seq_len": 16}
ATTENTION = {"kind": "attention", "n_heads": 2, "position": {"kind": "rope"}}
CROSS = {"kind": "attention", "n_heads": 2}
MOE = {"kind": "moe", "n_experts": 4, "top_k": 2, "d_ff": 6, "balance_loss": 0.1, "correction_bias": True}
FILES = ("jamba_v0_1", "t5_small")
BROKE = [
    "spec",
    "value",
    "call",
    "once",
    "substate",
    "EPS",
    "STD",
    "aux",
    "aux_loss",
    "update_bias",
    "collect",
    "scope",
    "single",
    "stacks",
    "c_",
]


def words() -> list[str]:
    """What generated files define, import and read, and words of Python and PyTorch, in several spellings."""
    found = dict.fromkeys(BROKE)
    for file in FILES:
        for node in ast.walk(ast.parse((ROOT / f"examples/generated/{file}.py").read_text())):
            names = [getattr(node, key, None) for key in ("id", "attr", "name", "asname", "arg", "module")]
            found |= dict.fromkeys(part for name in names if isinstance(name, str) for part in name.split("."))
    spelled = dict.fromkeys(way(word) for word in found for way in (str, camel))
    spelled |= dict.fromkeys([*dir(builtins), *keyword.kwlist, *keyword.softkwlist, *dir(nn.Module)])
    return [word for word in spelled if word and not word.startswith("_")]


WORDS = words()
LONG = [f"{letter}{'long_name_' * 6}"[:60] for letter in "abcdefgh"] + [f"{'Wide' * 14}{n}" for n in range(1000, 1008)]


def batches(names: list[str], size: int) -> list[list[str]]:
    """Names in lists of at most that size."""
    return [names[i : i + size] for i in range(0, len(names), size)]


def stacks(names: list[str]) -> Document:
    """Each name a stack, which reads the one before it."""
    first = {"mixer": {**ATTENTION, "mask": "bidirectional"}, "ffn": MOE}
    parts: Document = {names[0]: {"blocks": [first]}}
    for before, name in itertools.pairwise(names):
        parts[name] = {"memory": before, "blocks": [{"mixer": ATTENTION, "cross": CROSS}]}
    return {"name": "stacks", **SIZES, "norm": "rmsnorm", "stacks": parts, "head": {"kind": "lm"}}


def blocks(names: list[str]) -> Document:
    """Each name a block, no two alike."""
    define = {name: {"mixer": ATTENTION, "ffn": {"kind": "mlp", "d_ff": 4 + i}} for i, name in enumerate(names)}
    return {"name": "blocks", **SIZES, "define": define, "blocks": names, "head": {"kind": "lm"}}


def modules(names: list[str]) -> Document:
    """Each name a module of one block, each of which runs."""
    kinds = [ATTENTION, {"kind": "layernorm"}, {"kind": "mlp", "d_ff": 4}, {"kind": "layer_scale"}]
    parts = {name: kinds[i % 4] if i else MOE for i, name in enumerate(names)}
    block = {"modules": parts, "wiring": [f"x = x + {name}(x)" for name in names]}
    return {"name": "modules", **SIZES, "blocks": [{"repeat": 2, **block}], "head": {"kind": "lm"}}


def check(document: Document) -> None:
    """The file of a document compiles, has no line that is too long, and gives a model that runs in every way."""
    spec = archspec.loads(json.dumps(document))
    text = archspec.generate(spec)
    assert [line for line in text.splitlines() if len(line) > WIDTH] == []
    model = load_text(text, "names").Model()
    given = {a.name: torch.randint(11, (2, 5)) for a in spec.arguments if not a.optional}
    aux: dict[str, Any] = {}
    y = model(**given, aux=aux) if spec.aux_losses else model(**given)
    assert y.shape == (2, 5, 11)
    if spec.aux_losses:
        (y.sum() + model.aux_loss(aux)).backward()
    if spec.moves_biases:
        model.update_bias(aux)
    model.eval()
    if all(a.of != "state" for a in spec.arguments):  # a last batch of one name, which mixes nothing
        return
    state: dict[str, Any] = {}
    with torch.no_grad():
        whole = model(**given)
        last = spec.arguments[len(spec.stacks) - 1].name
        pieces = [model(**given | {last: given[last][:, i : i + 1]}, state=state) for i in range(5)]
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole, rtol=1e-3, atol=1e-4)


def accepted(names: list[str], wrong: Callable[[str], str]) -> list[str]:
    """The names that validation lets through."""
    return [name for name in names if not wrong(name)]


SUBLAYERS = ("mixer", "cross", "ffn")
ATTRIBUTES = accepted(WORDS, bad_name)
LABELS = accepted(WORDS, bad_block_name)
CASES = [
    *((stacks, batch) for batch in batches([*ATTRIBUTES, *LONG], 16)),
    *((modules, batch) for batch in batches([n for n in [*ATTRIBUTES, *LONG] if n not in SUBLAYERS], 100)),
    *((blocks, batch) for batch in batches([*LABELS, *LONG], 100)),
]


def test_hundreds_of_names_are_tried() -> None:
    assert len(ATTRIBUTES) > 400
    assert len(LABELS) > 400
    assert {"EPS", "substate", "once", "value", "call"} <= {*ATTRIBUTES}
    assert {"forward", "class", "state"} & {*ATTRIBUTES} == set()


@pytest.mark.parametrize(("make", "names"), CASES, ids=lambda v: v.__name__ if callable(v) else f"{v[0]}-{v[-1]}"[:40])
def test_a_name_that_is_accepted_works(make: Callable[[list[str]], Document], names: list[str]) -> None:
    check(make(names))
