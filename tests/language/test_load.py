"""Loading: files that extend files, settings from outside, what is accepted as text, and where mistakes are told."""

import os
from pathlib import Path
from typing import Any

import pytest

from archspec.errors import SpecError
from archspec.language.document import TOP_KEYS
from archspec.language.load import MOST_EXTENDS, load, loads
from archspec.language.model import Spec

TEXT = """\
name: toy
d_model: 64
vocab_size: 100
define:
  wide: {ffn: {kind: mlp, d_ff: 128, activation: relu}}
  attn: {mixer: {kind: attention, n_heads: 4}}
blocks: [attn, wide]
"""


def part(spec: Spec, layer: int, name: str) -> Any:
    return spec.main.layers[layer].block.part(name)


def problems(source: Any, **more: Any) -> list[str]:
    with pytest.raises(SpecError) as caught:
        load(source, **more)
    return [str(problem) for problem in caught.value.problems]


def file(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


# What a spec may be read from


def test_a_file_its_text_and_its_data_are_one_spec(tmp_path: Path) -> None:
    data = {
        "name": "toy",
        "d_model": 64,
        "vocab_size": 100,
        "blocks": [
            {"mixer": {"kind": "attention", "n_heads": 4}},
            {"ffn": {"kind": "mlp", "d_ff": 128, "activation": "relu"}},
        ],
    }
    path = file(tmp_path, "toy.yaml", TEXT)
    assert load(path) == load(str(path)) == loads(TEXT) == load(data)
    assert load(path).digest == load(data).digest


@pytest.mark.parametrize("encoded", [b"\xef\xbb\xbf" + TEXT.encode(), TEXT.replace("\n", "\r\n").encode()])
def test_a_byte_order_mark_and_crlf_change_nothing(encoded: bytes, tmp_path: Path) -> None:
    path = tmp_path / "toy.yaml"
    path.write_bytes(encoded)
    assert load(path) == loads(TEXT)


def test_lines_are_counted_alike_with_crlf(tmp_path: Path) -> None:
    path = tmp_path / "toy.yaml"
    path.write_bytes(TEXT.replace("n_heads", "n_haeds").replace("\n", "\r\n").encode())
    message = "define.attn.mixer.n_haeds: attention has no 'n_haeds'; did you mean 'n_heads'?"
    assert problems(path) == [f"{path}:6:35: {message}"]


def test_data_is_not_changed() -> None:
    data = {"d_model": 8, "vocab_size": 5, "blocks": [{"ffn": {"kind": "mlp", "d_ff": 4}}]}
    copy = eval(repr(data))
    load(data, set=["d_model=16", "blocks[0].ffn.d_ff=8"])
    assert data == copy


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({1: 2}, "a key must be text"),
        ({"d_model": {1, 2}}, "found one of type set"),
        ({"d_model": b"64"}, "found one of type bytes"),
        ({"d_model": 10**40}, "more than 30 digits"),
    ],
)
def test_data_that_yaml_cannot_hold_is_refused(data: dict, message: str) -> None:
    assert message in problems(data)[0]


def test_data_that_holds_itself_is_refused() -> None:
    data: dict[str, Any] = {"d_model": 8}
    data["define"] = data
    assert "holds itself" in problems(data)[0]


def test_text_and_data_extend_nothing() -> None:
    assert problems({"extends": "base.yaml"}) == ["<python>: extends: only a file can extend another"]
    with pytest.raises(SpecError, match="only a file can extend another"):
        loads("extends: base.yaml")


def test_an_empty_value_is_as_if_it_were_not_there() -> None:
    assert loads(TEXT + "head:\ninit:\nnorm:\nsizes:\n") == loads(TEXT)


# Extends


def test_a_file_changes_the_one_that_it_extends(tmp_path: Path) -> None:
    file(tmp_path, "base.yaml", TEXT)
    spec = load(file(tmp_path, "child.yaml", "extends: base.yaml\nname: child\ndefine: {wide: {ffn: {d_ff: 256}}}\n"))
    assert spec.name == "child"
    assert spec.main.d_model == 64
    assert (part(spec, 1, "ffn").d_ff, part(spec, 1, "ffn").activation) == (256, "relu")


def test_another_kind_drops_the_fields_of_the_old_one(tmp_path: Path) -> None:
    file(tmp_path, "base.yaml", TEXT)
    child = "extends: base.yaml\ndefine: {attn: {mixer: {kind: mamba, d_state: 8}}}\n"
    assert part(load(file(tmp_path, "child.yaml", child)), 0, "mixer").d_state == 8


def test_replace_drops_what_was_there(tmp_path: Path) -> None:
    file(tmp_path, "base.yaml", TEXT)
    child = "extends: base.yaml\ndefine: {wide: {ffn: {__replace__: true, kind: mlp, d_ff: 256}}}\n"
    assert part(load(file(tmp_path, "child.yaml", child)), 1, "ffn").activation == "gelu"


def test_a_list_is_replaced_and_never_merged(tmp_path: Path) -> None:
    file(tmp_path, "base.yaml", TEXT)
    assert load(file(tmp_path, "child.yaml", "extends: base.yaml\nblocks: [wide, wide, wide]\n")).main.n_layers == 3


def test_a_base_may_define_blocks_that_a_child_leaves_out(tmp_path: Path) -> None:
    file(tmp_path, "base.yaml", TEXT + "sizes: {expand: 2}\nmask: bidirectional\n")
    assert load(file(tmp_path, "child.yaml", "extends: base.yaml\nblocks: wide\n")).main.n_layers == 1


def test_files_extend_one_another_through_folders(tmp_path: Path) -> None:
    file(tmp_path, "parts/base.yaml", TEXT)
    file(tmp_path, "parts/more/middle.yaml", "extends: ../base.yaml\nd_model: 128\n")
    spec = load(file(tmp_path, "child.yaml", "extends: parts/more/middle.yaml\nname: child\n"))
    assert (spec.name, spec.main.d_model) == ("child", 128)


def test_a_long_chain_is_followed_to_its_limit(tmp_path: Path) -> None:
    file(tmp_path, "0.yaml", TEXT)
    for i in range(1, MOST_EXTENDS + 2):
        file(tmp_path, f"{i}.yaml", f"extends: {i - 1}.yaml\n")
    assert load(tmp_path / f"{MOST_EXTENDS}.yaml").main.n_layers == 2
    assert problems(tmp_path / f"{MOST_EXTENDS + 1}.yaml")[0].endswith(
        f"more than {MOST_EXTENDS} files extend one another"
    )


def test_a_mistake_is_told_in_the_file_where_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file(tmp_path, "parts/base.yaml", TEXT.replace("d_ff: 128", "d_ff: -1"))
    file(tmp_path, "child.yaml", "extends: parts/base.yaml\nd_model: 65\n")
    assert problems("child.yaml") == [
        "parts/base.yaml:5:33: define.wide.ffn.d_ff: d_ff = -1 must be a whole number above 0",
        "parts/base.yaml:6:17: define.attn.mixer.head_dim: head_dim = d_model / n_heads = 65 / 4 = 16.25 is not "
        "a whole number; give head_dim, or choose sizes that divide",
    ]


@pytest.mark.parametrize("outside", ["../secret.yaml", "parts/../../secret.yaml", "link.yaml", "linked/secret.yaml"])
def test_no_file_outside_the_folder_is_read(outside: str, tmp_path: Path) -> None:
    file(tmp_path, "secret.yaml", "vocab_size: 31337\n")
    inside = tmp_path / "specs"
    (inside / "parts").mkdir(parents=True)
    os.symlink(tmp_path / "secret.yaml", inside / "link.yaml")
    os.symlink(tmp_path, inside / "linked")
    found = problems(file(inside, "child.yaml", f"extends: {outside}\nd_model: 8\n"))
    assert len(found) == 1
    assert "leaves the folder of the spec" in found[0]
    assert "31337" not in found[0]


def test_a_spec_may_itself_be_a_link(tmp_path: Path) -> None:
    file(tmp_path, "real/base.yaml", TEXT)
    os.symlink(tmp_path / "real" / "base.yaml", tmp_path / "link.yaml")
    assert load(tmp_path / "link.yaml") == loads(TEXT)


def test_links_in_a_circle_are_no_file(tmp_path: Path) -> None:
    os.symlink(tmp_path / "b.yaml", tmp_path / "a.yaml")
    os.symlink(tmp_path / "a.yaml", tmp_path / "b.yaml")
    assert len(problems(tmp_path / "a.yaml")) == 1
    assert len(problems(file(tmp_path, "child.yaml", "extends: a.yaml\n"))) == 1


# Settings


@pytest.mark.parametrize(
    ("setting", "found"),
    [
        ("d_model=128", lambda s: s.main.d_model == 128),
        (" d_model = 128 ", lambda s: s.main.d_model == 128),
        ("d_model=2 * 64", lambda s: s.main.d_model == 128),
        ("define.attn.mixer.n_heads=2", lambda s: part(s, 0, "mixer").n_heads == 2),
        ("define.attn.mixer.position=rope", lambda s: part(s, 0, "mixer").position.kind == "rope"),
        ("define.attn.mixer.position.kind=rope", lambda s: part(s, 0, "mixer").position.kind == "rope"),
        ("define.attn.mixer={kind: mamba, d_state: 8}", lambda s: part(s, 0, "mixer").d_state == 8),
        ("define.attn.mixer.kind=mamba", lambda s: part(s, 0, "mixer").kind == "mamba"),
        ("define.wide.ffn={d_ff: 32}", lambda s: part(s, 1, "ffn").activation == "relu"),
        ("define.wide.ffn={__replace__: true, kind: mlp, d_ff: 32}", lambda s: part(s, 1, "ffn").activation == "gelu"),
        ("blocks=wide attn wide", lambda s: s.main.n_layers == 3),
        ("blocks[0]=wide attn", lambda s: s.main.n_layers == 3),
        ("blocks[-1]=wide x3", lambda s: s.main.n_layers == 4),
        ("blocks=[attn, wide, {repeat: 2, pattern: [wide]}]", lambda s: s.main.n_layers == 4),
        ("head.kind=lm", lambda s: s.head.kind == "lm"),
        ("head=", lambda s: s.head.kind == "none"),
        ("name=1e", lambda s: s.name == "1e"),
        ('name="a = b"', lambda s: s.name == "a = b"),
        ("expect.layers=2", lambda s: s.expect[0][1].holds(2)),
        ("overrides=[{at: 'layers[1].ffn', set: {d_ff: 16}}]", lambda s: part(s, 1, "ffn").d_ff == 16),
    ],
)
def test_settings_of_every_form(setting: str, found: Any) -> None:
    assert found(loads(TEXT, set=[setting]))


def test_later_settings_come_over_earlier_ones() -> None:
    assert loads(TEXT, set=["d_model=32", "d_model=128"]).main.d_model == 128


@pytest.mark.parametrize(
    ("settings", "messages"),
    [
        (["d_model"], ["--set: 'd_model' must be path=value, such as d_model=512 (see: archspec layers set)"]),
        (["=5"], ["--set: '=5' must be path=value, such as d_model=512 (see: archspec layers set)"]),
        (["d_modle=5"], ["--set d_modle=5: d_modle: a spec has no 'd_modle'; did you mean 'd_model'?"]),
        (["extends=other.yaml"], ["--set extends=other.yaml: extends: only a file can extend another"]),
        (["blocks[7].ffn=none"], ["--set blocks[7].ffn=none: blocks[7].ffn: blocks has 2 items; there is no [7]"]),
        (["d_model.x=5"], ["--set d_model.x=5: d_model.x: d_model is a number and has no field 'x'"]),
        (["define.attn[0]=5"],
         ["--set define.attn[0]=5: define.attn[0]: define.attn is a mapping, not a list; [0] needs a list"]),
        (["a..b=5"], ["--set a..b=5: a..b: a spec has no 'a'; known: " + ", ".join(sorted(TOP_KEYS))]),
        (["name..b=5"],
         ["--set name..b=5: name..b: 'name..b' is not a path; write for example blocks[0].mixer.n_heads"]),
        (["d_model=@"], ["--set d_model=@: d_model: not valid YAML: '@' cannot start a value; put the text in quotes"]),
        (["d_model=-1"], ["--set d_model=-1: d_model: d_model = -1 must be a whole number above 0"]),
        (
            ["d_modle=5", "d_model", "vocab_size={"],
            [
                "--set: 'd_model' must be path=value, such as d_model=512 (see: archspec layers set)",
                "--set d_modle=5: d_modle: a spec has no 'd_modle'; did you mean 'd_model'?",
                "--set vocab_size={: vocab_size: not valid YAML: a value is missing here, or a bracket before it is not"
                " closed",
            ],
        ),
    ],
)  # fmt: skip
def test_wrong_settings(settings: list[str], messages: list[str]) -> None:
    with pytest.raises(SpecError) as caught:
        loads(TEXT, set=settings)
    assert [str(problem) for problem in caught.value.problems] == messages


def test_settings_come_over_what_a_file_extends(tmp_path: Path) -> None:
    file(tmp_path, "base.yaml", TEXT)
    path = file(tmp_path, "child.yaml", "extends: base.yaml\nd_model: 128\n")
    assert load(path, set=["d_model=256"]).main.d_model == 256


def test_settings_may_be_a_mapping_of_plain_data() -> None:
    found = loads(TEXT, set={"d_model": 128, "define.wide.ffn": {"kind": "mlp", "d_ff": 3}, "blocks": ["wide"] * 3})
    assert (found.main.d_model, found.main.n_layers, part(found, 0, "ffn").d_ff) == (128, 3, 3)
    with pytest.raises(SpecError, match="--set d_model=x: d_model: d_model = 'x' must be"):
        loads(TEXT, set={"d_model": "x"})


@pytest.mark.parametrize("nothing", ["expect={}", "expect=null", "expect="])
def test_a_setting_may_drop_what_was_promised(nothing: str) -> None:
    assert loads(TEXT + "expect: {layers: 3}\n", set=[nothing]).expect == ()


def test_a_setting_of_blocks_may_leave_definitions_unused() -> None:
    assert loads(TEXT, set=["blocks=wide x3"]).main.n_layers == 3
    assert loads(TEXT, set=["blocks[0]=wide"]).main.n_layers == 2


def test_a_definition_may_be_taken_away(tmp_path: Path) -> None:
    file(tmp_path, "base.yaml", TEXT)
    path = file(tmp_path, "child.yaml", "extends: base.yaml\ndefine: {attn: null}\nblocks: wide x2\n")
    assert load(path).main.n_layers == 2
    path = file(tmp_path, "child.yaml", "extends: base.yaml\ndefine: {attn: null}\n")
    assert "no block 'attn'" in problems(path)[0]
    assert loads(TEXT, set=["define.attn=null", "blocks=wide"]).main.n_layers == 1


def test_sizes_of_the_top_may_be_rounded_and_repeats_computed() -> None:
    text = """
sizes: {n: 2, width: {of: 8/3 * n, multiple_of: 8}}
d_model: {of: 8 * width, multiple_of: 3}
vocab_size: {of: 100, multiple_of: 64}
blocks: [{repeat: n * 2, ffn: {kind: mlp, d_ff: 8}}]
"""
    found = loads(text)
    assert (found.main.d_model, found.vocab_size, found.main.n_layers) == (66, 128, 4)
    for repeat, message in {
        "m * 2": "no size 'm' is known here; known: d_model, n, vocab_size, width",
        "n / 4": "repeat = n / 4 = 2 / 4 = 0.5 is not a whole number",
        "n - 2": "repeat = n - 2 = 0 must be a whole number above 0",
        "n ** 20": "more than 4096 layers",
    }.items():
        with pytest.raises(SpecError) as caught:
            loads(text.replace("n * 2", repeat))
        assert message in str(caught.value)


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("pipe", "is not an ordinary file but a pipe"),
        ("folder", "is a directory"),
        ("loop", "is a symbolic link that leads back to itself"),
        ("nothing", ""),
    ],
)
def test_what_is_no_file_is_said(tmp_path: Path, what: str, said: str) -> None:
    if what == "pipe":
        os.mkfifo(tmp_path / what)
    elif what == "folder":
        (tmp_path / what).mkdir()
    elif what == "loop":
        (tmp_path / what).symlink_to("other")
        (tmp_path / "other").symlink_to(what)
    child = file(tmp_path, "child.yaml", f"extends: {what}\nname: child\n")
    (told,) = problems(child)
    assert told.endswith(f"extends: {what!r} {said}" if said else f"no file {what!r} beside child.yaml")
    (told,) = problems(tmp_path / what)
    assert told == f"{tmp_path / what}: {said or 'no such file'}{'; name a YAML file' * (what == 'folder')}"
