"""What a norm does not say it takes from the nearest `norm:` around it, wherever it stands."""

from typing import Any

import pytest

import archspec
from archspec.layers.base import Component

TOP = {"d_model": 16, "vocab_size": 5, "max_seq_len": 8}
WRITTEN = {"kind": "layernorm", "eps": 0.001, "bias": False}
ATTENTION = {"kind": "attention", "n_heads": 2, "qk_norm": "head"}
MLA = {"kind": "mla", "n_heads": 2, "kv_lora_rank": 8, "qk_nope_head_dim": 4, "qk_rope_head_dim": 4}
MAMBA2 = {"kind": "mamba2", "head_dim": 8}


def place(where: str, norm: Any) -> dict[str, Any]:
    """A spec with a norm in one place of many; its blocks use the ambient norm too."""
    block: dict[str, Any] = {"mixer": "lstm"}
    top: dict[str, Any] = {"head": "lm"}
    if where == "block":
        block["norm"] = norm
    elif where in ("qk", "mla", "mamba"):
        base = {"qk": ATTENTION, "mla": MLA, "mamba": {"kind": "mamba"}}[where]
        block["mixer"] = {**base, "bcdt_norm" if where == "mamba" else "norm": norm}
    elif where == "module":
        block |= {"modules": {"calm": norm}, "wiring": ["x = x + mixer(calm(x))", "x = norm1(x)"]}
    elif where == "embedding":
        top["embedding"] = {"kind": "token", "norm": norm}
    elif where == "head":
        top["head"] = {"kind": "masked_lm", "norm": norm}
    else:
        top["final_norm"] = norm
    return {**TOP, **top, "blocks": [block]}


def found(where: str, spec: archspec.Spec) -> Component:
    block, mixer = spec.main.layers[0].block, spec.main.layers[0].block.part("mixer")
    places: dict[str, Any] = {"block": block.part("norm1"), "module": block.part("calm"), "final": spec.main.final_norm}
    places |= {"qk": getattr(mixer, "norm", None), "mla": getattr(mixer, "norm", None)}
    places |= {"mamba": getattr(mixer, "bcdt_norm", None), "head": getattr(spec.head, "norm", None)}
    return places.get(where, getattr(spec.main.embedding, "norm", None))  # type: ignore[no-any-return]


PLACES = ["block", "module", "qk", "mla", "mamba", "embedding", "head", "final"]


def same(spec: archspec.Spec) -> archspec.Spec:
    """The spec, whose `show` says all that was inherited."""
    assert archspec.loads(archspec.show(spec)) == spec
    return spec


@pytest.mark.parametrize("where", PLACES)
def test_the_same_kind_takes_every_setting(where: str) -> None:
    norm = found(where, same(archspec.load({**place(where, {"kind": "layernorm"}), "norm": WRITTEN})))
    assert (norm.kind, norm.eps, norm.bias) == ("layernorm", 0.001, False)  # type: ignore[attr-defined]
    assert norm == found(where, archspec.load({**place(where, "layernorm"), "norm": WRITTEN}))


@pytest.mark.parametrize("where", PLACES)
def test_another_kind_takes_what_is_written_and_it_has(where: str) -> None:
    norm = found(where, same(archspec.load({**place(where, "rmsnorm"), "norm": WRITTEN})))
    assert (norm.kind, norm.eps, norm.weight) == ("rmsnorm", 0.001, True)  # type: ignore[attr-defined]
    norm = found(where, archspec.load({**place(where, "layernorm"), "norm": "rmsnorm"}))
    assert (norm.eps, norm.bias) == (1e-5, True)  # type: ignore[attr-defined]  # a default is no setting


@pytest.mark.parametrize("where", [p for p in PLACES if p != "module"])
def test_without_a_kind_it_changes_the_one_around_it(where: str) -> None:
    norm = found(where, same(archspec.load({**place(where, {"bias": True}), "norm": WRITTEN})))
    assert (norm.kind, norm.eps, norm.bias) == ("layernorm", 0.001, True)  # type: ignore[attr-defined]


@pytest.mark.parametrize("where", PLACES)
def test_its_own_word_counts(where: str) -> None:
    norm = found(where, archspec.load({**place(where, {"kind": "rmsnorm", "eps": 0.5}), "norm": WRITTEN}))
    assert norm.eps == 0.5  # type: ignore[attr-defined]


def test_levels_are_put_one_over_the_other() -> None:
    mixer = {**ATTENTION, "norm": "layernorm"}
    stack = {"norm": {"eps": 0.25}, "blocks": [{"mixer": mixer, "norm": {"kind": "rmsnorm", "one_plus": True}}]}
    spec = same(archspec.load({**TOP, "norm": WRITTEN, "stacks": {"one": stack}, "head": "lm"}))
    block = spec.main.layers[0].block
    outer, inner = block.part("norm1"), block.part("mixer").norm  # type: ignore[union-attr]
    assert (outer.kind, outer.eps, outer.one_plus) == ("rmsnorm", 0.25, True)  # type: ignore[union-attr]
    assert (inner.kind, inner.eps, inner.one_plus, inner.bias) == ("layernorm", 0.25, True, False)
    assert spec.main.final_norm.eps == 0.25  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("norm", "own", "eps"),
    [
        (WRITTEN, {}, 0.001),
        ({"kind": "rmsnorm", "eps": 0.5}, {}, 0.5),
        ("rmsnorm", {}, 1e-5),
        (WRITTEN, {"norm_eps": 2.0}, 2.0),
    ],
)  # fmt: skip
def test_the_norm_inside_mamba2_follows(norm: Any, own: dict[str, Any], eps: float) -> None:
    blocks = [{"mixer": {**MAMBA2, **own}}]
    spec = same(archspec.load({**TOP, "norm": norm, "blocks": blocks, "head": "lm"}))
    assert spec.main.layers[0].block.part("mixer").norm_eps == eps  # type: ignore[union-attr]


def test_a_setting_that_only_another_kind_takes_is_used() -> None:
    """No word of it is refused as without effect where only Mamba-2's own norm follows it."""
    blocks = [{"mixer": MAMBA2, "wiring": "none"}]
    top = {**TOP, "blocks": blocks, "final_norm": False, "head": "lm"}
    assert archspec.load({**top, "norm": WRITTEN}).main.layers[0].block.part("mixer").norm_eps == 0.001  # type: ignore[union-attr]
    with pytest.raises(archspec.SpecError, match="norm: nothing takes it"):
        archspec.load({**top, "norm": "layernorm"})
