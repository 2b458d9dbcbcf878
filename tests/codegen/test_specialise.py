"""The specialiser on small pieces of source: what it decides, keeps, drops and refuses."""

import textwrap
from typing import Any, Literal

import libcst as cst
import pytest

import archspec
from archspec.codegen.sources import code
from archspec.codegen.specialise import specialise
from archspec.errors import GenerateError
from archspec.layers.base import Component
from archspec.layers.fields import field


class Toy(Component):
    kind: Literal["toy"] = "toy"
    d_ff: int = field("hidden width", 8)
    act: str = field("activation", "relu")
    bias: bool = field("bias", False)
    cap: float | None = field("cap", None)
    slope: float = field("slope", 0.0)

    @property
    def pair(self) -> tuple[int, int]:
        return (self.d_ff, 2)

    @property
    def low(self) -> tuple[int, ...]:
        return (-1,)


class Names:
    """Constants in capitals, classes by their kind."""

    def constant(self, c: Component, field: str, value: float) -> str | None:
        return field.upper()

    def instance(self, child: Component, parent: Component) -> str:
        return type(child).__name__

    def prose(self, text: str, c: Component) -> str:
        return text.replace("d_ff", "D_FF")


CALLEES = """
def g(x, n=1, *, cap=None, bias=False, slope=0.01, wide=0.0): ...
class H:
    def __init__(self, n, bias=False): ...
"""
DEFINED = {s.name.value: s for s in cst.parse_module(CALLEES).body if isinstance(s, cst.FunctionDef | cst.ClassDef)}


def special(source: str, **fields: Any) -> str:
    node = cst.parse_module(textwrap.dedent(source).strip() + "\n").body[0]
    return code(specialise(node, Toy(**fields), Names(), "toy", look=DEFINED.get)).strip()


def function(body: str, **fields: Any) -> str:
    source = "def f(self, x, c):\n" + textwrap.indent(textwrap.dedent(body).strip(), "    ")
    return textwrap.dedent(special(source, **fields).partition("\n")[2])


CHAIN = """
if c.act == "relu":
    x = relu(x)
elif c.act == "silu":
    # why
    x = silu(x)
else:
    x = gelu(x)
y(x)
"""


@pytest.mark.parametrize(
    ("act", "wanted"),
    [("relu", "x = relu(x)\ny(x)"), ("silu", "# why\nx = silu(x)\ny(x)"), ("none", "x = gelu(x)\ny(x)")],
)
def test_one_branch_of_a_chain_stays(act: str, wanted: str) -> None:
    assert function(CHAIN, act=act) == wanted


def test_a_chain_that_starts_with_data_keeps_its_shape() -> None:
    body = "if x.big:\n    a()\nelif c.bias:\n    b()\nelse:\n    d()"
    assert function(body, bias=True) == "if x.big:\n    a()\nelse:\n    b()"
    assert function(body, bias=False) == "if x.big:\n    a()\nelse:\n    d()"
    assert function("if x.big:\n    a()\nelif c.bias:\n    b()") == "if x.big:\n    a()"


def test_a_condition_half_on_data_keeps_the_data() -> None:
    body = "if c.bias and x.training:\n    a()\nb()"
    assert function(body, bias=True) == "if x.training:\n    a()\nb()"
    assert function(body, bias=False) == "b()"
    assert function("if not c.bias or x.training:\n    a()\nb()", bias=False) == "a()\nb()"


def test_a_conditional_expression_keeps_its_parentheses() -> None:
    assert function("y = x * (a + b if c.bias else d)", bias=True) == "y = x * (a + b)"
    assert function("y = x * (a + b if c.bias else d)", bias=False) == "y = x * d"


def test_sizes_keep_their_names_and_their_arithmetic() -> None:
    assert function("y = g(c.d_ff * 2, -c.d_ff // 4)") == "y = g(D_FF * 2, -D_FF // 4)"


def test_other_values_become_literals() -> None:
    assert function("y = g(c.act, c.pair, c.bias)") == 'y = g("relu", (8, 2), False)'


def test_an_argument_goes_where_it_is_what_the_callee_assumes() -> None:
    assert function("y = g(x, cap=c.cap, bias=c.bias)") == "y = g(x)"
    assert function("y = g(x, cap=c.cap, flip=x.flip)", cap=2.0) == "y = g(x, cap=CAP, flip=x.flip)"
    assert function("y = H(x, bias=c.bias)") == "y = H(x)"
    assert function("y = g(x, wide=c.d_ff if c.bias else 0.0)") == "y = g(x)"


def test_an_argument_stays_where_the_callee_assumes_something_else() -> None:
    """`F.leaky_relu(x, negative_slope=0.0)` without its argument has a slope of 0.01."""
    assert function("y = g(x, slope=c.slope)") == "y = g(x, slope=SLOPE)"
    assert function("y = g(x, n=c.bias)") == "y = g(x, n=False)"
    assert function("y = g(x, cap=c.bias)") == "y = g(x, cap=False)"
    assert function("y = H(x, n=c.cap)") == "y = H(x, n=None)"


@pytest.mark.parametrize("call", ["F.leaky_relu", "torch.sum", "nn.Linear", "x.view", "self.other", "unknown"])
def test_an_argument_stays_where_the_callee_is_not_ours(call: str) -> None:
    assert function(f"y = {call}(x, a=c.slope, b=c.cap)") == f"y = {call}(x, a=SLOPE, b=None)"


def test_an_argument_stays_where_a_local_has_the_name_of_a_function() -> None:
    assert function("g = x.f\ny = g(x, cap=c.cap)") == "g = x.f\ny = g(x, cap=None)"


def test_defaults_of_methods_are_those_of_the_class() -> None:
    text = special("""
    class M(nn.Module):
        def forward(self, x, c2=None):
            return self.part(x, a=self.c.cap, b=self.c.cap)

        def part(self, x, a=None, b=1.0):
            return x * a * b
    """)
    assert "self.part(x, b=None)" in text


def test_an_argument_that_calls_something_keeps_its_parameter() -> None:
    source = """
    class M(nn.Module):
        def forward(self, x, state=None):
            return self.part(x, advance(state))

        def part(self, x, start=0):
            if self.c.bias:
                x = x + start
            return x
    """
    assert "self.part(x, advance(state))" in special(source)
    assert "start=0" in special(source)
    assert "start" not in special(source.replace("advance(state)", "state"))


def test_projections_are_written_as_linear_layers() -> None:
    text = special("""
    class M(nn.Module):
        def __init__(self, c: Config):
            super().__init__()
            self.c = c
            self.q_proj = linear(c, "q_proj", c.d_ff, 2 * c.d_ff, bias=c.bias)
            self.more = nn.ModuleList(linear(c, "more", c.d_ff, c.d_ff) for _ in range(c.d_ff))
    """)
    assert "self.q_proj = nn.Linear(D_FF, 2 * D_FF, bias=False)" in text
    assert "self.more = nn.ModuleList(nn.Linear(D_FF, D_FF) for _ in range(D_FF))" in text


def test_a_text_in_an_f_string_has_the_other_quotes() -> None:
    assert function("""y = f"{c.act} of {x} in {c.d_ff}" """) == """y = f"{'relu'} of {x} in {D_FF}\""""


def test_numbers_keep_their_sign() -> None:
    assert function("y = c.pair[1] ** x", d_ff=3) == "y = 2 ** x"
    assert function("y = (-c.pair[1]) ** x") == "y = (-2) ** x"
    assert function("y = c.low[0] ** x") == "y = (-1) ** x"


def test_an_assignment_that_is_only_returned_is_returned() -> None:
    assert function("y = g(x)  # (B, T)\nif c.bias:\n    y = y + 1\nreturn y") == "return g(x)  # (B, T)"


def test_nothing_is_left_after_a_return() -> None:
    assert function("if c.bias:\n    return a\nreturn b", bias=True) == "return a"


CLASS = '''
class M(nn.Module):
    """Hidden (B, T, d_ff)."""

    def __init__(self, c: Config):
        super().__init__()
        self.c = c

    def forward(self, x, mask=None, state=None):
        c = self.c
        if c.bias:
            return self.masked(x, mask)
        return self.plain(x, state)

    def masked(self, x, mask):
        return x * mask

    def plain(self, x, state=None):
        return x
'''


def test_parameters_and_methods_that_nothing_uses_go() -> None:
    text = special(CLASS)
    assert "def forward(self, x):\n        return self.plain(x)" in text
    assert "def plain(self, x):" in text
    assert "masked" not in text
    assert '"""Hidden (B, T, D_FF)."""' in text
    assert "__init__" not in text  # it would only call that of its base


def test_what_cannot_be_decided_is_refused_by_name() -> None:
    with pytest.raises(GenerateError, match=r"toy: cannot decide 'c\.unknown' from the config, line 2: `y = g\(c\."):
        function("y = g(c.unknown)")


def test_adjacent_training_branches_become_one() -> None:
    body = (
        "if c.d_ff and self.training:\n    x = 1\nif c.cap is None and self.training:\n    # why\n    x = 2\nreturn x"
    )
    assert function(body) == "if self.training:\n    x = 1\n    # why\n    x = 2\nreturn x"


def generated(name: str) -> str:
    return archspec.generate(archspec.load(f"specs/{name}.yaml"))


@pytest.mark.parametrize("name", ["switch_base_8", "deepseek_v2_lite", "bert_base", "gpt2", "vit_base", "lstm_lm"])
def test_prose_holds_for_the_one_model(name: str) -> None:
    text = generated(name)
    for said in ("where it is tied", "where there", "biases at zero", "where experts choose", "OFFSET", "split(("):
        assert said not in text
    for size in ("N_PATCHES", "D_OUT"):  # they stand in comments alone, so no constant has that name
        assert size not in text


def test_an_embedding_takes_no_state_where_nothing_is_decoded() -> None:
    assert "tokens: Tensor, token_types" in generated("bert_base")
    assert "tokens: Tensor, state: State" in generated("gpt2")


def test_widths_of_stacks_are_called_by_the_stack() -> None:
    document = """
    {name: two, d_model: 16, vocab_size: 11, max_seq_len: 8, norm: layernorm, head: {kind: lm}, stacks: {
      encoder: {mask: bidirectional, d_model: 12, blocks: [{mixer: {kind: attention, n_heads: 2}}]},
      decoder: {memory: encoder, blocks: [
        {mixer: {kind: attention, n_heads: 2}, cross: {kind: attention, n_heads: 2}}]}}}
    """
    text = archspec.generate(archspec.loads(document))
    widths = [line.partition(" ")[0] for line in text.splitlines() if "# width of the residual stream" in line]
    assert sorted(widths) == ["DECODER_D_MODEL", "ENCODER_D_MODEL"]
