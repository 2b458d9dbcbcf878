"""The committed output of the code generator is what it writes today."""

import difflib
import subprocess
import sys
from pathlib import Path

import pytest

import archspec

ROOT = Path(__file__).resolve().parents[2]
SPECS = sorted((ROOT / "specs").glob("*.yaml"))
GENERATED = ROOT / "examples" / "generated"


STANDALONE = {"bert_base", "deepseek_v3", "gpt2", "llama3_8b", "mamba_130m", "mixtral_8x7b"}


@pytest.mark.parametrize("path", SPECS, ids=lambda p: p.stem)
def test_the_committed_file_is_current(path: Path) -> None:
    same(GENERATED / f"{path.stem}.py", archspec.generate(archspec.load(path)))


@pytest.mark.parametrize("stem", sorted(STANDALONE))
def test_the_committed_standalone_file_is_current(stem: str) -> None:
    fresh = archspec.generate(archspec.load(ROOT / "specs" / f"{stem}.yaml"), standalone="plain")
    same(GENERATED / "standalone" / f"{stem}.py", fresh)


def same(committed: Path, fresh: str) -> None:
    old = committed.read_text(encoding="utf-8") if committed.exists() else ""
    diff = difflib.unified_diff(
        old.splitlines(), fresh.splitlines(), str(committed.name), "generated now", lineterm="", n=1
    )
    assert old == fresh, "run `make generated`:\n" + "\n".join(list(diff)[:60])


def test_no_file_is_left_of_a_spec_that_is_gone() -> None:
    assert {p.stem for p in GENERATED.glob("*.py")} == {p.stem for p in SPECS}
    assert {p.stem for p in (GENERATED / "standalone").glob("*.py")} == STANDALONE


def test_generating_needs_no_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = None; import archspec; archspec.generate(archspec.load('specs/gpt2.yaml'))"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
