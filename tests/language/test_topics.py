"""The language explains itself: every topic has a page whose examples run, and one document is made of all."""

import re
import shlex
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from archspec.cli import main
from archspec.language.document import BLOCK_KEYS, HEAD_KEYS, ITEM_KEYS, STACK_KEYS, TOP_KEYS
from archspec.language.expect import ASKED, COSTS, KEYS, LIMITS
from archspec.language.load import load
from archspec.language.source import parse
from archspec.language.topics import language, page, summary, topics
from archspec.language.wirings import BUILTINS, builtin
from archspec.layers.registry import DECLARED, kinds
from archspec.passes.count import count
from archspec.passes.expect import check

ROOT = Path(__file__).parents[2]
ASKED_FOR = {"wiring", "blocks", "pattern", "overrides", "share", "stacks", "sizes", "expect", "set", "extends"}
FENCE = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)
# what an example may leave to the spec that it is a part of
REST = {
    "d_model": "d_model: 64\n",
    "vocab_size": "vocab_size: 100\n",
    "max_seq_len": "max_seq_len: 128\n",
    "head": "head: lm\n",
}


def whole(example: str) -> str:
    """An example with what it leaves out."""
    said = {*parse(example, "example").fields, *(("vocab_size",) if "vocabulary:" in example else ())}
    said |= {"head"} if "heads" in said else set()
    return example + "".join(text for key, text in REST.items() if key not in said)


def fences(topic: str) -> list[tuple[str, str]]:
    return FENCE.findall(page(topic))


def run(*command: str) -> str:
    result = CliRunner().invoke(main, [*command])
    return result.output


def test_every_topic_is_there() -> None:
    assert set(topics()) >= ASKED_FOR
    assert not set(topics()) & {kind for role in DECLARED for kind in kinds(role)}


@pytest.mark.parametrize("topic", topics())
def test_a_page_has_its_form(topic: str) -> None:
    first, second, *rest = page(topic).split("\n")
    assert first == f"# {topic}: {summary(topic)}"
    assert not second
    assert rest[-1] == ""
    assert all(len(line) <= 123 for line in rest)
    assert any(language == "yaml" for language, _ in fences(topic))
    for other in re.findall(r"see: archspec layers (\w+)", page(topic)):
        assert other in topics()
        assert other != topic


@pytest.mark.parametrize("topic", topics())
def test_the_examples_of_a_page_run(topic: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for kind, text in fences(topic):
        if kind == "yaml":
            Path("model.yaml").write_text(whole(text))
            spec = load("model.yaml")
            assert spec.warnings == ()
            assert check(spec, count(spec)) == []
        else:
            assert kind == "console"
            printed = ""
            for line in text.splitlines():
                if line.startswith("$ archspec "):
                    printed = run(*shlex.split(line)[2:])
                else:
                    assert line in printed


@pytest.mark.parametrize("topic", topics())
def test_the_command_prints_the_page(topic: str) -> None:
    text = run("layers", topic)
    assert text.startswith(page(topic))
    assert text == page(topic) or all(f"  {kind} " in text for kind in kinds(topic))
    assert f"  {topic} " in run("layers")


def test_a_topic_that_is_misspelt_is_suggested() -> None:
    assert "no layer 'wirings'; did you mean 'wiring'?" in run("layers", "wirings")


def test_the_document_is_up_to_date() -> None:
    assert (ROOT / "docs" / "language.md").read_text(encoding="utf-8") == language()


@pytest.mark.parametrize(
    "words",
    [TOP_KEYS, STACK_KEYS, BLOCK_KEYS, ITEM_KEYS, HEAD_KEYS, BUILTINS, LIMITS],
    ids=["top", "stack", "block", "item", "head", "wirings", "limits"],
)  # fmt: skip
def test_every_word_of_the_language_is_documented(words: dict[str, str]) -> None:
    missing = {word for word in words if not re.search(rf"\b{re.escape(word)}\b", language())}
    assert not missing


def test_the_keys_of_expect_are_documented() -> None:
    assert not {word for word in (*KEYS, *COSTS, *ASKED) if word not in page("expect")}


@pytest.mark.parametrize("kind", BUILTINS)
def test_the_wirings_are_documented_as_they_are(kind: str) -> None:
    lines = re.search(rf"^    {kind} +(.*)$", page("wiring"), re.MULTILINE)
    assert lines is not None
    said = lines[1].partition(", alpha")[0].split(";  ")
    assert said == [line.replace("1.0 *", "alpha *") for line in builtin(kind, ("mixer", "ffn"), alpha=1.0)]


def test_what_is_no_python_is_in_the_wheel() -> None:
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    shipped = {
        p for package, globs in patterns.items() for g in globs for p in (ROOT / package.replace(".", "/")).glob(g)
    }
    others = {
        p for p in (ROOT / "archspec").rglob("*") if p.is_file() and p.suffix not in (".py", ".pyc", ".nbi", ".nbc")
    }
    assert others
    assert others <= shipped


def test_messages_name_topics_that_exist() -> None:
    sources = [path.read_text() for path in (ROOT / "archspec").rglob("*.py")]
    named = {name for text in sources for name in re.findall(r"see\(['\"](\w+)['\"]\)", text)}
    assert named
    assert named <= set(topics())
