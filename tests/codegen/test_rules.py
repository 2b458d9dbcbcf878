"""What is asked of the source of a layer: each rule is told with file, line and what would be right."""

import ast
import textwrap
from pathlib import Path
from typing import Any, Literal

import pytest

from archspec.codegen.rules import check
from archspec.codegen.sources import path_of
from archspec.errors import GenerateError
from archspec.layers.base import Component

ROOT = Path(__file__).resolve().parents[2]
RUNNING = [p for p in sorted((ROOT / "archspec/modules").glob("*/*.py")) if p.name != "__init__.py"]


class Toy(Component):
    kind: Literal["toy"] = "toy"

    @property
    def arguments(self) -> tuple[str, ...]:
        return ("state", "mask")


def layer(init: str = "pass", forward: str = "return x", more: str = "") -> str:
    """A layer with some lines in its constructor and its forward; those of forward start on line 9."""
    body = textwrap.indent(textwrap.dedent(init), " " * 8)
    run = textwrap.indent(textwrap.dedent(forward), " " * 8)
    return (
        "class Layer(nn.Module):\n"
        '    """A layer."""\n\n'
        "    def __init__(self, c: Config):\n        super().__init__()\n        self.c = c\n"
        f"{body}\n"
        "    def forward(self, x, state=None, mask=None):\n"
        f"        c = self.c\n{run}\n{more}"
    )


def broken(source: str, **known: Any) -> str:
    with pytest.raises(GenerateError) as found:
        check(source, "layers/toy.py", **known)
    return str(found.value)


COPIES = [
    ("n = c.n_heads", "write `c.n_heads` where it is used"),
    ("n = self.c.n_heads", "write `self.c.n_heads` where it is used"),
    ("n = c.n_heads * 2", "write `c.n_heads * 2` where it is used"),
    ("n, y = c.n_heads, x", "write `c.n_heads` where it is used"),
    ("n: int = c.n_heads", "write `c.n_heads` where it is used"),
    ("n = c.a if c.b else None", "write `c.a if c.b else None` where it is used"),
    ("n = min(c.a, len(c.b))", "write `min(c.a, len(c.b))` where it is used"),
    ("y = f(n := c.n_heads)", "write `c.n_heads` where it is used"),
    ("d = c", "c = self.c and self.c = c alone may"),
    ("self.config = self.c", "c = self.c and self.c = c alone may"),
    ("y = f(c)", "passes the config whole"),
    ("y = f(x, config=self.c)", "passes the config whole"),
    ("y = getattr(c, 'n_heads')", "passes the config whole"),
    ("y = [f(c) for _ in x]", "passes the config whole"),
]


@pytest.mark.parametrize(("line", "right"), COPIES)
def test_the_config_is_read_where_it_is_used(line: str, right: str) -> None:
    said = broken(layer(forward=line))
    assert said.startswith(f"layers/toy.py:10: `{line}` ")
    assert right in said


def test_a_field_kept_on_self_is_told_on_its_line() -> None:
    said = broken(layer(init="self.n_heads = c.n_heads"), line=20)
    assert said == (
        "layers/toy.py:26: `self.n_heads = c.n_heads` copies the config; write `c.n_heads` where it is used"
    )


@pytest.mark.parametrize("line", ["y = [c for c in x]", "for c in x: f(x)", "c = x", "c += x", "y = f(c := x)"])
def test_nothing_else_is_called_c(line: str) -> None:
    assert "calls something else c" in broken(layer(forward=line))


@pytest.mark.parametrize(
    "more", ["    def part(self, x, c):\n        return x", "    def part(self):\n        return lambda c: 1"]
)
def test_no_method_and_no_lambda_takes_the_config(more: str) -> None:
    assert "a method reads self.c" in broken(layer(more=more))


CONDITIONS = [
    ("if x and c.bias: f(x)", "put what the config decides first"),
    ("y = x.big or c.bias", "put what the config decides first"),
    ("if c.a and x and c.b: f(x)", "put what the config decides first"),
    ("if (c.a and self.training) or c.b: f(x)", "put what the config decides first"),
    ("if not (mask is None and c.bias): f(x)", "put what the config decides first"),
    ("y = 1 if self.training and not c.bias else 2", "put what the config decides first"),
    ("if sum(c.sizes) > 3: f(x)", "make `sum(c.sizes) > 3` a property of the config"),
    ("if c.kind in KINDS: f(x)", "make `c.kind in KINDS` a property of the config"),
    ("if any(n > 1 for n in c.sizes): f(x)", "a property of the config"),
    ("if c.act.startswith('g') and x: f(x)", "make `c.act.startswith('g')` a property of the config"),
    ("y = 1 if isinstance(c.norm, LayerNorm) else 2", "make `isinstance(c.norm, LayerNorm)` a property"),
]


@pytest.mark.parametrize(("line", "right"), CONDITIONS)
def test_a_condition_asks_the_config_first(line: str, right: str) -> None:
    said = broken(layer(forward=line))
    assert said.startswith(f"layers/toy.py:10: `{line}` ")
    assert right in said


FINE = [
    "y = f(x, c.n_heads * 2, scale=c.scale**-0.5)",
    "y = x * c.scale",
    "if c.a and not c.b and self.training: f(x)",
    "if (c.a or c.b) and (x.big or mask is None): f(x)",
    "if c.a and x or c.b and self.training: f(x)",
    "if x.shape[0] > c.limit: f(x)",
    "if len(c.sizes) > 2 and min(c.sizes) == c.n: f(x)",
    "y = torch.arange(c.n_positions)",
    "B, T = x.shape[0], x.shape[1] + c.offset",
    "y = relu if c.act == 'relu' else gelu",
    "y = [f(x, i) for i in range(c.n)]",
    "y = self.part(x) if c.part is not None else x",
]


@pytest.mark.parametrize("line", FINE)
def test_what_is_allowed_passes(line: str) -> None:
    check(layer(forward=line), "layers/toy.py", c=Toy())


MAKING = [
    ("self.norm = None", "make it under an if on the config"),
    ("self.norm = submodule(c.norm) if c.norm is not None else None", "make it under an if on the config"),
    ("nn.init.zeros_(self.weight)", "do it in reset_parameters"),
    ('self.q_proj = linear(c, "k_proj", c.a, c.b)', 'write linear(c, "q_proj", ...)'),
    ("self.q_proj = linear(c, name, c.a, c.b)", 'write linear(c, "q_proj", ...)'),
]


@pytest.mark.parametrize(("line", "right"), MAKING)
def test_sub_modules_are_made_in_one_way(line: str, right: str) -> None:
    said = broken(layer(init=line))
    assert said.startswith(f"layers/toy.py:7: `{line}` ")
    assert right in said


def test_forward_takes_what_the_config_says() -> None:
    check(layer(), "layers/toy.py", c=Toy())
    source = layer().replace(", mask=None", ", mask=0")
    assert "does not take mask, which Toy.arguments lists; add `mask=None`" in broken(source, c=Toy())
    assert "does not take state" in broken(source.replace("state=None", "state"), c=Toy())


def test_every_place_is_told_at_once() -> None:
    said = broken(layer(init="self.a = c.a\nself.b = c.b", forward="return f(c)"))
    assert [line.split(" ")[0] for line in said.splitlines()] == [f"layers/toy.py:{n}:" for n in (7, 8, 11)]


@pytest.mark.parametrize("path", RUNNING, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_our_own_layers_keep_the_rules(path: Path) -> None:
    tree = ast.parse(path.read_text())
    configured = [
        node
        for node in tree.body
        if isinstance(node, ast.ClassDef | ast.FunctionDef)
        and any(isinstance(n, ast.arg) and n.arg == "c" for n in ast.walk(node))
    ]
    for node in configured:
        check(ast.unparse(node), path.name)
    assert configured


def test_projections_are_made_by_the_one_helper() -> None:
    """So that a spec can ask for another kind of projection without a change to any layer."""
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in sorted((ROOT / "archspec/modules").rglob("*.py"))
        if path != path_of("archspec.modules.projection")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("nn.Linear", "torch.nn.Linear", "Linear")
    ]
    assert found == [], "write linear(c, name, d_in, d_out) of archspec.modules.projection"
