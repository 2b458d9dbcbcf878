"""Whatever a spec may say acts: change one setting, and the model, a loss or the plan changes.

Or the change is refused, or a warning says that it has no effect.
"""

import copy
from collections import defaultdict
from typing import Any

import pytest
from contract_changes import Change, Observed, changed, changes, difference
from contract_models import ATTENTION, MAMBA, MOE, bert, encoder_decoder, hybrid, model, signal, vit
from contract_specs import MLP, SIZES, Document, cases, example, found_at, host, kinds, name

from archspec.errors import SpecError
from archspec.language.load import load
from archspec.language.rules import settable
from archspec.layers.registry import find

IDLE = {"refused", "warned", ""}
PLAN_ALONE = {"chunk"}  # settings of how much is computed at a time, which no output shows
# What can have one value only, because it repeats what something else says; any other is refused.
AGREES = {("absolute_position", "dim"), ("mixer", "head_dim", "mla"), ("mixer", "n_heads", "mamba2"),
          ("position", "bidirectional")}  # fmt: skip
# Bounds that small models and short texts do not come near: enough if some example does.
BOUNDS = {"beta_fast", "beta_slow", "truncate", "dt_limit_max", "original_max_seq_len"}


def result(base: Observed, document: Document) -> str:
    """What a changed document does: refused, what it changes, warned of, or nothing."""
    try:
        spec = load(document)
    except SpecError:
        return "refused"
    found = difference(base, Observed(spec))
    new = {w.message for w in spec.warnings} - {w.message for w in base.spec.warnings}
    return "warned" if found in ("", "plan") and new else found


@pytest.mark.parametrize(("role", "kind"), kinds(), ids=map(name, kinds()))
def test_every_setting_of_a_component_acts(role: str, kind: str) -> None:
    reached: dict[str, set[str]] = defaultdict(set)
    idle: dict[str, list[str]] = defaultdict(list)
    for _, _, number in [c for c in cases(role) if c[1] == kind]:
        document, path = host(role, example(role, kind, number))
        base = Observed(load(document))
        numbers: dict[tuple[Any, ...], dict[Change, str]] = defaultdict(dict)
        for change in changes(found_at(base.spec, role, kind), path):
            where = (*change.path[len(path) :], change.field)
            if change.number and set(numbers[where].values()) - IDLE:
                continue  # one number that acts is enough
            found = result(base, changed(document, change))
            reached[change.field] |= {found} if change.path == path else set()
            if change.number:
                numbers[where][change] = found
            elif not found or (found == "plan" and change.field not in PLAN_ALONE):
                idle[change.field].append(f"example {number}: {change} ({found or 'no difference'})")
        for tried in numbers.values():
            accepted = {k: v for k, v in tried.items() if v not in ("refused", "warned")}
            alive = {v for k, v in accepted.items() if v and (v != "plan" or k.field in PLAN_ALONE)}
            if accepted and not alive:
                idle[next(iter(accepted)).field].append(f"example {number}: " + ", ".join(map(str, accepted)))
    acting = {f for f in reached if reached[f] - IDLE}
    dead = [line for field, lines in idle.items() for line in lines if field not in BOUNDS]
    assert not dead, "\n".join(dead)
    agrees = {f for r, f, *k in AGREES if r == role and k in ([], [kind])}
    never = set(settable(find(role, kind))) - {"kind"} - acting - agrees
    assert not never, f"no example lets these act: {sorted(never)}"


# What a spec, a stack and a block may say. Each value differs from every default; in each place it must act.

NORM = {"kind": "layernorm", "eps": 0.25}
TOP: dict[str, list[Any]] = {
    "d_model": [24],
    "vocab_size": [13],
    "max_seq_len": [48],
    "embedding": [
        {"kind": "token", "scale": 2.0},
        {"kind": "token", "position": {"kind": "sinusoidal"}},
        {"kind": "features", "d_input": 5},
    ],
    "norm": [NORM, {"kind": "layernorm", "affine": False}, {"kind": "rmsnorm", "one_plus": True}],
    "dropout": [0.3],
    "mask": ["bidirectional", "prefix"],
    "wiring": ["post", "sandwich", "inner_post", "deepnorm", "layer_scale", "none", "parallel", "parallel_two_norms"],
    "init": [{"kind": "xavier"}, {"kind": "normal", "std": 0.5}, "pytorch", "t5", "fan_in"],
    "final_norm": [False, {"kind": "layernorm", "eps": 0.25}],
    "head": [
        {"kind": "lm", "tied": True},
        {"kind": "lm", "scale": 0.5},
        "none",
        {"kind": "regression", "pool": "mean"},
    ],
    "inputs": [["positions"], ["documents"]],
    "sizes": [{"unused": 3}],
}
BLOCK: dict[str, list[Any]] = {
    "norm": [NORM],
    "dropout": [0.3],
    "wiring": ["post", "sandwich", "inner_post", "deepnorm", "layer_scale", "parallel", "parallel_two_norms"],
    "mixer": [MAMBA],
    "ffn": [MLP],
    "modules": [{"extra": MLP}],
    "cross": [{"kind": "attention", "n_heads": 1}],
}
ALIKE = ("d_model", "vocab_size", "max_seq_len", "norm", "dropout", "wiring", "final_norm")
STACK: dict[str, list[Any]] = {
    **{key: TOP[key] for key in ALIKE},
    "mask": ["prefix"],
    "memory": ["encoder"],
    "tie_embedding": ["encoder"],
}

NO_NORM = ["x = x + mixer(x)", "x = x + ffn(x)"]
BASES: dict[str, Document] = {
    "plain": model([{"mixer": ATTENTION, "ffn": MLP}]),
    "experts": model([{"mixer": ATTENTION, "ffn": MOE}]),
    "hybrid": {k: v for k, v in hybrid().items() if k != "dropout"},
    "mamba": model([{"mixer": MAMBA}]),
    "lstm": model([{"mixer": {"kind": "lstm"}, "ffn": MLP}]),
    "own_wiring": model([{"mixer": ATTENTION, "ffn": MLP, "wiring": NO_NORM}], final_norm=False),
    "own_everything": model(
        [{"mixer": ATTENTION, "ffn": MLP, "norm": {"kind": "rmsnorm", "eps": 0.5}, "wiring": "post"}]
    ),
    "bert": {k: v for k, v in bert().items() if k != "dropout"},
    "vit": vit(),
    "signal": {k: v for k, v in signal().items() if k != "dropout"},
}


@pytest.mark.parametrize("base", BASES)
def test_every_key_of_a_spec_acts(base: str) -> None:
    check(BASES[base], (), TOP)


@pytest.mark.parametrize("base", [b for b in BASES if isinstance(BASES[b]["blocks"], list)])
def test_every_key_of_a_block_acts(base: str) -> None:
    check(BASES[base], ("blocks", 0), BLOCK)


@pytest.mark.parametrize("stack", ["encoder", "decoder"])
def test_every_key_of_a_stack_acts(stack: str) -> None:
    check(encoder_decoder(), ("stacks", stack), STACK)


def test_every_key_above_several_stacks_acts() -> None:
    check(encoder_decoder(), (), {k: v for k, v in TOP.items() if k not in ("embedding", "final_norm")})


def check(document: Document, path: tuple[str | int, ...], values: dict[str, list[Any]]) -> None:
    base = Observed(load(document))
    unnormed = base.spec.main.final_norm is None
    dead = []
    for key, others in values.items():
        for value in others:
            changed_document = copy.deepcopy(document)
            here: Any = changed_document
            for step in path:
                here = here[step]
            if here.get(key) == value or (key == "final_norm" and not value and unnormed):
                continue
            here[key] = value
            if not result(base, changed_document):
                dead.append(f"{key}: {value}")
    assert not dead, "\n".join(dead)


REPEATED = {"mixer": ATTENTION, "ffn": MLP}
LAYERS: dict[str, list[tuple[Any, Any]]] = {
    "repeat": [([{"repeat": 2, **REPEATED}], [{"repeat": 3, **REPEATED}])],
    "share": [([{"repeat": 2, **REPEATED}], [{"repeat": 2, "share": True, **REPEATED}])],
}


@pytest.mark.parametrize("key", LAYERS)
def test_keys_of_repeats_act(key: str) -> None:
    for before, after in LAYERS[key]:
        assert difference(Observed(load(model(before))), Observed(load(model(after))))


def test_share_false_is_what_is_meant_without_it() -> None:
    assert load(model([{"repeat": 2, "share": False, **REPEATED}])) == load(model([{"repeat": 2, **REPEATED}]))


@pytest.mark.parametrize(
    "change", [{"at": "layers[1].mixer", "set": {"window": 3}}, {"at": "layers[0].ffn", "replace": MOE}]
)
def test_overrides_act(change: dict[str, Any]) -> None:
    blocks = [{"repeat": 3, **REPEATED}]
    assert difference(Observed(load(model(blocks))), Observed(load(model(blocks, overrides=[change]))))


def test_an_idle_setting_would_be_found() -> None:
    """The measure itself: two equal specs show no difference, and a rounding error is none."""
    base = Observed(load(model([REPEATED])))
    assert difference(base, Observed(load(model([REPEATED])))) == ""
    renamed = {**model([REPEATED]), **SIZES, "description": "the same"}
    assert difference(base, Observed(load(renamed))) == ""
