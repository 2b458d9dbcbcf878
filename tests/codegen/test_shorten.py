"""A finished file without what its model does not use: before and after, in small."""

import ast
from textwrap import dedent
from typing import Any

import pytest

from archspec.codegen.shorten import shorten
from archspec.errors import GenerateError


def parts(text: str) -> dict[str, str]:
    """The top-level statements of a text by the names that they define."""
    found = {}
    text = dedent(text).strip()
    for node in ast.parse(text).body:
        name = node.targets[0].id if isinstance(node, ast.Assign) else node.name  # type: ignore[attr-defined]
        found[name] = ast.get_source_segment(text, node) or ""
    return found


def short(text: str, **constants: Any) -> str:
    """A file in which everything but classes is a helper, shortened."""
    every = parts(text)
    helpers = [name for name, said in every.items() if not said.startswith("class ")]
    return "\n".join(shorten(every, helpers, constants).values())


def same(found: str, wanted: str) -> None:
    """Equal but for blank lines."""
    assert [line for line in found.splitlines() if line] == [line for line in dedent(wanted).splitlines() if line]


def caller(*lines: str) -> str:
    """A class that runs some statements."""
    body = "".join(f"\n        {line}" for line in lines)
    return f"class M(nn.Module):\n    def forward(self, x: Tensor, y: Tensor, flag: bool) -> Tensor:{body}"


STEPS = '''
def attend(x: Tensor, bias: Tensor | None = None, window: int | None = None, scale: float = 1.0) -> Tensor:
    """Attention."""
    total = x.sum()
    if window is not None and bias is None:
        # A window hides.
        x = x[:window]
    elif bias is not None:
        # A bias shifts.
        x = x + bias
    if flag := scale != 1.0:
        x = x * scale
    return x / total
'''
HELPER = STEPS.replace("flag := scale", "scale")


def test_what_every_call_leaves_out_is_decided() -> None:
    same(
        short(HELPER + "\n" + caller("return attend(x) + attend(y)")),
        '''
        def attend(x: Tensor) -> Tensor:
            """Attention."""
            total = x.sum()
            return x / total
        class M(nn.Module):
            def forward(self, x: Tensor, y: Tensor, flag: bool) -> Tensor:
                return attend(x) + attend(y)
        ''',
    )


def test_a_constant_of_the_file_keeps_its_name_and_comments_stay() -> None:
    found = short(HELPER + "\n" + caller("z = attend(x, window=WINDOW)", "return attend(z, None, WINDOW)"), WINDOW=7)
    same(
        found.partition("class")[0],
        '''
        def attend(x: Tensor) -> Tensor:
            """Attention."""
            total = x.sum()
            # A window hides.
            x = x[:WINDOW]
            return x / total
        ''',
    )
    assert "z = attend(x)\n        return attend(z)" in found


def test_a_parameter_that_is_never_none_is_no_longer_asked() -> None:
    found = short(HELPER + "\n" + caller("z = attend(x, y)", "return attend(z, bias=x + y)"))
    assert "def attend(x: Tensor, bias: Tensor) -> Tensor:" in found
    assert "    # A bias shifts.\n    x = x + bias\n" in found


@pytest.mark.parametrize("value", ["y.get(0)", "y.pop(0)", "z"])
def test_what_may_be_none_is_asked(value: str) -> None:
    found = short(
        HELPER + "\n" + caller("z = y if flag else None", f"z = attend({value}, {value})", "return attend(z, z)")
    )
    assert "if bias is not None:" in found


def test_where_calls_differ_the_parameter_stays() -> None:
    found = short(HELPER + "\n" + caller("z = attend(x, window=3)", "return attend(z)"))
    assert "def attend(x: Tensor, window: int | None = None) -> Tensor:" in found
    assert "if window is not None:" in found


def test_a_helper_in_a_checkpoint_is_one_that_is_called() -> None:
    given = "x, None, None, 2.0, use_reentrant=False"
    same(
        short(STEPS.replace("flag := scale", "scale") + "\n" + caller(f"return checkpoint(attend, {given})")),
        '''
        def attend(x: Tensor) -> Tensor:
            """Attention."""
            total = x.sum()
            x = x * 2.0
            return x / total
        class M(nn.Module):
            def forward(self, x: Tensor, y: Tensor, flag: bool) -> Tensor:
                return checkpoint(attend, x, use_reentrant=False)
        ''',
    )
    one = "def double(x: Tensor, n: int) -> Tensor:\n    return x * n\n"
    same(
        short(one + caller("return checkpoint(double, x, 2, use_reentrant=False)")),
        "def double(x: Tensor) -> Tensor:\n    return x * 2\n"
        + caller("return checkpoint(double, x, use_reentrant=False)"),
    )
    kept = one + caller("return checkpoint(double, *x, use_reentrant=False)")
    same(short(kept), kept)


def test_a_helper_that_is_handed_on_stays_as_it_is() -> None:
    text = HELPER + "\n" + caller("z = attend(x)", "return checkpoint(attend, z)")
    same(short(text), text)


SUMMED = """
def summed(x: Tensor, w: Tensor) -> Tensor:
    y = torch.zeros_like(x)
    for row in w:
        y.add_(row)
    return y
"""
CLASS = """
class M(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        y = self.run(x.flatten(0, 1))
        return y.view_as(x)

    def run(self, rows: Tensor) -> Tensor:
        w = self.w
        return summed(rows, w["up"] * w["down"])
"""


def test_a_helper_may_change_what_it_has_made() -> None:
    assert "def run" not in short(SUMMED + CLASS)
    for other in ("y = x", "y = torch.zeros_like(x) if x.sum() else x", "w.zero_(); y = torch.zeros_like(x)"):
        assert "def run" in short(SUMMED.replace("y = torch.zeros_like(x)", other) + CLASS)
    assert "def run" in short(SUMMED.replace("y.add_(row)", "y.uniform_()") + CLASS)


def test_a_call_that_does_not_fit_is_an_error() -> None:
    with pytest.raises(GenerateError, match=r"attend\(x, height=3\) does not fit attend\(x: Tensor, "):
        short(HELPER + "\n" + caller("return attend(x, height=3)"))


def test_variables_that_became_constants_decide_too() -> None:
    text = '''
def keep(x: Tensor, window: int | None = None) -> Tensor:
    """The last tokens."""
    last = None if window is None else window - 1
    if last is None:
        return x
    x = x.clone()
    return x[-last:]
'''
    found = short(text + caller("return keep(x, WINDOW) + keep(y, WINDOW)"), WINDOW=4)
    assert "last = WINDOW - 1\n    x = x.clone()\n    return x[-last:]" in found
    assert short(text + caller("return keep(x) + keep(y)")) == caller("return x + y")


def test_helpers_of_helpers_fold_and_go() -> None:
    text = '''
def inner(x: Tensor, wide: bool) -> Tensor:
    """One of two."""
    return x.double() if wide else x


def outer(x: Tensor, wide: bool = False) -> Tensor:
    """Twice."""
    return inner(x, wide) + inner(x, wide=wide)
'''
    assert short(text + "\n\n" + caller("return outer(x)")) == caller("return x + x")


def test_arguments_keep_their_order_and_number() -> None:
    text = "def pick(a: Tensor, b: Tensor) -> Tensor:\n    return f(b) - a\n\n"
    swapped = text + caller("return pick(self.first(x), self.second(x))")
    same(short(swapped), swapped)
    twice = "def square(a: Tensor) -> Tensor:\n    return a * a\n\n" + caller("return square(self.first(x))")
    same(short(twice), twice)
    assert short(text + caller("return pick(x, y)")) == caller("return f(y) - x")


def test_operations_keep_their_parentheses() -> None:
    text = "def product(a: Tensor, b: Tensor) -> Tensor:\n    return a * b\n\n"
    assert short(text + caller("return product(x + y, -x) ** 2")) == caller("return ((x + y) * (-x)) ** 2")


def test_a_helper_does_not_take_a_name_of_its_caller() -> None:
    text = "def shift(a: Tensor) -> Tensor:\n    return a + offset\n\noffset = 3\n\n"
    inside = text + caller("offset = x.sum()", "return shift(y) + offset.sum() * offset")
    assert "return shift(y)" in short(inside)


def test_a_comment_keeps_its_helper() -> None:
    text = "def double(a: Tensor) -> Tensor:\n    # Both directions.\n    return a * 2\n\n" + caller("return double(x)")
    same(short(text), text)


def test_methods_with_one_call_are_spliced_where_names_allow() -> None:
    text = '''
class M(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        B, T, _ = x.shape
        k, v = self.pair(x)
        return {value}

    def pair(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Two."""
        B, S, _ = x.shape
        k = self.key(x).view(B, S, 2)  # (B, S, 2)
        v = self.value(x).view(B, S, 2)
        return k, v
'''
    same(
        short(text.format(value="k @ v.view(B, T)")),
        """
        class M(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                B, T, _ = x.shape
                k = self.key(x).view(B, T, 2)  # (B, T, 2)
                v = self.value(x).view(B, T, 2)
                return k @ v.view(B, T)
        """,
    )
    other = text.format(value="k @ v.view(B, T)").replace("k, v = self", "x = x.mT\n        k, v = self")
    assert "self.pair(x)" in short(other)  # x has another shape by then, and B another meaning


def test_a_method_that_only_calls_a_function_is_that_function() -> None:
    text = '''
def run(x: Tensor, activation: Callable[[Tensor], Tensor]) -> Tensor:
    """Twice."""
    for _ in range(2):
        x = activation(x)
    return x


class M(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return run(x, self.activate) + run(2 * x, self.activate)

    def activate(self, h: Tensor) -> Tensor:
        """ReLU."""
        return F.relu(h)
'''
    found = short(text)
    assert "def run(x: Tensor) -> Tensor:" in found
    assert "x = F.relu(x)" in found
    assert "activat" not in found


POSITIONS = """
class Learned(nn.Module):
    def forward(self, x: Tensor, start: int = 0) -> Tensor:
        return self.table(torch.arange(start, start + x.shape[1]))


class Embedding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.position = Learned()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.position(x)
"""


def test_a_layer_takes_nothing_that_no_call_gives() -> None:
    found = short(POSITIONS)
    assert "def forward(self, x: Tensor) -> Tensor:\n        return self.table(torch.arange(x.shape[1]))" in found


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("return x + self.position(x)", "return self.position(x, 3) + self.position(x)"),
        ("return x + self.position(x)", "return checkpoint(self.position, x)"),
        ("self.position = Learned()", "self.position = nn.ModuleList(Learned() for _ in range(3))"),
        ("return x + self.position(x)", "return x + self.position(x) + self.other.position(x, 3)"),
    ],
)
def test_a_layer_that_may_be_called_otherwise_stays_as_it_is(old: str, new: str) -> None:
    same(short(POSITIONS.replace(old, new)), POSITIONS.replace(old, new))


def test_variables_that_nothing_reads_go_but_not_what_they_do() -> None:
    found = short(caller("B, T, D = x.shape", "n = self.count(x)", "unused = x * 2", "return y[:T]"))
    assert found == caller("T = x.shape[1]", "self.count(x)", "return y[:T]")


def test_steps_are_a_chain() -> None:
    found = short(caller("z = f(x)  # (B, T)", "z = z.view(1, -1)  # (1, B T)", "z = z.mul(z)", "return z"))
    assert found == caller("z = f(x).view(1, -1)  # (1, B T)", "z = z.mul(z)", "return z")
    kept = caller("z = f(x)  # once", "z = z.view(1, -1)", "z = x + y", "z = z.mT()", "return z")
    assert short(kept) == kept


def test_kinds_of_callers_have_helpers_of_their_own_where_that_is_shorter() -> None:
    branches = "".join(f"    if mode == {i}:\n        x = x * {i}\n        x = x + {i}\n" for i in range(3))
    helper = f"def attention(x: Tensor, mode: int) -> Tensor:\n{branches}    return x\n\n"
    classes = [
        f"class {name}(nn.Module):\n    def forward(self, x: Tensor) -> Tensor:\n        return attention(x, {i})"
        for i, name in enumerate(("CrossAttention", "Encoder", "Decoder"))
    ]
    found = short(helper + "\n\n".join(classes))
    assert "def cross_attention(x: Tensor) -> Tensor:\n    x = x * 0\n    return x + 0" in found
    assert "def encoder_attention(x: Tensor)" in found
    assert "mode" not in found
    branch = "    y = x\n    if mode:\n        y = y + 1\n    y = y * x\n    y = y - x\n    return y @ x\n\n"
    window = "def attention(x: Tensor, mode: int) -> Tensor:\n" + branch
    assert "if mode:" in short(window + "\n\n".join(classes))


def test_helpers_stand_before_the_first_that_needs_them() -> None:
    text = '''
def late(x: Tensor) -> Tensor:
    """Needed last."""
    while flag:
        x = x + 1
    return x


class First(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


class Last(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return late(x)
'''
    assert [line for line in short(text).splitlines() if not line.startswith(" ")][1:2] == [
        "def late(x: Tensor) -> Tensor:"
    ]
