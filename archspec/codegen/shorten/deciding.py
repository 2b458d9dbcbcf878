"""A function for which some names are constants: its conditions decided, the constants in the place of the names."""

import ast
import re
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import libcst as cst
import libcst.matchers as m

from archspec.codegen.decide import CONFIG, UNKNOWN, Decider, literal
from archspec.codegen.defaults import Callees
from archspec.codegen.layout import one_line
from archspec.codegen.shorten.facts import value
from archspec.codegen.shorten.program import (
    Function,
    Program,
    bindings,
    bound,
    bound_by,
    parameters,
    syntax,
    syntax_of,
)
from archspec.codegen.shorten.rewrite import Reads, Unwrap, embedded
from archspec.codegen.sources import code
from archspec.codegen.specialise import Specialise
from archspec.codegen.syntax import enclosed, last
from archspec.errors import GenerateError

ASSUMED = {
    *(("F.scaled_dot_product_attention", *said) for said in (("attn_mask", "None"), ("dropout_p", "0.0"),
      ("is_causal", "False"), ("scale", "None"), ("enable_gqa", "False"))),
    *((f"F.{name}", "bias", "None") for name in ("conv1d", "linear", "layer_norm")),
    *((f"F.{name}", "weight", "None") for name in ("rms_norm", "layer_norm")),
    ("F.gelu", "approximate", '"none"'),
}  # fmt: skip
C, OWN = "c", "c_of_its_own_"  # what decides; what a helper's own variable of that name is called meanwhile


class Constant:
    """What a name always is: its text and its value."""

    def __init__(self, text: str, found: Any):
        self.text, self.value = text, found


def decided(node: Any, same: Mapping[str, Constant], present: set[str], program: Program) -> Any:
    """A function with constants for names that are always the same, its conditions on them decided."""
    while same or present:
        before = code(node).strip()
        node = _decided(node, same, present, program)
        same, present = _constant_variables(before, code(node).strip(), program), set()
    return node


def rebound(function: Function, name: str) -> tuple[int, bool]:
    """The place in the body of the first statement that gives a name another value, and whether it always does.

    Up to there the name has the value that the function was given; a statement reads before it binds, but of one that
    holds others only the condition is sure to come first.
    """
    later = (n for n in ast.walk(function) if isinstance(n, ast.Lambda | ast.FunctionDef) and n is not function)
    if bindings(function).count(name) > 1 and any(name in _names(part) for part in later):
        return 0, False
    for i, statement in enumerate(function.body):
        if name in (n for node in ast.walk(statement) for n in bound_by(node)):
            always = isinstance(statement, ast.Assign) and any(
                isinstance(n, ast.Name) and n.id == name for target in statement.targets for n in ast.walk(target)
            )
            return i, always
    return len(function.body), True


def _names(node: ast.AST) -> set[str]:
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}


def _decided(node: Any, same: Mapping[str, Constant], present: set[str], program: Program) -> Any:
    function = syntax_of(node)
    if C in bound(function):
        node = m.replace(node, m.Name(C), cst.Name(OWN))
        same = {OWN if p == C else p: found for p, found in same.items()}
        present = {OWN if p == C else p for p in present}
        function = syntax_of(node)
    body = []
    taken = {a.arg for a in parameters(function)}
    whole = (len(function.body), True)
    ends = {p: rebound(function, p) if p in taken else whole for p in (*same, *present)}
    for i, statement in enumerate(node.body.body):
        here = {p for p, (end, always) in ends.items() if i < end or (i == end and always)}
        only_test = {p for p, (end, always) in ends.items() if i == end and not always}
        body.append(_marked(_marked(statement, same, present, here), same, present, only_test, test=True))
    node = node.with_changes(body=node.body.with_changes(body=body))
    done: Any = node.visit(_Fold(same, present, program))
    if left := m.findall(done, m.Attribute(CONFIG)):
        raise GenerateError(f"{function.name}: cannot decide {code(left[0]).removeprefix('c.')!r}")
    return m.replace(done, m.Name(OWN), cst.Name(C))


def _marked(
    statement: Any, same: Mapping[str, Constant], present: set[str], names: set[str], test: bool = False
) -> Any:
    """A statement, or its condition, that asks the config for these names."""
    if test and not isinstance(statement, cst.If):
        return statement
    reads, asks = Reads({p: cst.parse_expression(f"{C}.{p}") for p in same if p in names}), _Asks(present & names)
    if test:
        return statement.with_changes(test=statement.test.visit(reads).visit(asks))
    return statement.visit(reads).visit(asks)


class _Asks(cst.CSTTransformer):
    """Marks the questions whether a parameter that is always given is None."""

    def __init__(self, present: set[str]):
        super().__init__()
        self.present = present

    def leave_Comparison(self, original: cst.Comparison, updated: cst.Comparison) -> Any:
        none = m.ComparisonTarget(m.Is() | m.IsNot(), m.Name("None"))
        if not m.matches(updated, m.Comparison(m.Name(), [none])):
            return updated
        name = updated.left.value  # type: ignore[attr-defined]
        return updated.with_changes(left=cst.parse_expression(f"{C}.{name}")) if name in self.present else updated


class _Decider(Decider):
    """Decides also what one side of an and/or settles when data decide the other."""

    def value(self, node: cst.BaseExpression) -> Any:
        """What an expression comes to; what fails stands behind a return that always runs, and goes with it."""
        try:
            return super().value(node)
        except GenerateError:
            return UNKNOWN

    def truth(self, node: cst.BaseExpression) -> Any:
        """Whether a condition holds, or UNKNOWN."""
        found = super().truth(node)
        if found is UNKNOWN and isinstance(node, cst.BooleanOperation) and not m.findall(node.left, m.Call()):
            settles = isinstance(node.operator, cst.Or)
            if self.truth(node.right) is settles:
                return settles
        return found


class _Prose:
    """Comments and docstrings call what was a parameter by its constant, where a word is plainly a parameter."""

    def __init__(self, same: Mapping[str, Constant]):
        self.names = {p: c.text for p, c in same.items() if "_" in p and c.text.isidentifier() and c.text.isupper()}

    def constant(self, c: Any, field: str, value: float) -> None:
        """Constants are written by `_Fold`."""

    def instance(self, child: Any, parent: Any) -> str:
        """Helpers make no layers."""
        raise GenerateError("a helper makes a layer")

    def prose(self, text: str, c: Any) -> str:
        """The text with its names."""
        return re.sub(r"\b[a-z]+(?:_[a-z]+)+\b", lambda word: self.names.get(word[0], word[0]), text)


class _Fold(Specialise):
    """Decides on names that are constants, with the machinery that decides on a config."""

    def __init__(self, same: Mapping[str, Constant], present: set[str], program: Program):
        known: Any = SimpleNamespace(**{p: object() for p in present}, **{p: c.value for p, c in same.items()})
        super().__init__(known, _Prose(same), Callees(cst.Pass(), lambda _: None))
        self.decider = _Decider(known)
        self.decider.names |= {k: v for k, v in program.constants.items() if k not in self.decider.names}
        self.value, self.truth = self.decider.value, self.decider.truth
        self.reads_config = self.decider.reads_config
        self.same = same

    def written(self, node: cst.BaseExpression, value: Any) -> cst.BaseExpression:
        """A constant by its name, and arithmetic with names as it stands."""
        places: list[Any] = list(m.findall(node, m.Attribute(CONFIG)))
        decides = value is None or isinstance(value, bool | str)
        if m.matches(node, m.Attribute(CONFIG)) or (not decides and any(map(self.named, places))):
            return self.substituted(node)
        return literal(value)

    def named(self, place: cst.Attribute) -> bool:
        """Whether a constant is more than a number."""
        return any(c.isalpha() for c in self.same[place.attr.value].text.replace("e", ""))

    def substituted(self, node: cst.BaseExpression) -> Any:
        """An expression with its constants written out."""
        put: Any = lambda a, _: embedded(cst.parse_expression(self.same[a.attr.value].text))  # noqa: E731 - libcst's type
        return m.replace(node, m.Attribute(CONFIG), put)

    def leave_Attribute(self, original: cst.Attribute, updated: cst.Attribute) -> cst.BaseExpression:
        """A constant without a value, such as torch.float32."""
        if m.matches(updated, m.Attribute(CONFIG)) and updated.attr.value in self.same:
            return cst.parse_expression(self.same[updated.attr.value].text)
        return super().leave_Attribute(original, updated)

    def leave_BinaryOperation(self, original: cst.BinaryOperation, updated: cst.BinaryOperation) -> cst.BaseExpression:
        """Without a 0 that is added: a position where nothing comes before."""
        if m.matches(updated, m.BinaryOperation(m.Integer("0"), m.Add())) and self.reads_config(original.left):
            return enclosed(updated.right, original)
        return super().leave_BinaryOperation(original, updated)

    def leave_Call(self, original: cst.Call, updated: cst.Call) -> cst.BaseExpression:
        """Without what a function of a library assumes anyway."""
        name = code(original.func)
        if name == "torch.arange" and self.reads_config(original.args[0]) and code(updated.args[0].value) == "0":
            return updated.with_changes(args=updated.args[1:])
        kept = [
            b
            for a, b in zip(original.args, updated.args, strict=True)
            if not (self.reads_config(a) and a.keyword and (name, a.keyword.value, code(b.value)) in ASSUMED)
        ]
        return (
            updated.with_changes(args=[*kept[:-1], *map(last, kept[-1:])]) if len(kept) < len(updated.args) else updated
        )

    def leave_If(self, original: cst.If, updated: cst.If) -> Any:
        """A condition of which something went stands on one line."""
        before, after = code(original.test), code(updated.test)
        if before == after or "#" in after:
            return updated
        return updated.with_changes(test=cst.parse_expression(one_line(after))).visit(Unwrap())

    def leave_SimpleStatementLine(
        self, original: cst.SimpleStatementLine, updated: cst.SimpleStatementLine
    ) -> cst.SimpleStatementLine | cst.RemovalSentinel:
        """Without parentheses that have become idle, and without what is sure to hold."""
        first = original.body[0]
        if isinstance(first, cst.Assert) and self.truth(first.test) is True:
            return cst.RemoveFromParent()
        done: Any = updated.visit(Unwrap())
        return super().leave_SimpleStatementLine(original, done)


def _constant_variables(before: str, after: str, program: Program) -> dict[str, Constant]:
    """Variables that deciding has made constants; arithmetic, and what was written as a constant, keeps its name."""
    function = syntax(after)
    assert isinstance(function, Function)
    written = {ast.dump(n) for n in ast.walk(syntax(before)) if isinstance(n, ast.Assign)}
    found = {}
    for statement in function.body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant() | ast.Name() | ast.Attribute() as given):
                known = value(given, program.constants)
                if known is not UNKNOWN and ast.dump(statement) not in written and bindings(function).count(name) == 1:
                    found[name] = Constant(ast.get_source_segment(after, given) or ast.unparse(given), known)
    return found
