"""`--set`: a key removed, a mapping replaced, a kind changed, over whatever form the spec has it in."""

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from archspec.errors import SpecError
from archspec.language.load import load, loads
from archspec.language.model import Spec

TEXT = """\
d_model: 64
vocab_size: 100
max_seq_len: 32
norm: {kind: layernorm, eps: 1.0e-6}
mask: bidirectional
dropout: 0.1
sizes: {wide: 128}
embedding: {position: learned}
define:
  attn:
    mixer: {kind: attention, n_heads: 4, qkv_bias: true, out_bias: true, qk_norm: head}
    ffn: {kind: mlp, d_ff: wide, activation: relu, bias: true}
    wiring: post
  ssm: {mixer: mamba, modules: {ssm2: mamba}, wiring: ["x = x + mixer(norm1(x)) + ssm2(norm1(x))"]}
blocks:
  - {repeat: 2, pattern: [attn, ssm]}
  - attn
overrides:
  - {at: "layers[0].ffn", set: {d_ff: 32}}
  - {at: "layers[-1].mixer", set: {window: 8}}
head: lm
init: {std: 0.01}
expect: {layers: 5}
"""
DATA = yaml.safe_load(TEXT)


def spec(*settings: str) -> Spec:
    return loads(TEXT, set=settings)


def places(data: Any, path: str = "") -> Iterator[str]:
    """The path of every key and item."""
    pairs = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, child in pairs:
        here = f"{path}[{key}]" if isinstance(key, int) else f"{path}.{key}".removeprefix(".")
        yield here
        yield from places(child, here)


def without(path: str) -> dict[str, Any]:
    """The data without what stands at a path."""
    data = copy.deepcopy(DATA)
    *before, last = path.replace("[", ".[").split(".")
    holder: Any = data
    for step in before:
        holder = holder[int(step[1:-1])] if step[0] == "[" else holder[step]
    del holder[int(last[1:-1]) if last[0] == "[" else last]
    return data


def told(function: Any, *args: Any, **extra: Any) -> Any:
    """A spec, or what is wrong with it (which plain data, having no places, repeats where definitions are extended)."""
    try:
        return function(*args, **extra)
    except SpecError as error:
        return {problem.message for problem in error.problems}


@given(
    st.sampled_from(
        [path for path in places(DATA) if "." in path or "[" in path or path in ("norm", "head", "dropout")]
    )
)
def test_a_removed_key_is_as_if_it_had_never_been_written(path: str) -> None:
    found = told(loads, TEXT, set=f"{path}=null")
    assert found == told(load, without(path))
    assert found == told(loads, TEXT, set={path: None})


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("define.attn.mixer.windo", "define.attn.mixer has no 'windo', so there is nothing to remove"),
        ("define.attn.mixer.n_head", "so there is nothing to remove; did you mean 'n_heads'?"),
        ("blocks[7]", "blocks has no item [7], so there is nothing to remove"),
        ("head.tied", "head has no 'tied', so there is nothing to remove"),
    ],
)
def test_what_is_not_there_is_not_removed(path: str, words: str) -> None:
    with pytest.raises(SpecError) as caught:
        spec(f"{path}=null")
    assert words in str(caught.value)


def test_a_promise_that_was_not_made_may_be_dropped() -> None:
    assert spec("expect=null") == loads(TEXT, set=["expect=null", "expect=null"])


@pytest.mark.parametrize(
    ("setting", "kind"),
    [
        ("head.kind=none", "none"),
        ("head={kind: masked_lm}", "masked_lm"),
        ("head=none", "none"),
        ("head.tied=true", "lm"),
        ("head={tied: true}", "lm"),
        ("head.kind=masked_lm", "masked_lm"),
    ],
)
def test_a_bare_kind_is_changed_like_a_mapping(setting: str, kind: str) -> None:
    found = spec(setting).head
    assert found.kind == kind
    if "tied" in setting:
        assert found.tied_shape is not None


def test_a_block_that_extends_one_with_a_bare_kind_merges_into_it() -> None:
    text = TEXT.replace("blocks:\n", "  big: {extends: ssm, mixer: {d_state: 32}}\nblocks:\n")
    big = loads(text, set=["blocks=[attn, big]", "overrides=null"]).main.layers[-1].block
    assert getattr(big.part("mixer"), "d_state", None) == 32
    assert big.part("ssm2").kind == big.part("mixer").kind == "mamba"  # type: ignore[union-attr]


def test_a_mapping_merges_and_is_replaced_when_it_says_so() -> None:
    def ffn(setting: str) -> dict[str, Any]:
        return vars(spec(setting).main.layers[2].block.part("ffn"))

    merged, replaced = "define.attn.ffn={d_ff: 64}", "define.attn.ffn={__replace__: true, kind: mlp, d_ff: 64}"
    assert {key: ffn(merged)[key] for key in ("d_ff", "activation", "bias")} == {
        "d_ff": 64,
        "activation": "relu",
        "bias": True,
    }
    assert (ffn(replaced)["activation"], ffn(replaced)["bias"]) == ("gelu", False)
    assert spec("define.attn.ffn.kind=gated_mlp", "define.attn.ffn.d_ff=8").main.layers[2].block.part("ffn") is not None


def test_one_text_is_one_setting() -> None:
    assert load("specs/gpt2.yaml", set="d_model=384") == load("specs/gpt2.yaml", set=["d_model=384"])
    with pytest.raises(TypeError, match="a setting is text such as 'd_model=512', found one of type tuple"):
        load("specs/gpt2.yaml", set=[("d_model", 384)])  # type: ignore[list-item]


# What was told badly, or more than once


@pytest.mark.parametrize("size", ["1e3", "1_000.0", "10e2"])
def test_a_whole_number_may_be_written_with_an_exponent(size: str) -> None:
    assert vars(spec(f"define.attn.ffn.d_ff={size}").main.layers[2].block.part("ffn"))["d_ff"] == 1000
    with pytest.raises(SpecError, match="must be a whole number"):
        spec("define.attn.ffn.d_ff=1e-3")


def test_a_mistake_in_a_definition_is_told_once_and_there() -> None:
    text = """\
d_model: 64
vocab_size: 100
define:
  a: {extends: base, wiring: post}
  b: {extends: a, dropout: 0.1}
  base: {mixer: mamba, ffn: {kind: mlp, d_ff: 8/3 * d_model}}
blocks: a b base
"""
    with pytest.raises(SpecError) as caught:
        loads(text)
    assert [str(problem.mark) for problem in caught.value.problems] == ["<text>:6:47"]
    assert caught.value.problems[0].path == "define.base.ffn.d_ff"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["define.attn.mixer.n_heads=5"], "head_dim = d_model / n_heads = 64 / 5 = 12.8 is not a whole number; give"),
        (["define.attn.ffn.d_ff=wide / 3"], "d_ff = wide / 3 = 128 / 3 = 42.6667 is not a whole number; choose"),
        (["embedding={__replace__: true, patch_size: 8}"], "needs a kind; the only one with patch_size: patch"),
        (["embedding.postion=learned"], "token has no 'postion'; did you mean 'position'?"),
        (["define.attn.mixer={__replace__: true, d_conv: 4}"], "needs a kind; those with d_conv: hyena, mamba, mamba2"),
    ],
)  # fmt: skip
def test_messages_say_what_would_be_right(settings: list[str], words: str) -> None:
    with pytest.raises(SpecError) as caught:
        spec(*settings)
    assert words in str(caught.value)


def test_what_has_a_usual_kind_needs_none() -> None:
    found = spec("norm={__replace__: true, eps: 1.0e-3}")
    assert (found.main.embedding.kind, found.init.kind) == ("token", "normal")
    assert vars(found.main.layers[1].block.part("norm1"))["eps"] == 1e-3
