"""Safe YAML with places: values, marks, refusals, hostile input, merge and assign."""

import contextlib
import math
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from archspec.errors import Fault, Mark, SpecError
from archspec.language import source, tree

SCALARS = st.none() | st.booleans() | st.integers(-(10**29), 10**29) | st.floats(allow_nan=False) | st.text(max_size=8)
DATA = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
)
TREES = st.dictionaries(st.sampled_from("abc"), DATA, max_size=3)


def problems(text: str) -> list[str]:
    with pytest.raises(SpecError) as caught:
        source.parse(text, "f.yaml")
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("46_702_792_704", 46702792704),
        ("0x1F", 31),
        ("0o17", 15),
        ("007", 7),
        ("-5", -5),
        ("1e-6", 1e-6),
        ("1.0e-6", 1e-6),
        ("+.5", 0.5),
        ("1.", 1.0),
        (".inf", math.inf),
        ("-.INF", -math.inf),
        ("~", None),
        ("null", None),
        ("", None),
        ("True", True),
        ("false", False),
        *[
            (word, word)
            for word in ("yes", "no", "on", "off", "1__0", "1_", "8/3 * d_model", "2024-01-01", "1:30", "-")
        ],
        ("'1'", "1"),
        ('"true"', "true"),
        ("''", ""),
        ("|\n  7", "7"),
    ],
)
def test_scalars_follow_the_core_schema(text: str, value: object) -> None:
    if text == "-":
        text = "'-'"
    found = source.parse(f"k: {text}", "f").plain()["k"]
    assert found == value
    assert type(found) is type(value)


def test_not_a_number_parses() -> None:
    assert math.isnan(source.parse(".nan", "f").plain())


def test_every_node_and_key_knows_its_place() -> None:
    root = source.parse("a:\n  b: [1, {c: x}]\n", "f")
    assert root.keys["a"] == Mark("f", 1, 1)
    a = root.value["a"]
    assert a.keys["b"] == Mark("f", 2, 3)
    b = a.value["b"]
    assert [item.mark.column for item in b.value] == [7, 10]
    assert b.value[1].value["c"].mark == Mark("f", 2, 14)


def test_kinds_have_names() -> None:
    root = source.parse("[{}, [], x, 1, 2.5, true, ~]", "f")
    assert [n.kind_name() for n in root.value] == [
        "a mapping", "a list", "text", "a number", "a number", "true or false", "nothing",
    ]  # fmt: skip


def test_aliases_are_shared() -> None:
    root = source.parse("a: &b {c: 1}\nd: *b\n", "f")
    assert root.value["a"] is root.value["d"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "f.yaml: the file is empty"),
        ("# only\n", "f.yaml: the file is empty"),
        ("a: 1\na: 2", "f.yaml:2:1: the key 'a' stands twice, first in line 1; keep one"),
        ("a: !x 1", "f.yaml:1:4: the tag !x is not allowed; write plain values"),
        ("!!map {}", "f.yaml:1:1: the tag !!map is not allowed; write plain values"),
        (
            "a: !!python/object/apply:os.system [ls]",
            "f.yaml:1:4: the tag !!python/object/apply:os.system is not allowed; write plain values",
        ),
        ("a: ! 1", "f.yaml:1:4: the tag ! is not allowed; write plain values"),
        ("a: 1\n---\nb: 2", "f.yaml:2:1: a second document starts here; one file holds one spec"),
        ("1: 2", "f.yaml:1:1: a key must be text, found a number: 1; put it in quotes"),
        ("true: 2", "f.yaml:1:1: a key must be text, found true or false: true; put it in quotes"),
        ("[1]: 2", "f.yaml:1:1: a key must be text, found a list or a mapping"),
        ("a: &a x\n*a : 2", "f.yaml:2:1: a key must be text, found an alias"),
        ("a: &b [*b]", "f.yaml:1:8: the alias *b stands inside the value that it names"),
        ("a: *z", "f.yaml:1:4: the alias *z has no anchor &z before it"),
        (
            "b:\n  <<: {a: 1}",
            "f.yaml:2:3: merge keys (<<) are not allowed; use `extends` to build on another block or file",
        ),
        ("a: \x00", "f.yaml:1:4: the character U+0000 is not allowed in YAML"),
        ("a: 1\nb: \x07", "f.yaml:2:4: the character U+0007 is not allowed in YAML"),
        ("\ud800", "f.yaml:1:1: the character U+D800 is not allowed in YAML"),
        ('a: "\\0"', "f.yaml:1:4: the character U+0000 is not allowed"),
        ("a:\n\t- b", "f.yaml:2:1: not valid YAML: a tab cannot indent; use spaces"),
        ("a: @b", "f.yaml:1:4: not valid YAML: '@' cannot start a value; put the text in quotes"),
        ("a: b: c", "f.yaml:1:5: not valid YAML: a ':' cannot stand here; quote the text, or start a new line"),
        (
            "a: [1, 2\nb: 3",
            "f.yaml:2:2: not valid YAML: the list is not closed; a ',' or a ']' is missing before this place"
            " (it begins in line 1)",
        ),
        ("a: 'x\n", "f.yaml:2:1: not valid YAML: a quote is not closed (it begins in line 1)"),
        (f"a: {'9' * 31}", f"f.yaml:1:4: a number of more than 30 digits: {'9' * 31}; put it in quotes if it is text"),
    ],
)
def test_refusals_say_where_and_what(text: str, message: str) -> None:
    assert problems(text) == [message]


def test_several_mistakes_are_reported_at_once() -> None:
    assert [p.split(":")[1] for p in problems("a: !x 1\n2: b\nc: 1\nc: 2\n<<: {}\n")] == ["1", "2", "4", "5"]


NINE_LEVELS = "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
)
DEEP_ALIASES = "a0: &a0 [1]\n" + "".join(f"a{i}: &a{i} [[[[[*a{i - 1}]]]]]\n" for i in range(1, 900))


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (NINE_LEVELS, "more than 50000 values"),
        (DEEP_ALIASES, "nested more than 50"),
        ("[" * 1_000_000, "nested more than 50"),
        ("- " * 400_000, "nested more than 50"),
        ("{a: " * 100, "nested more than 50"),
        ("[" + "1," * 400_000 + "]", "more than 50000 values"),
        ("x: y\n" * 200_000, "stands twice"),
        ("a: " + "9" * 1_000_000, "more than 30 digits"),
        ("a: 1." + "3" * 1_000_000, "more than 60 characters"),
        ("a" * (source.MAX_BYTES + 1), "larger than"),
        ("&a " * 100_000, "not valid YAML"),
    ],
)
def test_bombs_are_refused_at_once(text: str, part: str) -> None:
    start = time.process_time()
    found = problems(text)
    assert time.process_time() - start < 1
    assert part in found[0]
    assert len(found) <= 51


@given(DATA)
def test_plain_data_survives_the_round_trip(data: object) -> None:
    assert tree.from_plain(data, Mark("f")).plain() == data


@given(st.dictionaries(st.from_regex(r"[a-z]{1,5}", fullmatch=True), st.integers(-(10**20), 10**20) | st.booleans()))
def test_reads_what_yaml_writes(data: dict[str, object]) -> None:
    assert source.parse(yaml.safe_dump(data), "f").plain() == data


@settings(max_examples=300)
@given(st.text(alphabet="ab:-[]{},&*!|>'\"%@`#\n\t 01?\\\x00\x85é", max_size=60))
def test_any_text_parses_or_is_refused_cleanly(text: str) -> None:
    with contextlib.suppress(SpecError):
        source.parse(text, "f").plain()


def test_python_loader_gives_the_same_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "a: &x [1, {b: 'c'}]\nd: *x\n"
    expected = source.parse(text, "f").plain()
    monkeypatch.setattr(source, "_LOADER", yaml.SafeLoader)
    assert source.parse(text, "f").plain() == expected
    for broken in ("a: [1\nb: 2", "a: b: c", "\ta", "a: 'x", "a: &b [*b]"):
        assert problems(broken)


def test_reading_a_file(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_bytes(b"\xef\xbb\xbfname: caf\xc3\xa9\r\n")
    assert source.read(path, "m.yaml").plain() == {"name": "caf\u00e9"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "m.yaml: no such file"),
        (b"a: 1\nb: \xff", "m.yaml:2:4: byte 0xff is not UTF-8; save it as UTF-8"),
        (b"#" * ((1 << 20) + 1), "m.yaml: larger than 1048576 bytes; a spec is a page of text"),
    ],
)
def test_unreadable_files(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "m.yaml").write_bytes(content)
    with pytest.raises(SpecError) as caught:
        source.read(tmp_path / "m.yaml", "m.yaml")
    assert str(caught.value.problems[0]) == message


@pytest.mark.parametrize(
    ("path", "message"),
    [(Path("/"), "is a directory; name a YAML file"), (Path("a\0b"), "no such file"), (Path("x" * 5000), "cannot be")],
)
def test_odd_paths(path: Path, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        source.read(path, "p")


def test_python_data_is_bounded_too() -> None:
    loop: list[object] = []
    loop.append(loop)
    bomb: list[object] = []
    for _ in range(40):
        bomb = [bomb, bomb]
    for data in (loop, bomb, {1: 2}, {"a": {1, 2}}, 10**31, object()):
        with pytest.raises(SpecError):
            tree.from_plain(data, Mark("p"))


def merged(base: object, over: object) -> object:
    b, o = tree.from_plain(base, Mark("base")), tree.from_plain(over, Mark("over"))
    result = tree.merge(b, o).plain()
    assert (b.plain(), o.plain()) == (base, over)
    return result


@pytest.mark.parametrize(
    ("base", "over", "result"),
    [
        ({"a": 1, "b": {"c": 2}}, {"b": {"d": 3}}, {"a": 1, "b": {"c": 2, "d": 3}}),
        ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
        ({"a": {"b": 1}}, {"a": None}, {"a": None}),
        ({"a": 1}, {"a": {"b": 1}}, {"a": {"b": 1}}),
        ({"a": {"b": 1}}, {"a": {"__replace__": True, "c": 2}}, {"a": {"c": 2}}),
        ({"a": {"b": 1}}, {"a": {"__replace__": False, "c": 2}}, {"a": {"b": 1, "c": 2}}),
        ({}, {"a": {"__replace__": True, "c": {"__replace__": True}}}, {"a": {"c": {}}}),
        ({"m": {"kind": "x", "p": 1}}, {"m": {"kind": "y", "q": 2}}, {"m": {"kind": "y", "q": 2}}),
        ({"m": {"kind": "x", "p": 1}}, {"m": {"kind": "x", "q": 2}}, {"m": {"kind": "x", "p": 1, "q": 2}}),
        ({"m": {"p": 1}}, {"m": {"kind": "y"}}, {"m": {"p": 1, "kind": "y"}}),
    ],
)
def test_merge(base: object, over: object, result: object) -> None:
    assert merged(base, over) == result


def test_merge_keeps_the_marks_of_what_won() -> None:
    base = source.parse("a: 1\nm: {p: 1, q: 2}", "base")
    over = source.parse("m: {q: 3}", "over")
    m = tree.merge(base, over).value["m"]
    assert (m.value["p"].mark.file, m.value["q"].mark.file, m.keys["q"].file) == ("base", "over", "over")


def test_replace_must_be_true_or_false() -> None:
    with pytest.raises(SpecError, match="__replace__ must be true or false, found text"):
        merged({"a": {}}, {"a": {"__replace__": "yes"}})


@given(TREES)
def test_merging_with_itself_or_nothing_changes_nothing(data: dict[str, object]) -> None:
    assert merged(data, data) == data
    assert merged(data, {}) == data
    assert merged({}, data) == data


TREE = "a:\n  b: [1, {c: 2}]\nm: {kind: x, q: 1}\nz: ~"


@pytest.mark.parametrize(
    ("path", "value", "changed"),
    [
        ("a.b[1].c", "7", {"a": {"b": [1, {"c": 7}]}}),
        ("a.b[-1].d", "7", {"a": {"b": [1, {"c": 2, "d": 7}]}}),
        ("a.b", "7", {"a": {"b": 7}}),
        ("q.r.s", "7", {"q": {"r": {"s": 7}}}),
        ("z.y", "7", {"z": {"y": 7}}),
        ("m.kind", "y", {"m": {"kind": "y"}}),
        ("m.kind", "x", {}),
        ("m", "{w: 3}", {"m": {"kind": "x", "q": 1, "w": 3}}),
        ("m", "{__replace__: true, w: 3}", {"m": {"w": 3}}),
    ],
)
def test_assign(path: str, value: str, changed: dict[str, object]) -> None:
    root = source.parse(TREE, "f")
    before = root.plain()
    assert tree.assign(root, path, source.parse(value, "--set")).plain() == before | changed
    assert root.plain() == before


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("a.b[5]", "a.b has 2 items; there is no [5]"),
        ("a.b[-3]", "a.b has 2 items; there is no [-3]"),
        ("a.b.c", "a.b is a list and has no field 'c'"),
        ("m.q.r", "m.q is a number and has no field 'r'"),
        ("a[0]", "a is a mapping, not a list; [0] needs a list"),
        ("[0]", "the spec is a mapping, not a list; [0] needs a list"),
        (".".join("a" * 60), "a path has at most 50 steps, found 60"),
        *[
            (path, f"{path!r} is not a path; write for example blocks[0].mixer.n_heads")
            for path in ("", "a..b", "a.", ".a", "a[x]", "a[1]b", "a[", "a]", "a.[0]")
        ],
    ],
)
def test_assign_refuses(path: str, message: str) -> None:
    with pytest.raises(Fault) as caught:
        tree.assign(source.parse(TREE, "f"), path, source.parse("1", "--set"))
    assert str(caught.value) == message
