"""Heads that read a value of a layer: multi-token prediction with a layer a head, and what is told."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F

import archspec
from archspec.errors import SpecError

A = {"kind": "attention", "n_heads": 4, "position": "rope"}
FFN = {"kind": "mlp", "d_ff": 12, "activation": "gelu"}
ASIDE = {
    "mixer": A,
    "ffn": FFN,
    "gives": ["second"],
    "wiring": ["h = x + mixer(norm1(x))", "second = norm3(h + ffn(norm2(h)))", "x = x"],
}
HEADS = {"next": {"kind": "lm", "tied": True}, "later": {"kind": "lm", "tied": True, "ahead": 2, "reads": "second"}}
TOP: dict[str, Any] = {"name": "mtp", "d_model": 16, "vocab_size": 11}


def spec(heads: Any = HEADS, blocks: Any = None, **more: Any) -> archspec.Spec:
    trunk = {"mixer": A, "ffn": FFN}
    return archspec.load({**TOP, "blocks": blocks or [trunk, ASIDE, trunk], "heads": heads, **more})


def test_each_head_has_a_layer_of_its_own_on_one_trunk() -> None:
    """Gloeckle et al. 2024 (arXiv:2404.19737), equation 2: head i is f_u(f_h_i(f_s(x)))."""
    found = spec()
    model = archspec.build(found, seed=0)
    tokens = torch.randint(0, 11, (2, 7))
    first, aside, last = model.blocks
    trunk = first(model.embedding(tokens))
    h = trunk + aside.mixer(aside.norm1(trunk))
    own = aside.norm3(h + aside.ffn(aside.norm2(h)))
    table = model.embedding.token.weight
    answers = model(tokens)
    torch.testing.assert_close(answers["later"], own @ table.T)
    torch.testing.assert_close(answers["next"], model.norm(last(trunk)) @ table.T)
    losses = model.loss(answers, {"next": tokens, "later": tokens})
    later = F.cross_entropy(answers["later"][:, :-2].flatten(0, 1), tokens[:, 2:].flatten())
    torch.testing.assert_close(losses["later"], later)


def test_padding_changes_nothing_of_what_it_reads() -> None:
    model = archspec.build(spec(inputs=["mask"]), seed=0).double().eval()
    tokens, mask = torch.randint(0, 11, (2, 7)), torch.tensor([[True] * 7, [True] * 4 + [False] * 3])
    alone = model(tokens[1:, :4])
    for name, answer in model(tokens, mask=mask).items():
        torch.testing.assert_close(answer[1, :4], alone[name][0], rtol=1e-12, atol=1e-12)


def test_what_is_shown_loads_again_without_a_warning() -> None:
    found = spec()
    assert archspec.loads(archspec.show(found)) == found
    assert found.warnings == ()
    assert "reads" not in repr(spec({"a": "lm", "b": {"kind": "lm", "ahead": 2}}, [{"ffn": FFN}]).heads)


TRUNK = [{"mixer": A, "ffn": FFN}]
KEYS = [{"mixer": A, "ffn": FFN, "gives": {"k": "mixer.keys"}}]
WRONG: list[tuple[Any, Any, str]] = [
    ({"a": {"kind": "lm", "reads": "second"}}, TRUNK, "heads.a.reads: no layer gives 'second'; none gives any"),
    ({"a": {"kind": "lm", "reads": "sec"}, "b": {"kind": "lm", "reads": "second"}}, None,
     "heads.a.reads: no layer gives 'sec'; did you mean 'second'?"),
    ({"a": {"kind": "lm", "reads": "k"}}, KEYS, "heads.a.reads: 'k' is no value of a wiring"),
    ({"a": "lm"}, None, "blocks[1].gives: no later layer reads 'second'; read it, or remove it"),
    ({"a": {"kind": "lm", "reads": 3}}, TRUNK, "heads.a.reads: reads = 3 must be text"),
]  # fmt: skip


@pytest.mark.parametrize(("heads", "blocks", "message"), WRONG, ids=[str(i) for i in range(len(WRONG))])
def test_mistakes_are_told(heads: Any, blocks: Any, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        spec(heads, blocks)
    assert message in str(caught.value)


def test_one_head_reads_the_last_hidden_states() -> None:
    with pytest.raises(SpecError, match=r"head\.reads: reads is for heads by name"):
        archspec.load({**TOP, "blocks": TRUNK, "head": {"kind": "lm", "reads": "second"}})
