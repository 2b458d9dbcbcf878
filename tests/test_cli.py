"""The command line: what it prints, where, and with which exit code."""

import inspect
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import archspec
from archspec.cli import main
from archspec.cli.progress import Progress
from archspec.language.starter import template

SEPARATE: dict[str, Any] = {"mix_stderr": False} if "mix_stderr" in inspect.signature(CliRunner).parameters else {}
TINY = "specs/bert_tiny.yaml"
BAD = """\
name: bad
d_model: 8
vocab_size: 5
blocks:
  - mixer: {kind: atention, n_heads: 2}
  - {ffn: mlp, dropout: 2}
"""


def run(*arguments: str, stdin: str | bytes | None = None, color: bool = False) -> Result:
    result = CliRunner(**SEPARATE).invoke(main, arguments, input=stdin, color=color)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    assert "Traceback" not in result.output
    return result


@pytest.fixture
def bad(tmp_path: Path) -> str:
    path = tmp_path / "bad.yaml"
    path.write_text(BAD)
    return str(path)


@pytest.fixture
def broken(tmp_path: Path) -> str:
    """A spec that does not keep its promise."""
    path = tmp_path / "broken.yaml"
    path.write_text(Path(TINY).read_text().replace("1253", "1254").replace("1_253", "1254"))
    return str(path)


# validate


def test_validate_tells_what_is_well() -> None:
    result = run("validate", TINY, "specs/gpt2.yaml")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[0] == f"{TINY}: ok, 2 layers, 1,253 parameters"
    assert result.stderr == ""


def test_validate_tells_every_mistake_of_every_file(bad: str) -> None:
    result = run("validate", bad, TINY, "no_such.yaml")
    assert result.exit_code == 1
    assert f"{bad}:5:19: blocks[0].mixer.kind: no mixer 'atention'; did you mean 'attention'?\n" in result.stderr
    assert f"{bad}:6:" in result.stderr
    assert f"2 problems in {bad}\n" in result.stderr
    assert "no_such.yaml: no such file\n" in result.stderr
    assert result.stdout == f"{TINY}: ok, 2 layers, 1,253 parameters\n"


def test_validate_holds_the_author_to_the_promise(broken: str) -> None:
    result = run("validate", broken)
    assert result.exit_code == 1
    assert re.match(rf"{broken}:\d+:\d+: expect\.params: 1,254 was promised, 1,253 counted\n", result.stderr)


# count


def test_count_prints_the_table() -> None:
    result = run("count", TINY)
    assert result.exit_code == 0
    assert "      one layer                               568  mixer 256 + norms 32 + ffn 280\n" in result.stdout


def test_count_fails_on_a_broken_promise_after_the_table(broken: str) -> None:
    result = run("count", broken, "--format", "json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["total"] == 1253
    assert "1,254 was promised, 1,253 counted" in result.stderr


@pytest.mark.parametrize("by", ["tensor", "module", "kind"])
@pytest.mark.parametrize("form", ["table", "json", "markdown", "csv"])
def test_count_in_every_form(by: str, form: str) -> None:
    assert run("count", TINY, "--by", by, "--format", form).exit_code == 0


def test_count_reads_standard_input() -> None:
    result = run("count", "-", "--format", "json", stdin=Path(TINY).read_text())
    assert json.loads(result.stdout)["total"] == 1253


@pytest.mark.parametrize("text", [b"", b"\xff\xfe", b"a: [", b"- 1", b"\x00", b"a" * (1 << 21)])
def test_bad_standard_input_is_a_message(text: bytes) -> None:
    result = run("count", "-", stdin=text)
    assert result.exit_code == 1
    assert result.stderr.startswith("<stdin>")


# --set


def test_settings_override_the_spec() -> None:
    result = run("count", TINY, "--set", "vocab_size=6", "--set", "expect.params=1270", "--format", "json")
    found = json.loads(result.stdout)
    assert found["total"] == 1253 + 8 + 9


@pytest.mark.parametrize("command", ["validate", "show", "count", "build", "render", "verify"])
def test_every_command_that_takes_a_spec_takes_settings(command: str) -> None:
    extra = ["-o", "x.dot"] if command == "render" else []
    result = run(command, TINY, "--set", "d_modle=8", *extra)
    assert result.exit_code == 1
    assert "did you mean 'd_model'?" in result.stderr
    assert not Path("x.dot").exists()


@pytest.mark.parametrize("setting", ["d_model", "", "=3", " = 3"])
def test_a_setting_without_path_or_value_is_wrong_use(setting: str) -> None:
    result = run("count", TINY, "--set", setting)
    assert result.exit_code == 2
    assert "must be path=value, such as d_model=512" in result.stderr


@pytest.mark.parametrize("setting", ["blocks[99].x=1", "a..b=1", "blocks[=1", "d_model=[", "name.x=1", "d_model=!!a 1"])
def test_a_setting_that_cannot_be_read_is_a_message(setting: str) -> None:
    result = run("count", TINY, "--set", setting)
    assert result.exit_code == 1
    assert result.stderr.startswith("--set")


# show


def test_show_prints_a_spec() -> None:
    result = run("show", TINY)
    assert archspec.loads(result.stdout) == archspec.load(TINY)


# build


@pytest.fixture
def generated(monkeypatch: pytest.MonkeyPatch) -> None:
    def generate(spec: Any, standalone: bool | str = False) -> str:
        return f"# {spec.name}{f' alone, {standalone}' if standalone else ''}\n"

    monkeypatch.setattr(archspec, "generate", generate)


@pytest.mark.usefixtures("generated")
def test_build_prints_or_writes(tmp_path: Path) -> None:
    path = tmp_path / "model.py"
    path.write_text("old")
    assert run("build", TINY).stdout == "# bert_tiny\n"
    assert run("build", TINY, "--standalone", "-o", str(path)).exit_code == 0
    assert path.read_text() == "# bert_tiny alone, plain\n"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.usefixtures("generated")
def test_a_file_that_stands_alone_is_plain_or_fast() -> None:
    assert run("build", "--standalone", TINY).stdout == "# bert_tiny alone, plain\n"
    assert run("build", TINY, "--standalone=plain").stdout == "# bert_tiny alone, plain\n"
    assert run("build", TINY, "--standalone=fast").stdout == "# bert_tiny alone, fast\n"
    wrong = run("build", TINY, "--standalone=short")
    assert wrong.exit_code == 2
    assert "'short' is not one of 'plain', 'fast'" in wrong.stderr


@pytest.mark.usefixtures("generated")
@pytest.mark.parametrize(
    ("output", "code", "message"),
    [
        (
            "no/such/folder/model.py",
            2,
            "error: cannot write no/such/folder/model.py: there is no folder no/such/folder\n",
        ),
        ("specs", 1, "error: cannot write specs: it is a directory\n"),
    ],
)
def test_what_cannot_be_written_is_a_message(output: str, code: int, message: str) -> None:
    result = run("build", TINY, "-o", output)
    assert result.exit_code == code
    assert result.stderr == message


def test_what_archspec_refuses_is_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(spec: Any, standalone: bool | str) -> str:
        raise archspec.GenerateError("cannot be written out")

    monkeypatch.setattr(archspec, "generate", refuse)
    result = run("build", TINY)
    assert result.exit_code == 1
    assert result.stderr == "error: cannot be written out\n"


def test_without_pytorch_there_is_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_torch(spec: Any, **calls: Any) -> Any:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr(archspec, "verify", no_torch)
    result = run("verify", TINY)
    assert result.exit_code == 1
    assert result.stderr == "this needs PyTorch: pip install 'archspec-compiler[torch]'\n"


# render


def test_render_writes_dot(tmp_path: Path) -> None:
    path = tmp_path / "tiny.dot"
    assert run("render", TINY, "-o", str(path)).exit_code == 0
    assert path.read_text().startswith("digraph")
    assert list(tmp_path.iterdir()) == [path]


def test_render_to_an_unknown_format_is_wrong_use(tmp_path: Path) -> None:
    result = run("render", TINY, "-o", str(tmp_path / "x.jpg"))
    assert result.exit_code == 2
    assert "must end in one of .svg, .png, .pdf, .dot" in result.stderr
    assert not list(tmp_path.iterdir())


# verify


@pytest.mark.parametrize(("passed", "code"), [(True, 0), (False, 1)])
def test_verify_reports_and_fails(monkeypatch: pytest.MonkeyPatch, passed: bool, code: int) -> None:
    class Report:
        def __init__(self) -> None:
            self.passed = passed
            self.summary = "what was checked"

    monkeypatch.setattr(archspec, "verify", lambda spec, **calls: Report())
    result = run("verify", TINY)
    assert (result.exit_code, result.stdout) == (code, "what was checked\n")


# layers


def test_layers_lists_every_component() -> None:
    lines = run("layers").stdout.splitlines()
    assert lines[0] == "embedding"
    attention = next(line for line in lines if line.split()[:1] == ["attention"])
    assert attention.split(maxsplit=1)[1] == "Softmax attention with any number of key/value heads."


def test_layers_explains_one() -> None:
    text = run("layers", "attention").stdout
    assert "    y = o_proj(concat_h softmax(scale * q_h k_h^T + bias + mask) v_h)" in text
    rows = [" ".join(line.split()) for line in text.splitlines()]
    assert "head_dim whole number = d_model / n_heads channels of a query or key head" in rows
    assert "d_model  " not in text  # inherited, so not set here


def test_layers_explains_every_kind_of_a_name_and_one_of_a_role() -> None:
    text = run("layers", "t5").stdout
    assert text.startswith("position.t5\n")
    assert "\ninit.t5\n" in text
    assert "position.t5" not in run("layers", "init.t5").stdout


@pytest.mark.parametrize("name", ["atention", "mixer.atention"])
def test_an_unknown_layer_is_wrong_use(name: str) -> None:
    result = run("layers", name)
    assert result.exit_code == 2
    assert f"no layer '{name}'; did you mean '{name.replace('at', 'att', 1)}'?" in result.stderr


# schema, init, completion


def test_schema_prints_or_writes(tmp_path: Path) -> None:
    path = tmp_path / "schema.json"
    assert run("schema", "-o", str(path)).exit_code == 0
    assert json.loads(path.read_text()) == json.loads(run("schema").stdout) == archspec.schema()


def test_init_writes_a_spec_that_keeps_its_promises(tmp_path: Path) -> None:
    path = tmp_path / "new.yaml"
    assert run("init", str(path)).exit_code == 0
    assert path.read_text() == template(file=str(path))
    assert run("validate", str(path)).exit_code == 0


def test_init_overwrites_only_by_force(tmp_path: Path) -> None:
    path = tmp_path / "new.yaml"
    path.write_text("mine")
    result = run("init", str(path))
    assert result.exit_code == 2
    assert "exists already; give another name, or --force to overwrite it" in result.stderr
    assert path.read_text() == "mine"
    assert run("init", str(path), "--force").exit_code == 0
    assert path.read_text() == template(file=str(path))


def test_init_prints_to_standard_output() -> None:
    assert run("init", "-").stdout == template()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str) -> None:
    result = run("completion", shell)
    assert result.exit_code == 0
    assert "_ARCHSPEC_COMPLETE" in result.stdout


# What all commands share


@pytest.mark.parametrize("name", sorted(main.commands))
def test_every_command_has_help_with_an_example(name: str) -> None:
    result = run(name, "--help")
    assert result.exit_code == 0
    assert f"archspec {name}" in result.stdout


def test_help_is_not_cut_off() -> None:
    lines = run("--help").stdout.partition("Commands:")[2].splitlines()
    assert not [line for line in lines if line.endswith("...")]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["cuont"], "no command 'cuont'; did you mean 'count'?"),
        (["xyzzy"], "no command 'xyzzy'; known: build, completion, complexity, cost, count,"),
        (["count"], "Missing argument 'SPEC'"),
        (["count", TINY, "--by", "colour"], "'colour' is not one of"),
        (["render", TINY], "Missing option '-o'"),
    ],
)
def test_wrong_use_is_told_with_code_two(arguments: list[str], words: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert words in result.stderr


@pytest.mark.parametrize("path", ["no_such.yaml", "specs", "", "/dev/null"])
def test_a_spec_that_cannot_be_read_is_a_message(path: str) -> None:
    result = run("count", path)
    assert result.exit_code == 1
    assert "1 problem in" in result.stderr


def test_colours_only_where_they_are_wanted(bad: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b[" not in run("count", bad).stderr
    assert "\x1b[" in run("count", bad, color=True).stderr
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[" not in run("count", bad, color=True).stderr


def test_progress_is_silent_away_from_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("working"):
        pass
    assert capsys.readouterr().err == ""


def test_progress_turns_on_a_terminal_and_cleans_up(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    progress = Progress("working", wait=0)
    with progress:
        progress.done.wait(0.25)
    text = capsys.readouterr().err
    assert "| working" in text
    assert text.endswith("\r")


def test_layers_of_a_role_are_listed() -> None:
    result = run("layers", "norm")
    assert result.exit_code == 0
    assert "rmsnorm" in result.stdout
    assert "attention" not in result.stdout
    assert "alibi" not in run("layers", "rope scaling").stdout


def test_a_promise_broken_by_a_setting_says_how_to_drop_it() -> None:
    drop = "(drop it with --set expect=null)"
    assert drop in run("count", TINY, "--set", "vocab_size=6").stderr
    assert drop in run("validate", TINY, "--set", "vocab_size=6").stderr
    assert drop not in run("count", TINY, "--set", "vocab_size=6", "--set", "expect=null").stderr


def test_help_of_count_says_what_bytes_are() -> None:
    assert "one sequence of max_seq_len tokens, at 2 bytes a number" in " ".join(run("count", "--help").stdout.split())


@pytest.mark.parametrize("command", [[], ["vocabulary", "--help"], ["--help"]], ids=["nothing", "group", "help"])
def test_help_has_lines(command: list[str]) -> None:
    result = run(*command)
    assert "\\n" not in result.output
    assert len(result.output.splitlines()) > 5
