"""`archspec vocabulary`, and the template that uses one."""

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import archspec
from archspec.cli import main
from archspec.language.starter import template

SEPARATE: dict[str, Any] = {"mix_stderr": False} if "mix_stderr" in inspect.signature(CliRunner).parameters else {}
TINY = "specs/bert_tiny.yaml"


def run(*arguments: str, stdin: str | None = None) -> Result:
    result = CliRunner(**SEPARATE).invoke(main, arguments, input=stdin)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    return result


def said(*arguments: str, stdin: str | None = None) -> str:
    result = run(*arguments, stdin=stdin)
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout


def test_the_tokens_of_a_spec() -> None:
    assert said("vocabulary", TINY) == "bases: 5 tokens\n  0-3  A C G T\n  4    [MASK]\n"
    lines = said("vocabulary", "specs/dnabert_6mer.yaml").splitlines()
    assert lines[0] == "kmers: 4,101 tokens"
    assert lines[1] == "  0       [PAD]"
    assert lines[-1] == "  5-4100  AAAAAA AAAAAT AAAAAC AAAAAG AAAATA AAAATT ... GGGGGG"
    lines = said("vocabulary", "specs/hyenadna_tiny.yaml").splitlines()
    assert (lines[0], lines[-1]) == ("bases: 12 tokens, padded to 16", "  12-15  (padding of the table)")
    assert said("vocabulary", "-", stdin=Path(TINY).read_text()) == said("vocabulary", "show", TINY)


def test_text_to_ids_and_back() -> None:
    assert said("vocabulary", TINY, "--encode", "acg[MASK]") == "0 1 2 4\n"
    assert said("vocabulary", TINY, "--decode", "0, 1 2 4") == "ACG[MASK]\n"
    assert said("vocabulary", "--set", "vocabulary=bytes", "--set", "expect=null", TINY, "--encode", "A") == "65\n"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((TINY, "--encode", "ACX"), 1, "error: text[2] = 'X' is none of A, C, G, T, and bases has no [UNK] for others"),
        ((TINY, "--decode", "0 9"), 1, "error: ids[1] = 9 is no token: there are 5 of them"),
        ((TINY, "--decode", "a"), 2, "'a' must be whole numbers, such as '5 6 4'"),
        ((TINY, "--decode", "1", "--encode", "A"), 2, "--encode and --decode exclude one another"),
        (("specs/gpt2.yaml",), 1, "error: gpt2 names no vocabulary; write one into the spec"),
        (("no_such.yaml",), 1, "no_such.yaml: no such file"),
        ((), 2, "needs a spec, or learn and texts"),
    ],
    ids=lambda value: None if isinstance(value, str) else str(value),
)
def test_mistakes(arguments: tuple[str, ...], code: int, message: str) -> None:
    result = run("vocabulary", *arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert message in result.stderr


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_learning_writes_a_file_that_a_spec_can_name(kind: str, tmp_path: Path) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text(Path("archspec/errors.py").read_text())
    output = tmp_path / "tok.json"
    told = run("vocabulary", "learn", str(texts), "README.md", "--size", "400", "--kind", kind, "-o", str(output))
    vocabulary = f'vocabulary: {{kind: {kind}, file: tok.json, size: 400, specials: ["<pad>", "<eos>", "<mask>"]}}'
    assert (told.exit_code, told.stderr) == (0, f"wrote {output}; a spec beside it says:\n")
    assert told.stdout == f"{vocabulary}\n"
    spec = tmp_path / "v.yaml"
    spec.write_text(f"d_model: 8\n{vocabulary}\nblocks: [{{mixer: {{kind: attention, n_heads: 2}}}}]\nhead: lm\n")
    ids = said("vocabulary", str(spec), "--encode", "Größe")
    assert said("vocabulary", str(spec), "--decode", ids) == "Größe\n"
    printed = said("vocabulary", "learn", str(texts), "README.md", "--size", "400", "--kind", kind, "-o", "-")
    assert json.loads(printed)["model"]["type"] == {"bpe": "BPE", "unigram": "Unigram"}[kind]


def test_special_tokens_are_said(tmp_path: Path) -> None:
    output = tmp_path / "tok.json"
    specials = ["--special", "[CLS]", "--special", "[PAD]"]
    said("vocabulary", "learn", "-q", "README.md", "--size", "300", *specials, "-o", str(output))
    assert [token["content"] for token in json.loads(output.read_text())["added_tokens"]] == ["[CLS]", "[PAD]"]


@pytest.mark.parametrize(
    ("texts", "size", "message"),
    [
        (("no_such.txt",), "300", "error: no_such.txt: No such file or directory"),
        (("tests",), "300", "error: tests: Is a directory"),
        (("README.md",), "9", "error: size = 9 must be from 260"),
        (("README.md",), "100000", "error: the texts give "),
        (("LATIN",), "300", "is no text: byte 0xff is not UTF-8"),
    ],
    ids=["missing", "folder", "few", "many", "latin"],
)
def test_what_cannot_be_learned_leaves_no_file(texts: tuple[str, ...], size: str, message: str, tmp_path: Path) -> None:
    latin = tmp_path / "latin.txt"
    latin.write_bytes(b"\xff")
    names = [str(latin) if name == "LATIN" else name for name in texts]
    result = run("vocabulary", "learn", *names, "--size", size, "-o", str(tmp_path / "tok.json"))
    assert (result.exit_code, result.stdout) == (1, "")
    assert message in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["latin.txt"]


def test_a_text_is_not_written_over(tmp_path: Path) -> None:
    text = tmp_path / "a.txt"
    text.write_text(Path("README.md").read_text())
    result = run("vocabulary", "learn", str(text), "--size", "300", "-o", str(text))
    assert result.exit_code == 2
    assert f"cannot write {text}: a text was read from it; choose another file" in result.stderr
    assert text.read_text() == Path("README.md").read_text()


def test_the_template_of_dna(tmp_path: Path) -> None:
    path = tmp_path / "dna.yaml"
    assert run("init", str(path), "--template", "dna").exit_code == 0
    assert path.read_text() == template("dna", str(path))
    assert said("validate", str(path)).startswith(f"{path}: ok, 4 layers, ")
    assert said("vocabulary", str(path), "--encode", "ACG[MASK]T") == "4 5 6 3 7\n"


def test_nothing_of_it_imports_torch() -> None:
    code = f"import sys\nfrom archspec.cli import main\nmain(['vocabulary', {TINY!r}], standalone_mode=False)\n"
    import subprocess

    done = subprocess.run(
        [sys.executable, "-c", f"{code}print('torch' in sys.modules)"], capture_output=True, text=True
    )
    assert done.stdout.splitlines()[-1] == "False"
    assert archspec.vocabulary(archspec.load(TINY)).n_ids == 5


@pytest.mark.parametrize("words", ["archspec vocabulary ", "archspec vocabulary le"])
def test_a_shell_is_offered_its_commands(words: str) -> None:
    given = {"COMP_WORDS": words, "COMP_CWORD": "2", "_ARCHSPEC_COMPLETE": "bash_complete"}
    done = subprocess.run([sys.executable, "-m", "archspec"], env=os.environ | given, capture_output=True, text=True)
    assert "plain,learn" in done.stdout
    assert "file," in done.stdout
    assert "Traceback" not in done.stderr
