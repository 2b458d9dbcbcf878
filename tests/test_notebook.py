"""Specs and counts as they are printed, looked at in a notebook, and put into data frames; and `help(archspec)`."""

import doctest
import pydoc
import re
import subprocess
import sys
from types import ModuleType
from typing import Any

import pytest

import archspec
from archspec.language import notebook

TINY, T5, MOE = "specs/bert_tiny.yaml", "specs/t5_small.yaml", "specs/mixtral_8x7b.yaml"


# Printed


def test_a_spec_prints_its_sizes_and_layers() -> None:
    assert str(archspec.load("specs/jamba_v0_1.yaml")).splitlines() == [
        "jamba_v0_1: 32 layers, d_model 4096, vocab_size 65536, max_seq_len 262144",
        "  12 x mamba, gated_mlp",
        "  16 x mamba, moe",
        "  4 x attention, gated_mlp",
        "  head: lm",
    ]
    assert str(archspec.load(T5)).splitlines()[1:] == [
        "  encoder: 6 layers, d_model 512",
        "    6 x attention, mlp",
        "  decoder: 6 layers, d_model 512",
        "    6 x attention, cross attention, mlp",
        "  head: lm",
    ]


def test_a_count_prints_its_kinds() -> None:
    assert str(archspec.count(archspec.load(MOE))).splitlines() == [
        "mixtral_8x7b: 46,702,792,704 parameters in 32 layers, 12,879,925,248 of them active",
        "  moe 45,098,205,184",
        "  attention 1,342,177,280",
        "  token 131,072,000",
        "  lm 131,072,000",
        "  rmsnorm 266,240",
        "  decoding keeps 131,072 bytes a token",
    ]


# In a notebook


def test_a_spec_is_shown_with_its_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = archspec.load(TINY)
    monkeypatch.setattr(notebook, "draw", lambda spec: f"<?xml?><!DOCTYPE svg><svg>{spec.name}</svg>")
    assert spec._repr_svg_() == "<svg>bert_tiny</svg>"
    assert spec._repr_html_() == f"<pre>{spec}</pre><svg>bert_tiny</svg>"


def test_without_graphviz_a_spec_is_shown_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = archspec.load(TINY)
    monkeypatch.setenv("PATH", "")
    assert spec._repr_svg_() is None
    assert spec._repr_html_() == f"<pre>{spec}</pre>"


def test_graphviz_draws_the_picture() -> None:
    import shutil

    if not (shutil.which("neato") or shutil.which("dot")):
        pytest.skip("Graphviz is not installed")
    picture = archspec.load(TINY)._repr_svg_()
    assert picture is not None
    assert picture.startswith("<svg ")
    assert picture.rstrip().endswith("</svg>")


def test_names_cannot_be_markup() -> None:
    spec = archspec.loads('{name: "<b>&", d_model: 8, vocab_size: 5, blocks: [{ffn: mlp}]}')
    assert "<b>" not in spec._repr_html_() + archspec.count(spec)._repr_html_()


def test_a_count_is_a_table() -> None:
    found = archspec.count(archspec.load(TINY))
    page = found._repr_html_()
    assert page.startswith("<table><caption>bert_tiny: 1,253 parameters</caption>")
    assert page.count("<tr>") == 1 + len(found.rows)
    assert "<td>blocks.0-1.mixer.q_proj</td><td>attention</td><td>8 x 8</td><td>64</td><td>2</td><td>128</td>" in page


# Data frames


class Frame:
    """What stands in for pandas.DataFrame where pandas is not installed."""

    @classmethod
    def from_records(cls, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return records


@pytest.mark.parametrize("by", ["module", "tensor", "kind"])
def test_a_count_as_a_data_frame(by: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pandas = ModuleType("pandas")
    vars(pandas)["DataFrame"] = Frame
    monkeypatch.setitem(sys.modules, "pandas", pandas)
    found = archspec.count(archspec.load(TINY))
    records = found.to_pandas(by)
    assert sum(r["total" if by == "module" else "count"] for r in records if not r.get("buffer")) == found.total


def test_a_real_data_frame() -> None:
    pytest.importorskip("pandas")
    frame = archspec.count(archspec.load(TINY)).to_pandas()
    assert list(frame.columns) == ["module", "kind", "shape", "count", "copies", "total", "note"]
    assert frame["total"].sum() == 1253


def test_without_pandas_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)  # type: ignore[arg-type]
    with pytest.raises(archspec.MissingError, match="to_pandas needs pandas: pip install pandas"):
        archspec.count(archspec.load(TINY)).to_pandas()


def test_a_data_frame_of_what_there_is_not() -> None:
    with pytest.raises(ValueError, match="by = 'layer' is none of module, tensor, kind"):
        archspec.count(archspec.load(TINY)).to_pandas("layer")  # type: ignore[arg-type]


# help(archspec)


def test_the_tour_of_the_package_is_true() -> None:
    pytest.importorskip("torch")
    result = doctest.testmod(archspec, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert (result.failed, result.attempted > 10) == (0, True)


def test_help_names_every_public_name() -> None:
    tour = archspec.__doc__ or ""
    left_out = {"Bill", "Complexity", "Cost", "Count", "Explanation", "Problem", "Spec"}  # what the functions give
    errors = {name for name in archspec.__all__ if name.endswith("Error")}
    for name in {*archspec.__all__} - left_out - errors:
        assert re.search(rf"\b{name}\b", tour), name
    for name in archspec.__all__:
        assert len((getattr(archspec, name).__doc__ or "").split()) > 3, name
        assert not (getattr(archspec, name).__doc__ or "").startswith(f"{name}("), name  # a dataclass without words


def test_help_works_without_pytorch() -> None:
    script = (
        "import sys; sys.modules['torch'] = None\nimport archspec, pydoc\n"
        "text = pydoc.render_doc(archspec, renderer=pydoc.plaintext)\n"
        "print('A tour' in text, 'count(spec' in text, 'build' in dir(archspec), 'count' in dir(archspec))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True", "False", "True"]


def test_help_shows_the_tour_first() -> None:
    pytest.importorskip("torch")
    text = pydoc.render_doc(archspec, renderer=pydoc.plaintext)
    assert text.index("A tour:") < text.index("PACKAGE CONTENTS")
