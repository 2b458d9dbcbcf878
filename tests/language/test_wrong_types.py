"""Python calls that are given something else than they take."""

from typing import Any

import pytest

import archspec
from archspec.language.load import loads

TEXT = """
d_model: 8
vocab_size: 5
blocks: [{ffn: {kind: mlp, d_ff: 8}, wiring: ["x = x + 2**64 * ffn(x)", "x = x - 100000000000000000000"]}]
head: lm
"""


@pytest.mark.parametrize("given", [5, None, {5: 5}], ids=str)
def test_settings_are_texts_or_a_mapping(given: Any) -> None:
    with pytest.raises(TypeError, match="must be 'path=value', several of these, or a mapping"):
        loads(TEXT, set=given)


@pytest.mark.parametrize("given", [b"name: x", {}, None], ids=str)
def test_a_text_is_a_text(given: Any) -> None:
    with pytest.raises(TypeError, match="expected the text of a spec, found"):
        loads(given)


def test_what_is_shown_is_a_spec() -> None:
    with pytest.raises(TypeError, match="expected a Spec"):
        archspec.show(5)  # type: ignore[arg-type]


@pytest.mark.parametrize("form", [1, 0, "x", "", [], None, "package"], ids=repr)
def test_forms_of_a_file_are_known(form: Any) -> None:
    with pytest.raises(archspec.GenerateError, match="is unknown; known: False, True, 'plain', 'fast'"):
        archspec.generate(loads(TEXT), standalone=form)


def test_whole_factors_that_no_integer_of_pytorch_holds_are_floats() -> None:
    text = archspec.generate(loads(TEXT))
    assert "1.8446744073709552e+19 * self.ffn" in text
    assert "- 1e+20" in text
