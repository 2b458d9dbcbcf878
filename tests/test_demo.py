"""The demonstration: what it prints are words, and what it claims is so, after fewer steps than it takes by itself."""

import html
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "examples"))

import learning  # noqa: E402


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("demo")
    command = [sys.executable, "examples/demo.py", "--out", str(out), "--steps", "80", "--recall-steps", "160"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert (out / "hybrid.py").stat().st_size > 1000
    assert any((out / f"hybrid.{form}").exists() for form in ("svg", "dot"))
    return done.stdout


def words(line: str) -> list[str]:
    return re.findall(r"[a-z]{2,}", line.lower())


def test_it_writes_words(said: str) -> None:
    known = set(words(learning.prose()))
    first, middle, last = re.findall(r"bits a byte:  The (.*)", said)
    shares = [sum(word in known for word in words(line)) / len(words(line)) for line in (first, middle, last)]
    assert shares[0] < shares[2]
    assert shares[2] > 0.4, last
    assert len(words(last)) >= 10
    assert not re.search(r"\s{3}", last)


def test_the_hybrid_beats_both_halves(said: str) -> None:
    mamba, attention, both = (float(share) for share in re.findall(r"parameters +([\d.]+)% right", said))
    assert both > 2 * max(mamba, attention)


def test_a_mistake_and_a_count_are_shown(said: str) -> None:
    assert "did you mean 'n_kv_heads'?" in said
    assert "671,026,404,352 parameters" in said


def test_the_readme_shows_the_same_spec_and_its_picture() -> None:
    readme, spec = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "examples/hybrid.yaml"))
    assert f"```yaml\n{spec}```" in readme
    picture = html.unescape((ROOT / "examples" / "hybrid.svg").read_text(encoding="utf-8"))
    assert picture.count("<svg") == 1
    for words in ("hybrid", "Mamba mixer", "Grouped-query attention", "SwiGLU", "Mixture of experts", "tokens [B, T]"):
        assert f">{words}<" in picture


def test_prose_is_sentences() -> None:
    text = learning.prose()
    assert len(text) > 100_000
    assert not re.search(r"^\s|  {3}|\+--|===|>>>", text, re.MULTILINE)


def test_recall_asks_for_what_was_told() -> None:
    x = next(learning.recall(batch=5))
    for row in x.tolist():
        told = dict(zip(row[: 2 * learning.PAIRS : 2], row[1 : 2 * learning.PAIRS : 2], strict=True))
        asked = dict(zip(row[2 * learning.PAIRS :: 2], row[2 * learning.PAIRS + 1 :: 2], strict=True))
        assert told == asked
        assert len(told) == learning.PAIRS
