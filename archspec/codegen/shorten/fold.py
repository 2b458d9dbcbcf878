"""Parameters that every call gives the same constant: they go, and so do the branches that they decide.

A parameter stays where calls differ, one that is given a window and one that is not: there is one helper for both, with
the branch that tells them apart. Of a parameter that no call leaves out or gives None, `is None` is decided.
"""

import ast
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import libcst as cst
import libcst.matchers as m

from archspec.codegen.decide import CONFIG, UNKNOWN, Decider, literal
from archspec.codegen.defaults import Callees
from archspec.codegen.layout import one_line
from archspec.codegen.shorten.effects import pure
from archspec.codegen.shorten.facts import Present, value
from archspec.codegen.shorten.program import (
    Call,
    Function,
    Program,
    bindings,
    bound,
    bound_by,
    defaults,
    parameters,
    syntax,
    tree,
)
from archspec.codegen.shorten.rewrite import Calls, Reads, Unwrap, embedded
from archspec.codegen.sources import code
from archspec.codegen.specialise import Specialise
from archspec.codegen.syntax import last
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


def fold(program: Program) -> None:
    """Fold the parameters of every helper that is only called."""
    for name in [name for name in program.parts if program.helper(name) is not None]:
        calls = program.calls(name)
        if calls:
            _fold_helper(program, name, calls)


def _fold_helper(program: Program, name: str, calls: list[Call]) -> None:
    function = program.helper(name)
    assert function is not None
    outside = [call for call in calls if call.part != name]
    taken = [a.arg for a in parameters(function)]
    same = {p: found for p in taken if (found := _same(program, function, p, calls)) is not None}
    present = {p for p in taken if p not in same and _is_present(program, p, function, outside)}
    node = decided(tree(program.parts[name]), same, present, program)
    unread = {a.arg for a in parameters(function)} - _read(syntax_of(node), name)
    gone = {p for p in unread if all(pure(call.given[p], program) for call in calls if p in call.given)}
    gone |= {p for p in same if _rebound(function, p)[1]}
    changed = _without(node, gone, present, {p for p in defaults(function) if all(p in c.given for c in calls)})
    if gone or code(changed).strip() != program.parts[name]:
        program.put(name, changed)
        _drop_arguments(program, name, function, gone, {call.part for call in calls})


def _read(function: Function, name: str) -> set[str]:
    """What a helper reads; what it hands on to the same parameter of itself, it does not read."""
    kept: set[int] = set()
    for node in ast.walk(function):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name:
            places = [a.arg for a in function.args.args]
            given = [*zip(places, node.args, strict=False), *((k.arg, k.value) for k in node.keywords)]
            kept |= {id(v) for p, v in given if isinstance(v, ast.Name) and v.id == p}
    names = [n for n in ast.walk(function) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)]
    return {n.id for n in names if id(n) not in kept}


def _rebound(function: Function, name: str) -> tuple[int, bool]:
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


def _same(program: Program, function: Function, p: str, calls: list[Call]) -> Constant | None:
    """The constant that every call gives a parameter, or leaves it at."""
    given = []
    for call in calls:
        node, part = call.given.get(p), call.part
        if node is None:
            node, part = defaults(function)[p], function.name
        if part == function.name and isinstance(node, ast.Name) and node.id == p:
            continue  # it hands on its own
        given.append((node, part))
    if not given or len({ast.dump(node) for node, _ in given}) > 1:
        return None
    node, part = given[0]
    found = value(node, program.constants)
    if found is UNKNOWN:
        return None
    return Constant(one_line(ast.get_source_segment(program.parts[part], node) or ast.unparse(node)), found)


def _is_present(program: Program, p: str, function: Function, calls: list[Call]) -> bool:
    given = [(call, call.given.get(p, defaults(function).get(p))) for call in calls]
    return all(node is not None and Present(program, call)(node) for call, node in given)


def _names(node: ast.AST) -> set[str]:
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}


# Deciding


def decided(node: Any, same: Mapping[str, Constant], present: set[str], program: Program) -> Any:
    """A function with constants for names that are always the same, its conditions on them decided."""
    while same or present:
        before = code(node).strip()
        node = _decided(node, same, present, program)
        same, present = _constant_variables(before, code(node).strip(), program), set()
    return node


def _decided(node: Any, same: Mapping[str, Constant], present: set[str], program: Program) -> Any:
    function = syntax_of(node)
    if C in bound(function):
        node = m.replace(node, m.Name(C), cst.Name(OWN))
        same = {OWN if p == C else p: found for p, found in same.items()}
        present = {OWN if p == C else p for p in present}
        function = syntax_of(node)
    body = []
    ends = {p: _rebound(function, p) for p in (*same, *present)}
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

    def truth(self, node: cst.BaseExpression) -> Any:
        """Whether a condition holds, or UNKNOWN."""
        found = super().truth(node)
        if found is UNKNOWN and isinstance(node, cst.BooleanOperation) and not m.findall(node.left, m.Call()):
            settles = isinstance(node.operator, cst.Or)
            if self.truth(node.right) is settles:
                return settles
        return found


class _Verbatim:
    """Comments and docstrings stay as they are."""

    def constant(self, c: Any, field: str, value: float) -> None:
        """Constants are written by `_Fold`."""

    def instance(self, child: Any, parent: Any) -> str:
        """Helpers make no layers."""
        raise GenerateError("a helper makes a layer")

    def prose(self, text: str, c: Any) -> str:
        """The text."""
        return text


class _Fold(Specialise):
    """Decides on names that are constants, with the machinery that decides on a config."""

    def __init__(self, same: Mapping[str, Constant], present: set[str], program: Program):
        known: Any = SimpleNamespace(**{p: object() for p in present}, **{p: c.value for p, c in same.items()})
        super().__init__(known, _Verbatim(), Callees(cst.Pass(), lambda _: None))
        self.decider = _Decider(known)
        self.decider.names |= {k: v for k, v in program.constants.items() if k not in self.decider.names}
        self.value, self.truth = self.decider.value, self.decider.truth
        self.reads_config = self.decider.reads_config
        self.same = same

    def written(self, node: cst.BaseExpression, value: Any) -> cst.BaseExpression:
        """A constant by its name, and arithmetic with names as it stands."""
        if m.matches(node, m.Attribute(CONFIG)):
            return self.substituted(node)
        places: list[Any] = list(m.findall(node, m.Attribute(CONFIG)))
        if isinstance(node, cst.BinaryOperation) and any(map(self.named, places)):
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

    def leave_Call(self, original: cst.Call, updated: cst.Call) -> cst.BaseExpression:
        """Without what a function of a library assumes anyway."""
        name = code(original.func)
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
        if m.matches(original, m.SimpleStatementLine([m.Assert()])) and self.truth(original.body[0].test) is True:  # type: ignore[union-attr]
            return cst.RemoveFromParent()
        done: Any = updated.visit(Unwrap())
        return super().leave_SimpleStatementLine(original, done)


def _constant_variables(before: str, after: str, program: Program) -> dict[str, Constant]:
    """Variables that deciding has made constants; those that their author wrote as constants stay variables."""
    function = syntax(after)
    assert isinstance(function, Function)
    written = {ast.dump(n) for n in ast.walk(syntax(before)) if isinstance(n, ast.Assign)}
    found = {}
    for statement in function.body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=given):
                known = value(given, program.constants)
                if known is not UNKNOWN and ast.dump(statement) not in written and bindings(function).count(name) == 1:
                    found[name] = Constant(ast.get_source_segment(after, given) or ast.unparse(given), known)
    return found


# Signatures and calls


def _without(node: cst.FunctionDef, gone: set[str], present: set[str], given: set[str]) -> Any:
    """A function that takes less, and says of the rest what is now true."""
    params = node.params
    kept = [p for p in params.params if p.name.value not in gone]
    named = [p for p in params.kwonly_params if p.name.value not in gone]
    optional = False
    said = []
    for p in kept:
        p = _said(p, p.name.value in present, p.name.value in given and not optional)
        optional = optional or p.default is not None
        said.append(p)
    named = [_said(p, p.name.value in present, p.name.value in given) for p in named]
    if [*said, *named] == [*params.params, *params.kwonly_params]:
        return node
    star = params.star_arg
    if isinstance(star, cst.ParamStar):
        star = (
            cst.ParamStar(cst.Comma(whitespace_after=cst.SimpleWhitespace(" "))) if named else cst.MaybeSentinel.DEFAULT
        )
    ends_with = bool(named) or params.star_kwarg is not None or isinstance(star, cst.Param)
    return node.with_changes(
        params=params.with_changes(
            params=[_flat(p, ends_with or p is not said[-1]) for p in said],
            kwonly_params=[_flat(p, params.star_kwarg is not None or p is not named[-1]) for p in named],
            star_arg=star,
        ),
        whitespace_before_params=cst.SimpleWhitespace(""),
    )


def _flat(p: cst.Param, comma: bool) -> cst.Param:
    after = cst.Comma(whitespace_after=cst.SimpleWhitespace(" ")) if comma else cst.MaybeSentinel.DEFAULT
    return p.with_changes(comma=after, whitespace_after_param=cst.SimpleWhitespace(""))


def _said(p: cst.Param, present: bool, given: bool) -> cst.Param:
    """A parameter without `| None` where it is never None, without a default where every call gives it."""
    optional = m.BinaryOperation(operator=m.BitOr(), right=m.Name("None"))
    if present and p.annotation is not None and m.matches(p.annotation.annotation, optional):
        inner = p.annotation.annotation.left  # type: ignore[attr-defined]
        p = p.with_changes(annotation=p.annotation.with_changes(annotation=inner))
    if (present or given) and p.default is not None and given:
        return p.with_changes(default=None, equal=cst.MaybeSentinel.DEFAULT)
    return p


def _drop_arguments(program: Program, name: str, function: Function, gone: set[str], parts: set[str]) -> None:
    places = [a.arg for a in (*function.args.posonlyargs, *function.args.args)]

    def change(call: cst.Call) -> cst.Call:
        named = [a.keyword.value if a.keyword else places[i] for i, a in enumerate(call.args)]
        kept = [a for a, p in zip(call.args, named, strict=True) if p not in gone]
        return call.with_changes(args=[*kept[:-1], *map(last, kept[-1:])]) if len(kept) < len(named) else call

    if not gone:
        return
    for part in parts:
        node = tree(program.parts[part])
        hidden = lambda f: name in bound(syntax_of(f))  # noqa: E731 - two words
        program.put(part, node.visit(Calls(m.Name(name), change, hidden)))


def syntax_of(function: cst.FunctionDef) -> Function:
    """A function as abstract syntax."""
    found = syntax(code(function.with_changes(leading_lines=[])).strip())
    assert isinstance(found, Function)
    return found
