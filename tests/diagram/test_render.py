"""DOT text and files: the same each time, escaped, quick, written whole or not at all."""

import shutil
import time
from pathlib import Path

import pytest
from diagram_specs import CUSTOM

from archspec.diagram.dot import escape
from archspec.diagram.render import diagram, render
from archspec.errors import RenderError
from archspec.language.load import loads


def test_the_text_is_the_same_each_time() -> None:
    for name in ("three kinds of layers", "nested residuals"):
        spec = loads(CUSTOM[name])
        assert diagram(spec) == diagram(spec) == diagram(loads(CUSTOM[name]))
        assert diagram(spec).isascii()


def test_user_text_is_escaped() -> None:
    text = diagram(loads(CUSTOM["hostile names"]))
    assert "&lt;b&gt;&amp;]; }" in text
    assert "<b>" not in text
    assert escape("a\x00b \u00e9") == "a b &#233;"


def test_it_is_quick() -> None:
    spec = loads(CUSTOM["three kinds of layers"])
    diagram(spec)
    times = []
    for _ in range(5):
        start = time.process_time()
        diagram(spec)
        times.append(time.process_time() - start)
    assert min(times) < 0.1  # about 0.015 on an idle machine


def test_render_writes_each_format(tmp_path: Path) -> None:
    spec = loads(CUSTOM["only attention"])
    starts = {"svg": b"<?xml", "png": b"\x89PNG", "pdf": b"%PDF"}
    assert render(spec, tmp_path / "a.dot").read_text() == diagram(spec)
    if shutil.which("neato") is None:
        pytest.skip("Graphviz is not installed: no neato on the PATH")
    for kind, start in starts.items():
        assert render(spec, str(tmp_path / f"a.{kind}")).read_bytes().startswith(start)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.dot", "a.pdf", "a.png", "a.svg"]


def test_without_graphviz_only_dot_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    spec = loads(CUSTOM["only attention"])
    with pytest.raises(RenderError, match=r"Graphviz is not installed.*apt install graphviz.*dot file"):
        render(spec, tmp_path / "a.svg")
    assert list(tmp_path.iterdir()) == []
    assert render(spec, tmp_path / "a.dot").exists()


def test_a_failing_graphviz_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "bin" / "neato"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho broken pipe organ >&2\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/bin:/usr/bin")
    target = tmp_path / "a.svg"
    target.write_text("old")
    with pytest.raises(RenderError, match="broken pipe organ"):
        render(loads(CUSTOM["only attention"]), target)
    assert target.read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.svg", "bin"]


@pytest.mark.parametrize(("name", "words"), [("a.jpeg", "the suffix '.jpeg'"), ("a", "no suffix")])
def test_other_suffixes_are_refused(tmp_path: Path, name: str, words: str) -> None:
    with pytest.raises(RenderError) as caught:
        render(loads(CUSTOM["only attention"]), tmp_path / name)
    assert str(caught.value) == f"{tmp_path / name} has {words}; supported are .dot, .svg, .png, .pdf"


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(RenderError, match=r"cannot write .*a\.dot: there is no folder .*no$"):
        render(loads(CUSTOM["only attention"]), tmp_path / "no" / "a.dot")
