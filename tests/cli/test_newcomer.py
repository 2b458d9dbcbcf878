"""A newcomer's hour: a template, three edits, and every command, in words that the documentation has.

What is typed here may be looked up with `archspec layers` or in docs/language.md; the test holds it to that.
"""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from archspec.cli import main

ROOT = Path(__file__).parents[2]
OWN = ("define", "modules", "sizes", "stacks")  # what stands below these has names of the newcomer's own
PROSE = ("name", "description", "source")

# a template, edits as an editor makes them (what stands there, what is typed in its place)
HOURS: dict[str, tuple[tuple[str, str], ...]] = {
    "llama": (
        ("n_kv_heads: 8", "n_kv_heads: 16"),
        ("theta: 10000}", "theta: 500000, scaling: {kind: linear, factor: 4}}"),
        ("head: {kind: lm, tied: false}", "head: {kind: lm, tied: true}\n"
         "wiring:\n  - x = x + 1/sqrt(n_layers) * mixer(norm1(x))\n  - x = x + 1/3 * ffn(norm2(x))"),
    ),
    "hybrid": (
        ("mixer: {kind: mamba, d_state: 16}", "mixer: {kind: mamba2, d_state: 64, head_dim: 64}"),
        ("blocks: (ssm x3 attn)x4", "  sparse: {extends: attn, ffn: {kind: moe, n_experts: 8, top_k: 2, d_ff: 512}}\n"
         "blocks: (ssm x5 attn)x2 sparse"),
        ("expect: {layers: 16}", "expect: {layers: 13, params: 66M +- 10%}"),
    ),
    "bert": (
        ("embedding:\n", "sizes: {heads: 12}\nembedding:\n"),
        ("n_heads: 12, qkv_bias", "n_heads: heads, window: 65, qkv_bias"),
        ("head: {kind: masked_lm, tied: true}\n", "head: {kind: classification, n_classes: 3, hidden: d_model}\n"),
    ),
}  # fmt: skip


def run(*command: str) -> str:
    """The output of a command that works."""
    result = CliRunner().invoke(main, [*command])
    assert result.exit_code == 0, result.output
    return result.stdout


@cache
def documented() -> frozenset[str]:
    """Every word that a newcomer can look up."""
    listing = run("layers")
    kinds = re.findall(r"^  (\w+) ", listing, re.MULTILINE)
    pages = [run("layers", kind) for kind in kinds]
    text = "\n".join([listing, *pages, (ROOT / "docs" / "language.md").read_text(encoding="utf-8")])
    return frozenset(re.findall(r"[A-Za-z_]\w*", text))


def words(data: Any, key: str = "") -> Iterator[str]:
    """The words of a spec, but for those that are its author's own."""
    if isinstance(data, dict):
        for name, child in data.items():
            yield from () if key in OWN else (name,)
            yield from words(child, name)
    elif isinstance(data, list):
        for child in data:
            yield from words(child, key)
    elif isinstance(data, str) and key not in PROSE:
        yield from re.findall(r"[A-Za-z_]\w*", re.sub(r"\b\d[\w.]*", "", data))


def own(data: dict[str, Any]) -> set[str]:
    """The names that the author gave."""
    given = {name for key in OWN for name in data.get(key, ())}
    return given | {name for name in words(data) if re.fullmatch(r"x\d+|norm\d+|x|h", name)}


def edited(path: Path, edits: tuple[tuple[str, str], ...]) -> None:
    """The file after some edits; what an edit replaces stands there once."""
    text = path.read_text()
    assert len(edits) == 3
    for old, new in edits:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    path.write_text(text)


@pytest.mark.parametrize("name", HOURS)
def test_the_hour_of_a_newcomer(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run("init", "mine.yaml", "--template", name)
    edited(Path("mine.yaml"), HOURS[name])
    data = yaml.safe_load(Path("mine.yaml").read_text())
    assert set(words(data)) - own(data) <= documented()
    assert "ok, " in run("validate", "mine.yaml")
    assert "total" in run("count", "mine.yaml")
    assert "given" in run("show", "mine.yaml", "--flat")
    run("build", "mine.yaml", "-o", "mine.py")
    compile(Path("mine.py").read_text(), "mine.py", "exec")
    run("render", "mine.yaml", "-o", "mine.dot")
    assert Path("mine.dot").read_text().startswith("digraph")


def test_a_word_that_nobody_documents_is_noticed() -> None:
    assert "n_kv_heads" in documented()
    assert not {"n_key_heads", "rope_theta"} & documented()
