"""The specialiser on small pieces of source: what it decides, keeps, drops and refuses."""

import textwrap
from typing import Any, Literal

import libcst as cst
import pytest

import archspec
from archspec.codegen.layout import code
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

    @property
    def pair(self) -> tuple[int, int]:
        return (self.d_ff, 2)


class Names:
    """Constants in capitals, classes by their kind."""

    def constant(self, c: Component, field: str, value: float) -> str | None:
        return field.upper()

    def instance(self, child: Component, parent: Component) -> str:
        return type(child).__name__

    def prose(self, text: str, c: Component) -> str:
        return text.replace("d_ff", "D_FF")


def special(source: str, **fields: Any) -> str:
    node = cst.parse_module(textwrap.dedent(source).strip() + "\n").body[0]
    return code(specialise(node, Toy(**fields), Names(), "toy")).strip()


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


def test_a_false_keyword_goes_but_not_in_torch_modules() -> None:
    assert function("y = g(x, cap=c.cap, bias=c.bias)") == "y = g(x)"
    assert function("y = g(x, cap=c.cap, flip=x.flip)", cap=2.0) == "y = g(x, cap=CAP, flip=x.flip)"
    assert function("y = nn.Linear(2, 3, bias=c.bias)") == "y = nn.Linear(2, 3, bias=False)"


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
    assert "def __init__(self) -> None:\n        super().__init__()\n" in text


def test_what_cannot_be_decided_is_refused_by_name() -> None:
    with pytest.raises(GenerateError, match=r"toy: cannot decide 'c\.unknown' from the config"):
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


def test_a_shared_constant_is_described_for_all_its_owners() -> None:
    text = generated("switch_base_8")
    assert "# dropout of the attention probabilities" not in text
    assert "# probability of dropout" in text
    assert "# hidden units of a feed-forward network" in text


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
