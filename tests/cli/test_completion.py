"""Completion: what is offered, and that a real shell puts it into the line."""

import os
import re
import select
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from archspec.cli import main
from archspec.cli.paths import offers
from archspec.errors import Mark
from archspec.language.load import read_extended
from archspec.language.tree import Node, assign

ROOT = Path(__file__).parents[2]
GPT2, JAMBA, T5 = "specs/gpt2.yaml", "specs/jamba_v0_1.yaml", "specs/t5_small.yaml"


def answers(line: str, shell: str = "bash", **environment: str) -> list[str]:
    """What a shell is answered at the end of a line."""
    word = "" if line.endswith(" ") else line.split()[-1]
    env = {"_ARCHSPEC_COMPLETE": f"{shell}_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(line.split()) - 1)}
    env |= {"COMP_CWORD": word} if shell == "fish" else {}
    result = CliRunner(env=env | environment).invoke(main, [], prog_name="archspec")
    assert result.exit_code in (0, 1), result.output
    return result.output.splitlines()


def texts(begun: str, spec: str | None = None) -> list[str]:
    return [offer.text for offer in offers(begun, spec)]


# Paths of settings


def test_the_top_of_a_spec_is_offered_without_one() -> None:
    assert texts("d_m") == ["d_model="]
    assert {"vocab_size=", "head.", "head=", "expect."} <= {*texts("")}
    assert not [text for text in texts("") if text.startswith(("extends", "__"))]


def test_fields_are_those_of_the_kind_that_stands_there() -> None:
    assert texts("define.ssm.mixer.d_", JAMBA)[:3] == [f"define.ssm.mixer.d_{n}=" for n in ("inner", "state", "conv")]
    assert texts("define.attn.mixer.d_", JAMBA) == []
    assert "define.attn.mixer.n_heads=" in texts("define.attn.mixer.n", JAMBA)
    assert texts("define.s", JAMBA) == ["define.ssm.", "define.ssm_moe."]


def test_items_of_lists_go_by_their_number() -> None:
    assert texts("blocks", GPT2) == ["blocks[0]."]
    assert "blocks[0].mixer.n_kv_heads=" in texts("blocks[0].mixer.", GPT2)
    assert texts("blocks[7].", GPT2) == []
    assert texts("stacks.encoder.b", T5) == ["stacks.encoder.blocks="]  # there a pattern, which has no items


def test_values_that_can_be_listed_are_offered() -> None:
    assert texts("define.ssm.mixer.kind=mam", JAMBA) == [f"define.ssm.mixer.kind={k}" for k in ("mamba", "mamba2")]
    assert texts("head.tied=", GPT2) == ["head.tied=true", "head.tied=false"]
    assert texts("d_model=", GPT2) == []


def test_a_file_that_is_extended_is_read_too(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(Path(GPT2).read_text())
    (tmp_path / "over.yaml").write_text("extends: base.yaml\n")
    assert texts("blocks[0].mixer.n_k", str(tmp_path / "over.yaml")) == ["blocks[0].mixer.n_kv_heads="]


@pytest.mark.parametrize(
    "begun", ["x.", "a..b", "blocks[", "blocks[0", "define.attn.mixer.n_heads.", "=", "..", "[0]="]
)
@pytest.mark.parametrize("spec", [None, JAMBA, "no_such.yaml", "specs"])
def test_what_leads_nowhere_is_answered_with_nothing(begun: str, spec: str | None) -> None:
    assert not [text for text in texts(begun, spec) if not text.startswith(begun)]


def every_offer(spec: str, begun: str = "", depth: int = 0) -> Iterator[str]:
    """All complete paths below the beginning of one."""
    for text in texts(begun, spec):
        if text.endswith("="):
            yield text[:-1]
        elif depth < 5:
            yield from every_offer(spec, text, depth + 1)


@pytest.mark.parametrize("spec", [GPT2, JAMBA, T5])
def test_every_path_that_is_offered_can_be_set(spec: str) -> None:
    document = read_extended(Path(spec), spec)[0]
    paths = [*every_offer(spec)]
    assert len(paths) > 50
    for path in paths:
        assign(document, path, Node(1, Mark("--set")))  # raises where there is no such place


# What a shell is answered


def test_arguments_are_files_and_options_have_their_values() -> None:
    for line in ("archspec count sp", "archspec validate a.yaml sp", "archspec build x.yaml -o sp", "archspec init sp"):
        assert answers(line) == ["file,sp"]
    assert answers("archspec count --by m") == ["plain,module"]
    assert answers("archspec ver") == ["plain,verify"]


def test_layers_are_topics_kinds_and_roles() -> None:
    assert answers("archspec layers att") == ["plain,attention"]
    assert answers("archspec layers wir", "fish")[0].startswith("plain,wiring\t")
    assert answers("archspec layers mixer.mam") == ["plain,mixer.mamba", "plain,mixer.mamba2"]


def test_bash_is_answered_behind_its_word_breaks() -> None:
    line = f"archspec count {GPT2} --set head.kind=masked"
    assert answers(line, COMP_BREAKS=" =:") == ["plain,masked_lm"]
    assert answers(line, COMP_BREAKS=" ") == ["plain,head.kind=masked_lm"]
    assert answers(line.replace("--set ", "--set="), COMP_BREAKS=" =:") == ["plain,masked_lm"]


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_are_told_what_a_path_means(shell: str) -> None:
    (said,) = ["\n".join(answers(f"archspec count {GPT2} --set d_mod", shell))]
    assert said.startswith({"zsh": "open\nd_model=\n", "fish": "open,d_model=\t"}[shell])
    assert said.endswith("width of the residual stream")


def test_help_is_short_and_on_one_line() -> None:
    for line in answers(f"archspec count {JAMBA} --set define.ssm_moe.ffn.", "fish"):
        assert len(line.partition("\t")[2]) <= 60


# Real shells


@pytest.fixture
def program(tmp_path: Path) -> dict[str, str]:
    """An environment in which `archspec` is a program that runs this package."""
    path = tmp_path / "archspec"
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m archspec "$@"\n')
    path.chmod(0o755)
    env = {name: value for name, value in os.environ.items() if not name.startswith(("COMP_", "_ARCHSPEC"))}
    return env | {"PATH": f"{tmp_path}:{env['PATH']}", "TERM": "dumb", "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}


def typed(shell: list[str], env: dict[str, str], setup: str, keys: str) -> str:
    """What an interactive shell on a terminal runs when these keys are typed."""
    pty: Any = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        shell, stdin=theirs, stdout=theirs, stderr=theirs, env=env, cwd=ROOT, start_new_session=True
    )
    os.close(theirs)
    said = b""

    def until(sign: bytes) -> None:
        nonlocal said
        while sign not in said:
            assert select.select([ours], [], [], 60)[0], said
            piece = os.read(ours, 1 << 16)
            assert piece, said
            said += piece

    try:
        os.write(ours, f"{setup}; echo rea''dy\n".encode())
        until(b"ready\r\n")
        os.write(ours, keys.encode())
        until(b"<end>")
        os.write(ours, b"exit\n")
    finally:
        os.close(ours)
        process.kill()
        process.wait()
    return said.decode()


# The program that completes is the one on the PATH; what is run then is a function, which shows its arguments.
SHOWN = "archspec() { printf '\\nran'; printf ' <%s>' \"$@\"; printf ' <e''nd>\\n'; }"
KEYS = "archspec cou\tspecs/gp\t--set d_mod\t5 --set blo\tmixer.n_he\t2 --set head.ki\tmas\t\n"
RUN = "<count> <specs/gpt2.yaml> <--set> <d_model=5> <--set> <blocks[0].mixer.n_heads=2> <--set> <head.kind=masked_lm>"


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_completes_what_is_typed(program: dict[str, str]) -> None:
    setup = f'PS1="$ "; bind "set bell-style none"; eval "$(archspec completion bash)"; {SHOWN}'
    said = typed(["bash", "--norc", "--noprofile", "-i"], program, setup, KEYS)
    assert RUN in said


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
def test_zsh_completes_what_is_typed(program: dict[str, str]) -> None:
    setup = f'PS1="$ "; autoload -U compinit; compinit -u -D; eval "$(archspec completion zsh)"; {SHOWN}'
    said = typed(["zsh", "-f", "-i"], program, setup, KEYS)
    assert RUN in said


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("archspec cou", ["count"]),
        ("archspec count specs/gp", ["specs/gpt2.yaml"]),
        ("archspec count specs/gpt2.yaml --set d_mod", ["d_model="]),
        ("archspec count specs/gpt2.yaml --set 'head.kind=mas", ["head.kind=masked_lm"]),
        ("archspec layers mixer.mam", ["mixer.mamba", "mixer.mamba2"]),
    ],
)
def test_fish_completes_what_is_typed(program: dict[str, str], line: str, found: list[str]) -> None:
    script = 'archspec completion fish | source; complete -C "$argv[1]"'
    done = subprocess.run(
        ["fish", "--no-config", "-c", script, line], capture_output=True, text=True, env=program, cwd=ROOT, check=True
    )
    assert [re.split(r"\t", each)[0] for each in done.stdout.splitlines()] == found, done.stderr
