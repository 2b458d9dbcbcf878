"""Values that pass from layer to layer: what is said, what runs, and what is told where they do not fit."""

from typing import Any

import pytest
import torch

import archspec
from archspec.errors import SpecError

A = {"kind": "attention", "n_heads": 4, "n_kv_heads": 2, "position": "rope"}
F = {"kind": "mlp", "d_ff": 12, "activation": "gelu"}
TOP: dict[str, Any] = {"name": "between", "d_model": 16, "vocab_size": 11, "head": "lm"}
GIVES, READS = {"k": "mixer.keys", "v": "mixer.values"}, {"mixer.keys": "k", "mixer.values": "v"}
FIRST, LATER = {"mixer": A, "ffn": F, "gives": GIVES}, {"mixer": A, "ffn": F, "reads": READS}
H = {"mixer": A, "gives": ["h"], "wiring": ["h = mixer(norm1(x))", "x = x + h"]}
TO = {"ffn": F, "reads": ["h"], "wiring": ["x = x + ffn(norm1(x)) + h"]}


def spec(*blocks: Any, **more: Any) -> archspec.Spec:
    return archspec.load({**TOP, "blocks": list(blocks), **more})


def test_a_reader_has_no_projections_and_no_cache() -> None:
    found = spec(FIRST, {"repeat": 3, **LATER})
    one = archspec.count(spec({"mixer": A, "ffn": F}))
    assert (
        archspec.count(found).total == archspec.count(spec({"repeat": 4, "mixer": A, "ffn": F})).total - 3 * 2 * 16 * 8
    )
    assert archspec.count(found).kv_bytes_per_token == one.kv_bytes_per_token
    assert [len(s.layers) for s in found.main.segments] == [1, 1]


def test_what_is_shown_loads_again() -> None:
    for found in (spec(FIRST, LATER), spec(H, TO)):
        assert archspec.loads(archspec.show(found)) == found


def test_blocks_that_pass_nothing_have_the_digest_that_they_had() -> None:
    block = spec({"mixer": A, "ffn": F}).main.layers[0].block
    assert repr(block) == f"Block(parts={block.parts!r}, wiring={block.wiring!r}, dropout={block.dropout!r})"
    assert "gives" not in repr(block)


def test_values_of_a_wiring_are_those_that_its_lines_say() -> None:
    model = archspec.build(spec(H, {"ffn": F}, TO), seed=0)
    first, second, third = model.blocks
    tokens = torch.randint(0, 11, (2, 5))
    x = model.embedding(tokens)
    h = first.mixer(first.norm1(x))
    x = x + h
    x = second(x)
    x = x + third.ffn(third.norm1(x)) + h
    torch.testing.assert_close(model(tokens), model.head(model.norm(x)))


def test_the_last_one_given_is_read() -> None:
    """A layer that repeats gives anew; in a period of several each reads what was given last before it."""
    found = spec({"repeat": 2, "pattern": [H, TO]})
    model = archspec.build(found, seed=0)
    tokens = torch.randint(0, 11, (1, 4))
    x = model.embedding(tokens)
    for giver, reader in zip(model.blocks[::2], model.blocks[1::2], strict=True):
        h = giver.mixer(giver.norm1(x))
        x = x + h
        x = x + reader.ffn(reader.norm1(x)) + h
    torch.testing.assert_close(model(tokens), model.head(model.norm(x)))
    assert "for i in range(0, 4, 2):" in archspec.generate(found)


def test_files_without_values_hold_nothing_of_them() -> None:
    text = archspec.generate(spec({"repeat": 2, "mixer": A, "ffn": F}))
    assert "keys: Tensor" not in text
    assert "for i, block in enumerate(self.blocks):" in text


WRONG: list[tuple[tuple[Any, ...], str, str]] = [
    ((LATER, FIRST), "blocks[0].reads", "layer 0 reads 'k', which only a later layer gives; put that first"),
    ((FIRST, {**LATER, "reads": {"mixer.keys": "q", "mixer.values": "v"}}), "blocks[1].reads",
     "layer 1 reads 'q', which no layer gives; known: k, v"),
    ((FIRST, {"mixer": A, "ffn": F}), "blocks[0].gives", "no later layer reads 'k'; read it, or remove it"),
    ((FIRST, {**LATER, "mixer": {**A, "head_dim": 6}}), "blocks[1].reads",
     "layer 1 reads 'k' of layer 0, whose mixer differs in head_dim: 4 there and 6 here; make them equal"),
    ((FIRST, {**LATER, "mixer": {**A, "window": 3}}), "blocks[1].reads", "differs in window: none there and 3 here"),
    ((FIRST, {**LATER, "mixer": {"kind": "attention", "n_heads": 4, "n_kv_heads": 2}}), "blocks[1].reads",
     "differs in position: rope ("),
    ((FIRST, {**LATER, "reads": {"mixer.keys": "k"}}), "blocks[1].mixer",
     "reads keys of an earlier layer and no values; read both"),
    ((FIRST, {**LATER, "reads": {"mixer.keys": "v", "mixer.values": "k"}}), "blocks[1].reads",
     "reads 'v', which layer 0 gives as mixer.values, as mixer.keys"),
    (({**FIRST, "gives": {"k": "mixer.key"}}, LATER), "blocks[0].gives", "mixer gives no 'key'; did you mean 'keys'?"),
    (({**FIRST, "gives": {"k": "mix.keys"}}, LATER), "blocks[0].gives", "no part 'mix' in this block; did you mean"),
    (({"mixer": "mamba", "gives": {"k": "mixer.keys"}}, LATER), "blocks[0].gives",
     "mixer gives no 'keys'; mamba gives nothing here"),
    (({**H, "gives": ["g"]}, TO), "blocks[0].gives", "no line of the wiring assigns 'g'"),
    ((H, {**TO, "wiring": ["x = x + ffn(norm1(x))"]}), "blocks[1].wiring", "of an earlier layer, which no line names"),
    ((H, {**TO, "reads": ["x"]}), "blocks[1].reads", "'x' is a word that the generated code needs"),
    ((H, {**TO, "reads": 3}), "blocks[1].reads", "must be names of values of the wiring, as in [h]"),
    ((FIRST, {**LATER, "mixer": {**A, "reads": ["keys"]}}), "blocks[1].mixer.reads",
     "reads stands beside the parts of the block"),
]  # fmt: skip


@pytest.mark.parametrize(("blocks", "path", "message"), WRONG, ids=[str(i) for i in range(len(WRONG))])
def test_what_does_not_fit_is_told_where_it_stands(blocks: tuple[Any, ...], path: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        spec(*blocks)
    told = [(p.path, p.message) for p in caught.value.problems]
    assert any(where == path and message in said for where, said in told), told


def test_parts_run_in_the_order_in_which_a_line_names_them() -> None:
    """What gives more than its output runs as a statement before its line, and what the line names before it too."""
    lines = ["x = x + norm3(x) - -ffn(norm1(x)) * (mixer(norm2(x)) + 2 * two(norm1(x)))"]
    giver = {
        "mixer": A,
        "modules": {"two": A},
        "ffn": F,
        "gives": {"k": "two.keys", "v": "two.values"},
        "wiring": lines,
    }
    found = spec(giver, LATER)
    model = archspec.build(found, seed=0)
    assert [t.name for t in archspec.count(found).tensors] == [name for name, _ in model.named_parameters()]
    tokens = torch.randint(0, 11, (2, 5))
    x = model.embedding(tokens)
    first, later = model.blocks
    two, k, v = first.two(first.norm1(x))
    x = x + first.norm3(x) + first.ffn(first.norm1(x)) * (first.mixer(first.norm2(x)) + 2 * two)
    torch.testing.assert_close(model(tokens), model.head(model.norm(later(x, k, v))))
