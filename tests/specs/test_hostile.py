"""Specs from strangers: none runs code, takes long, takes much memory, or ends in a traceback."""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from archspec.codegen.generate import generate
from archspec.errors import SpecError
from archspec.language.load import load, loads
from archspec.language.problems import MOST_PROBLEMS
from archspec.language.source import MAX_BYTES

RUNNER = Path(__file__).with_name("hostile_runner.py")
CPU_SECONDS = 1.0
GROWTH_MIB = 200

TOP = "name: toy\nd_model: 64\nvocab_size: 100\n"
GOOD = TOP + "blocks: [{ffn: {kind: mlp, d_ff: 128}}]\n"
FFN = "{ffn: {kind: mlp, d_ff: 8}}"
CODE = "__import__('os').system('touch canary')"


def lines(n: int, line: Callable[[int], str]) -> str:
    return "".join(f"{line(i)}\n" for i in range(n))


def wired(*body: str) -> str:
    return TOP + "blocks:\n  - ffn: {kind: mlp, d_ff: 8}\n    wiring:\n" + "".join(f"      - {line}\n" for line in body)


def sized(text: str) -> str:
    return TOP + f"blocks: [{{ffn: {{kind: mlp, d_ff: {json.dumps(text)}}}}}]\n"


# Text that YAML itself must survive
YAML = {
    "deep_brackets": "[" * 100_000,
    "deep_braces": "{a: " * 100_000,
    "deep_dashes": "- " * 100_000,
    "deep_indentation": "".join(" " * i + "a:\n" for i in range(1000)),
    "deep_closed": "a: " + "[" * 10_000 + "]" * 10_000,
    "alias_bomb": "a: &a [x, x, x, x, x, x, x, x, x]\n"
    + lines(12, lambda i: f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join([f'*{chr(97 + i)}'] * 9)}]"),
    "alias_chain": "a0: &a0 [x]\n" + lines(40, lambda i: f"a{i + 1}: &a{i + 1} {{x: *a{i}, y: *a{i}}}"),
    "alias_of_itself": "a: &a [*a]\n",
    "many_anchors": lines(30_000, lambda i: f"k{i}: &a{i} {i}"),
    "many_aliases": "k: &a x\nl: [" + "*a, " * 60_000 + "]",
    "many_keys": lines(60_000, lambda i: f"k{i}: {i}"),
    "same_key_often": "a: 1\n" * 40_000,
    "long_key": "k" * 900_000 + ": 1\n",
    "long_text": GOOD + f"description: {'x' * 900_000}\n",
    "long_number": GOOD + f"max_seq_len: {'9' * 900_000}\n",
    "long_float": GOOD + f"max_seq_len: 0.{'9' * 900_000}\n",
    "long_tag": f"name: !{'t' * 900_000} x\n",
    "python_tag": "name: !!python/object/apply:os.system ['touch canary']\n",
    "python_new_tag": "name: !!python/object/new:os.system ['touch canary']\n",
    "python_name_tag": "name: !!python/name:os.system\n",
    "larger_than_allowed": GOOD + "#" * MAX_BYTES,
    "much_larger": GOOD + "# comment\n" * 2_000_000,
    "only_newlines": "\n" * 1_000_000,
    "only_quotes": "'" * 1_000_000,
    "only_question_marks": "? " * 300_000,
    "only_ampersands": "& " * 300_000,
    "nul": "name: a\0b\n",
    "documents": "---\n" * 200_000,
}

# Text that is YAML and no spec, or a spec without measure
SPECS = {
    "unknown_keys": GOOD + lines(10_000, lambda i: f"unknown_key_{i}: 1"),
    "unknown_long_keys": GOOD + lines(500, lambda i: f"{'d_model_' * 60}{i}: 1"),
    "unknown_keys_like_known_ones": GOOD + lines(10_000, lambda i: f"d_model{i}: 1"),
    "unknown_fields": TOP + "blocks:\n  - ffn:\n      kind: mlp\n" + lines(10_000, lambda i: f"      d_ff{i}: 1"),
    "unknown_names": TOP
    + "define:\n"
    + lines(5000, lambda i: f"  block_{i}: {FFN}")
    + "blocks:\n"
    + lines(3000, lambda i: f"  - blokc_{i}"),
    "wrong_blocks": TOP + "blocks:\n" + lines(4000, lambda i: f"  - {{mixer: {{kind: attention, n_heads: -{i}}}}}"),
    "wrong_define": TOP
    + "define:\n"
    + lines(4000, lambda i: f"  b{i}: {{mixer: {{kind: atention{i}}}}}")
    + "blocks: b0\n",
    "define_chain": TOP
    + "define:\n"
    + lines(8000, lambda i: f"  b{i}: {{extends: b{i + 1}}}")
    + f"  b8000: {FFN}\nblocks: b0\n",
    "define_circle": TOP
    + "define:\n"
    + lines(8000, lambda i: f"  b{i}: {{extends: b{(i + 1) % 8000}}}")
    + "blocks: b0\n",
    "sizes_chain": TOP + "sizes:\n" + lines(5000, lambda i: f"  s{i}: s{i + 1} + 1") + "  s5000: 1\nblocks: []\n",
    "sizes_circle": TOP + "sizes:\n" + lines(5000, lambda i: f"  s{i}: s{(i + 1) % 5000}") + "blocks: []\n",
    "sizes_doubling": TOP
    + "sizes:\n"
    + lines(500, lambda i: f"  s{i}: s{i + 1} * s{i + 1}")
    + "  s500: 9\nblocks: []\n",
    "pattern_nested": TOP + f"define: {{a: {FFN}}}\nblocks: {'(' * 60}a{')x9' * 60}\n",
    "pattern_brackets": TOP + f"define: {{a: {FFN}}}\nblocks: {'(' * 400_000}\n",
    "pattern_long": TOP + f"define: {{a: {FFN}}}\nblocks: {'a ' * 400_000}\n",
    "pattern_repeat": TOP + f"define: {{a: {FFN}}}\nblocks: a x{'9' * 900_000}\n",
    "pattern_names": TOP + f"define: {{a: {FFN}}}\nblocks: {' '.join(f'b{i}' for i in range(9000))}\n",
    "repeat_billion": TOP + "blocks: [{repeat: 1_000_000_000, ffn: {kind: mlp, d_ff: 8}}]\n",
    "repeat_nested": TOP + "blocks: [" + "{repeat: 64, pattern: [" * 20 + FFN + "]}" * 20 + "]\n",
    "repeat_list": TOP + "blocks:\n" + lines(5000, lambda i: "  - {repeat: 4096, ffn: {kind: mlp, d_ff: 8}}"),
    "overrides_many": TOP
    + "blocks: [{repeat: 4096, ffn: {kind: mlp, d_ff: 8}}]\noverrides:\n"
    + lines(6000, lambda i: f'  - {{at: "layers[{i % 4096}:].ffn", set: {{d_ff: {i + 9}}}}}'),
    "overrides_all": TOP
    + "blocks: [{repeat: 4096, ffn: {kind: mlp, d_ff: 8}}]\noverrides:\n"
    + lines(10_000, lambda i: f'  - {{at: "layers[:]", set: {{d{i}: 1}}}}'),
    "override_deep": TOP + f"blocks: [{FFN}]\noverrides: [{{at: 'layers[0]{'.ffn' * 10_000}', set: 1}}]\n",
    "override_index": TOP + f"blocks: [{FFN}]\noverrides: [{{at: 'layers[{'9' * 100_000}]', set: 1}}]\n",
    "stacks_many": TOP + "stacks:\n" + lines(4000, lambda i: f"  s{i}: {{blocks: [{FFN}]}}"),
    "modules_many": TOP + "blocks:\n  - modules:\n" + lines(4000, lambda i: f"      m{i}: {{kind: mlp, d_ff: 8}}"),
    "expect_many": GOOD + "expect:\n" + lines(8000, lambda i: f"  params{i}: 1"),
    "expect_exponent": GOOD + 'expect: {params: "1e99", layers: "1e999999999"}\n',
    "depth_enormous": TOP + "blocks: [{mixer: {kind: lstm, depth: 1_000_000_000}}]\n",
    "sizes_enormous": TOP + f"blocks: [{{ffn: {{kind: moe, n_experts: {2**40}, top_k: {2**39}, d_ff: {2**40}}}}}]\n",
    "arithmetic_tower": sized("9**9**9**9"),
    "arithmetic_product": sized("*".join(["9" * 29] * 6)),
    "arithmetic_signs": sized("-" * 190 + "1"),
    "arithmetic_long": sized("1+" * 400_000 + "1"),
    "arithmetic_code": sized(CODE),
    "arithmetic_call": sized("round_up(exec('touch'), 1)"),
    "arithmetic_digits": sized("9" * 190 + "**64"),
    "wiring_doubling": wired(
        *(f"a{i} = a{i - 1} + a{i - 1}" if i else "a0 = ffn(x)" for i in range(199)), "x = a198 + y"
    ),
    "wiring_unknown": wired(*(f"a{i} = b{i} + c{i} + d{i}(x)" for i in range(200))),
    "wiring_unread": wired(*(f"a{i} = x" for i in range(200))),
    "wiring_many_lines": wired(*("x = x + x" for _ in range(20_000))),
    "wiring_nested_calls": wired("x = " + "norm1(" * 60 + "x" + ")" * 60),
    "wiring_minus": wired("x = " + "-" * 390 + "x"),
    "wiring_long": wired("x = ffn(x)" + " + x" * 200_000),
    "wiring_code": wired(f'"x = {CODE}"'),
    "wiring_lambda": wired('"x = (lambda: ffn(x))()"'),
    "wiring_format": wired("\"x = f'{ffn(x)}'\""),
    "wiring_walrus": wired('"x = (ffn := x)"'),
    "wiring_statement": wired('"import os; x = ffn(x)"'),
    "names_are_code": f'name: \'{"x" * 50}"""; open("canary", "w")\'\nd_model: 64\nvocab_size: 9\nblocks: [{FFN}]\n',
    "keys_are_code": TOP + f'? "{CODE}"\n: 1\ndefine: {{"{CODE}": {FFN}}}\nblocks: [{FFN}]\n',
    "extends_itself": "extends: extends_itself.yaml\n",
    "extends_device": "extends: /dev/zero\n",
    "extends_pipe": "extends: pipe\n",
    "extends_long": f"extends: {'a/' * 100_000}b.yaml\n",
    "extends_dots": f"extends: {'../' * 1000}etc/passwd\n",
}
CASES = {**YAML, **SPECS}

# What is large and right is accepted at about the same cost
ACCEPTED = {
    "wiring_deep": wired("x = " + "(" * 190 + "ffn(x)" + ")" * 190),
    "arithmetic_depth": sized("(" * 90 + "1" + ")" * 90),
    "layers_4096": TOP + "blocks: [{repeat: 4096, ffn: {kind: mlp, d_ff: 8}}]\n",
    "wiring_200_lines": wired(
        *(f"a{i} = a{i - 1} + a{i - 1}" if i else "a0 = ffn(x)" for i in range(199)), "x = a198 + x"
    ),
}


@pytest.fixture(scope="module")
def validate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Path], dict[str, Any]]]:
    """Exit code, output and cost of `archspec validate` for one file."""
    folder = tmp_path_factory.mktemp("hostile")
    good = folder / "good.yaml"
    good.write_text(GOOD)
    command = [sys.executable, str(RUNNER), str(good)]
    with subprocess.Popen(command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None

        def run(path: Path) -> dict[str, Any]:
            print(path, file=server.stdin, flush=True)
            found = json.loads(server.stdout.readline())
            found["canary"] = (folder / "canary").exists()
            return found

        yield run
        server.stdin.close()


def check(found: dict[str, Any], code: int) -> None:
    assert found["code"] == code, found
    assert "Traceback" not in found["out"] + found["err"]
    assert not found["canary"]
    assert found["cpu"] <= CPU_SECONDS
    assert found["mib"] <= GROWTH_MIB


@pytest.mark.parametrize("name", CASES)
def test_hostile_specs_are_refused_soon(name: str, tmp_path: Path, validate: Any) -> None:
    path = tmp_path / f"{name}.yaml"
    path.write_text(CASES[name], encoding="utf-8")
    if name == "extends_pipe":
        os.mkfifo(tmp_path / "pipe")
    found = validate(path)
    check(found, 1)
    told = found["err"].splitlines()
    assert 2 <= len(told) <= MOST_PROBLEMS + 2
    assert all(len(line) < 1500 for line in told)
    assert "problem" in told[-1]


@pytest.mark.parametrize("name", ACCEPTED)
def test_large_specs_are_accepted_soon(name: str, tmp_path: Path, validate: Any) -> None:
    path = tmp_path / f"{name}.yaml"
    path.write_text(ACCEPTED[name], encoding="utf-8")
    check(validate(path), 0)


def test_four_thousand_different_layers_take_a_few_seconds(tmp_path: Path, validate: Any) -> None:
    path = tmp_path / "different.yaml"
    path.write_text(TOP + "blocks:\n" + lines(4096, lambda i: f"  - {{ffn: {{kind: mlp, d_ff: {i + 1}}}}}"))
    found = validate(path)
    assert found["code"] == 0
    assert found["cpu"] <= 5 * CPU_SECONDS
    assert found["mib"] <= GROWTH_MIB


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the file is empty"),
        (b"\xff\xfe\x00", "byte 0xff is not UTF-8; save it as UTF-8"),
        (b"name: \xc3\x28\n", "byte 0xc3 is not UTF-8; save it as UTF-8"),
        (GOOD.encode("utf-16"), "is not UTF-8; save it as UTF-8"),
        (b"\x00" * 1000, "the character U+0000 is not allowed in YAML"),
        (b"\x89PNG\r\n\x1a\n", "byte 0x89 is not UTF-8; save it as UTF-8"),
    ],
)
def test_files_that_are_no_text(data: bytes, message: str, tmp_path: Path, validate: Any) -> None:
    path = tmp_path / "data.yaml"
    path.write_bytes(data)
    found = validate(path)
    check(found, 1)
    assert message in found["err"]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (str(Path(json.__file__).parent), "holds no YAML file (.yaml, .yml)"),
        ("/dev/zero", "is not an ordinary file"),
        ("/dev/stdout", "is not an ordinary file"),
        ("no/such/file.yaml", "no such file"),
        ("x" * 5000, "File name too long"),
    ],
    ids=["folder", "endless", "output", "missing", "long"],
)
def test_paths_that_are_no_files(path: str, message: str, validate: Any) -> None:
    found = validate(Path(path))
    check(found, 1)
    assert message in found["err"]


# Generated code


def body(source: str) -> str:
    """The module without its docstring, as its syntax tree."""
    tree = ast.parse(source)
    assert isinstance(tree.body[0], ast.Expr)
    assert isinstance(tree.body[0].value, ast.Constant)
    return ast.dump(ast.Module(tree.body[1:], []))


CODES = ('x"""; open("canary", "w")', 'x\\"""\nimport os', "x\\", '"', "'''", "x\nimport os", "{CODE}", "%s")


@pytest.mark.parametrize("name", CODES)
def test_a_name_is_no_code(name: str) -> None:
    plain = loads(GOOD)
    assert body(generate(replace(plain, name=name))) == body(generate(plain))


@pytest.mark.parametrize("file", [f"{code.replace(chr(0), '')}.yaml" for code in CODES])
def test_the_name_of_a_file_is_no_code(file: str, tmp_path: Path) -> None:
    path = tmp_path / file
    path.write_text(GOOD)
    assert body(generate(load(path))) == body(generate(loads(GOOD)))


@pytest.mark.parametrize(
    "text",
    [
        "define: {{{code}: {ffn}}}\nblocks: [{ffn}]\n",
        "stacks: {{{code}: {{blocks: [{ffn}]}}}}\n",
        "blocks: [{{modules: {{{code}: {{kind: mlp, d_ff: 4}}}}, wiring: [x = ffn(x)]}}]\n",
        "sizes: {{{code}: 3}}\nblocks: [{ffn}]\n",
        "blocks: [{{ffn: {{kind: mlp, d_ff: 4, {code}: 3}}}}]\n",
        "blocks: [{{ffn: {{kind: {code}}}}}]\n",
        "blocks: {code}\n",
        "blocks: [{{ffn: {{kind: mlp, d_ff: {code}}}}}]\n",
        "wiring: {code}\nblocks: [{ffn}]\n",
        "mask: {code}\nblocks: [{{mixer: {{kind: attention, n_heads: 4}}}}]\n",
    ],
)
@pytest.mark.parametrize(
    "code", [CODE, 'a"""; import os', "a\nimport os", "class", "a.b", "a b", "é", "_", "__class__"]
)
def test_no_name_in_a_spec_is_code(text: str, code: str) -> None:
    filled = TOP + text.format(code=json.dumps(code, ensure_ascii=False), ffn=FFN)
    harmless = {"define": ("class", "_", "__class__"), "sizes:": ("_", "__class__")}
    if code in harmless.get(text[:6], ()):
        (warning,) = loads(filled).warnings
        assert warning.message in ("is used by no layer", "no arithmetic names it, so it has no effect")
    else:
        assert refused(filled).problems


def refused(text: str) -> SpecError:
    with pytest.raises(SpecError) as caught:
        loads(text)
    return caught.value
