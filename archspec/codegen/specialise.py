"""One layer's source, specialised to one config: sizes get names, branches that the config rules out go, comments stay.

A layer is an ordinary `nn.Module` (or a function) whose config is `c`. Everything written in terms of the config alone
is decided here; everything else, and every comment on a line that stays, is kept as its author wrote it. Nothing is
guessed: source that breaks a rule of authorship is refused first (`rules`), and if any trace of the config would still
be left, a `GenerateError` names the expression and its line.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import libcst as cst
import libcst.matchers as m

from archspec.codegen.decide import CONFIG, UNKNOWN, Decider, is_literal, literal
from archspec.codegen.defaults import Callees, Lookup
from archspec.codegen.prune import prune, returned, with_params
from archspec.codegen.rules import LINEAR, SUBMODULE, check
from archspec.codegen.sources import code
from archspec.codegen.syntax import enclosed, flattened, last, lead, merged, parenthesised, tidy, without_blanks
from archspec.errors import GenerateError
from archspec.layers.arguments import ARGUMENTS
from archspec.layers.base import Component

SCAFFOLD = m.SimpleStatementLine([m.Assign([m.AssignTarget(CONFIG)], value=CONFIG)])
IN_TRAINING = m.If(test=m.Attribute(m.Name("self"), m.Name("training")), body=m.IndentedBlock(), orelse=None)


SUBLAYER = m.Attribute(m.Name("self"))
# a field of the config, or of a component in one of its slots
PLACE = m.Attribute(CONFIG) | m.Attribute(m.Attribute(CONFIG))


class Namer(Protocol):
    """What the specialiser asks of the file that it writes into."""

    def constant(self, c: Component, field: str, value: float) -> str | None:
        """The name of a size, or None when the value is to be written as it is."""

    def instance(self, child: Component, parent: Component) -> str:
        """The name of the class of a sub-layer."""

    def prose(self, text: str, c: Component) -> str:
        """A comment or docstring with sizes called by their names."""


def specialise(
    node: cst.CSTNode,
    c: Component,
    namer: Namer,
    where: str,
    line: int = 1,
    look: Lookup = lambda _: None,
    facts: Mapping[str, bool] | None = None,
) -> Any:
    """A class or function for the config `c`, statements that changed on one line each.

    Args:
        node: its source.
        c: the config.
        namer: the file that it is written into.
        where: its file, for errors.
        line: the number of its first line there.
        look: finds what a name of that file means, if that is a class or function of ours.
        facts: what the config is asked beside its fields, such as `c.plain`.

    Raises:
        GenerateError: a rule of authorship is broken, or something of the config would be left.
    """
    check(code(node), where, line, c)
    done = node.visit(Specialise(c, namer, Callees(node, look), facts))
    if not isinstance(done, cst.ClassDef | cst.FunctionDef):
        raise GenerateError(f"{where}: nothing is left of it")
    if isinstance(done, cst.ClassDef) and isinstance(node, cst.ClassDef):
        done = prune(node, done)
    if left := m.findall(done, CONFIG):
        said = code((m.findall(done, m.Attribute(CONFIG)) or left)[0])
        lines = code(node).strip().splitlines()
        at = next((i for i, text in enumerate(lines) if said in text), 0)
        child = isinstance(getattr(c, said.rpartition(".")[2], None), Component)
        right = f"; a sub-layer is made with submodule({said}, ...)" if child else ""
        raise GenerateError(
            f"{where}: cannot decide {said!r} from the config, line {line + at}: `{lines[at].strip()}`{right}"
        )
    return done


class Specialise(cst.CSTTransformer):
    """Decides whatever the config decides, in one pass over the syntax."""

    def __init__(self, c: Component, namer: Namer, callees: Callees, facts: Mapping[str, bool] | None = None):
        super().__init__()
        self.c, self.namer, self.callees = c, namer, callees
        self.decider = Decider(c, facts)
        self.value, self.truth = self.decider.value, self.decider.truth
        self.reads_config = self.decider.reads_config
        self.prose: dict[cst.CSTNode, bool] = {}
        self.replaced: dict[cst.CSTNode, Any] = {}
        self.elifs: set[cst.If] = set()

    def concerns(self, node: cst.CSTNode) -> bool:
        """Whether there is anything to do in a node: the config, or prose that may name sizes."""
        if node not in self.prose:
            here = isinstance(node, cst.Comment) or (isinstance(node, cst.SimpleString) and '"""' in node.value)
            below = any(self.concerns(child) for child in node.children)
            self.prose[node] = here or below or self.reads_config(node)
        return self.prose[node]

    def on_visit(self, node: cst.CSTNode) -> bool:
        """Decide from the top, so that nothing is ever looked at inside a dead branch."""
        if not self.concerns(node):
            self.replaced[node] = node
            return False
        if not self.reads_config(node):
            return super().on_visit(node)
        if isinstance(node, cst.IfExp):
            test = self.truth(node.test)
            if test is not UNKNOWN:
                taken = node.body if test else node.orelse
                self.replaced[node] = enclosed(taken.visit(self), node)
                return False
        if isinstance(node, cst.BaseExpression) and not isinstance(node, cst.Tuple) and not m.matches(node, CONFIG):
            value = self.value(node)
            if is_literal(value):
                self.replaced[node] = self.written(node, value)
                return False
        if isinstance(node, cst.If) and self.truth(node.test) is not UNKNOWN:
            self.replaced[node] = self.taken(node)
            return False
        return super().on_visit(node)

    def on_leave(self, original: cst.CSTNode, updated: cst.CSTNode) -> Any:
        """What was decided on the way in stands."""
        if original in self.replaced:
            return self.replaced.pop(original)
        return super().on_leave(original, updated)

    def written(self, node: cst.BaseExpression, value: Any) -> cst.BaseExpression:
        """Named sizes and their arithmetic keep their names; any other value becomes a literal."""
        arithmetic = PLACE | m.BinaryOperation() | m.Integer() | m.Float()
        parts = [node, *m.findall(node, m.BinaryOperation())]
        if (
            all(m.matches(p, arithmetic) for p in parts)
            and isinstance(value, int | float)
            and not isinstance(value, bool)
        ):
            names: dict[str, str] = {}
            for place in _places(node):
                owner = self.value(place.value) if m.matches(place.value, m.Attribute(CONFIG)) else self.c
                field = place.attr.value
                found = (
                    self.namer.constant(owner, field, getattr(owner, field)) if isinstance(owner, Component) else None
                )
                if found is None:
                    return literal(value)
                names[code(place)] = found
            rename: Any = lambda a, _: cst.Name(names[code(a)])  # noqa: E731 - the library's own types say too little
            renamed = m.replace(
                node, m.MatchIfTrue(lambda n: isinstance(n, cst.Attribute) and code(n) in names), rename
            )
            if isinstance(renamed, cst.BaseExpression) and not m.findall(renamed, CONFIG):
                return renamed
        return literal(value)

    # Statements

    def taken(self, node: cst.If) -> Any:
        """What is left of an `if` whose condition is decided."""
        elif_ = node in self.elifs
        branch: cst.If | cst.Else | None = node if self.truth(node.test) else node.orelse
        if branch is None:
            return cst.RemoveFromParent()
        if isinstance(branch, cst.If) and branch is not node:
            lines = node.leading_lines or branch.leading_lines
            branch = branch.with_changes(leading_lines=lines)
            if elif_:
                self.elifs.add(branch)
            return branch.visit(self)
        body = branch.body.visit(self)
        assert isinstance(body, cst.IndentedBlock)
        if elif_:
            return cst.Else(body, leading_lines=node.leading_lines)
        first, *rest = body.body
        leading = [*node.leading_lines, *getattr(first, "leading_lines", ())]
        return cst.FlattenSentinel([lead(first, leading), *rest])

    def visit_If(self, node: cst.If) -> None:
        """Remember which `if` is an `elif`."""
        if isinstance(node.orelse, cst.If):
            self.elifs.add(node.orelse)

    def leave_BooleanOperation(
        self, original: cst.BooleanOperation, updated: cst.BooleanOperation
    ) -> cst.BaseExpression:
        """Drop the decided side of an and/or that data decides."""
        left, right = self.truth(original.left), self.truth(original.right)
        neutral = isinstance(original.operator, cst.And)
        if left is not UNKNOWN and left == neutral:
            return enclosed(updated.right, original)
        if right is not UNKNOWN and right == neutral:
            return enclosed(updated.left, original)
        return updated

    def leave_SimpleStatementLine(
        self, original: cst.SimpleStatementLine, updated: cst.SimpleStatementLine
    ) -> cst.SimpleStatementLine | cst.RemovalSentinel:
        """`self.c = c` and `c = self.c` go."""
        if m.matches(original, SCAFFOLD):
            return cst.RemoveFromParent()
        return flattened(updated) if code(updated) != code(original) else updated

    def leave_IndentedBlock(self, original: cst.IndentedBlock, updated: cst.IndentedBlock) -> cst.IndentedBlock:
        """Nothing after a return that now always runs; no block without a statement."""
        body: list[Any] = []
        for statement in updated.body:
            body.append(statement if body else lead(statement, without_blanks(statement)))
            if m.matches(statement, m.SimpleStatementLine([m.Return()])):
                break
            if len(body) > 1 and all(m.matches(s, IN_TRAINING) for s in body[-2:]):
                body[-2:] = [merged(*body[-2:])]
        if len(body) > 1:
            body[-2:] = returned(body[-2], body[-1])
        return updated.with_changes(body=body or [cst.SimpleStatementLine([cst.Pass()])])

    # Calls and signatures

    def leave_Call(self, original: cst.Call, updated: cst.Call) -> cst.BaseExpression:
        """`submodule(c.mixer, ...)` becomes `Attention(...)`; keyword arguments that fold to false go."""
        if m.matches(original.func, m.Name(SUBMODULE)):
            child = self.value(original.args[0].value)
            if not isinstance(child, Component):
                raise GenerateError(f"submodule({code(original.args[0].value)}) does not build a component")
            args = [tidy(a) for a in updated.args[1:]]
            return cst.Call(cst.Name(self.namer.instance(child, self.c)), args)
        if m.matches(original.func, m.Name(LINEAR)):
            return updated.with_changes(func=cst.parse_expression("nn.Linear"), args=updated.args[2:])
        idle = [self.idle(original.func, a) for a in original.args]
        kept = [a for a, is_idle in zip(updated.args, idle, strict=True) if not is_idle]
        return updated.with_changes(args=[*kept[:-1], *map(last, kept[-1:])]) if any(idle) else updated

    def idle(self, func: cst.BaseExpression, argument: cst.Arg) -> bool:
        """Whether a keyword argument says no more than the callee assumes: it folds to a false value, the default."""
        if argument.keyword is None:
            return False
        value = self.decider.argument(argument.value)
        if value is UNKNOWN or value:
            return False
        if value is None and argument.keyword.value in ARGUMENTS and m.matches(func, SUBLAYER):
            return True  # what a layer takes beside x is None by default
        default = self.callees.default(func, argument.keyword.value)
        return default is not UNKNOWN and repr(default) == repr(value)  # 0, 0.0 and False are not the same

    def leave_BinaryOperation(self, original: cst.BinaryOperation, updated: cst.BinaryOperation) -> cst.BaseExpression:
        """A negative number keeps its sign when it is raised to a power."""
        if isinstance(updated.operator, cst.Power) and isinstance(updated.left, cst.UnaryOperation):
            return updated.with_changes(left=parenthesised(updated.left))
        return updated

    def leave_Slice(self, original: cst.Slice, updated: cst.Slice) -> cst.Slice:
        """`x[: c.d_head]` is `x[:D_HEAD]`: around operations alone the colon has spaces."""
        simple = all(
            bound is None or isinstance(bound, cst.Name | cst.Integer) for bound in (updated.lower, updated.upper)
        )
        if simple and updated.step is None:
            return updated.with_changes(first_colon=cst.Colon())
        return updated

    def leave_Attribute(self, original: cst.Attribute, updated: cst.Attribute) -> cst.BaseExpression:
        """So does a number whose attribute is read."""
        if isinstance(updated.value, cst.Integer | cst.UnaryOperation):
            return updated.with_changes(value=parenthesised(updated.value))
        return updated

    def leave_FormattedStringExpression(
        self, original: cst.FormattedStringExpression, updated: cst.FormattedStringExpression
    ) -> cst.FormattedStringExpression:
        """A text within an f-string has the other quotes."""
        if original.expression is updated.expression or not isinstance(updated.expression, cst.SimpleString):
            return updated
        return updated.with_changes(expression=cst.SimpleString(repr(updated.expression.evaluated_value)))

    def leave_FunctionDef(self, original: cst.FunctionDef, updated: cst.FunctionDef) -> cst.FunctionDef:
        """Without the config, and with the annotation that `__init__` needs once it has no parameters."""
        if updated.name.value == "__init__" and updated.returns is None:
            updated = updated.with_changes(returns=cst.Annotation(cst.Name("None")))
        return with_params(updated, [p for p in updated.params.params if p.name.value != "c"])

    # Prose

    def leave_TrailingWhitespace(
        self, original: cst.TrailingWhitespace, updated: cst.TrailingWhitespace
    ) -> cst.TrailingWhitespace:
        """Without what is said to mypy."""
        if updated.comment is not None and updated.comment.value.startswith("# type: ignore"):
            return updated.with_changes(comment=None, whitespace=cst.SimpleWhitespace(""))
        return updated

    def leave_Comment(self, original: cst.Comment, updated: cst.Comment) -> cst.Comment:
        """A size is called the same in comments as in the code."""
        return updated.with_changes(value=self.namer.prose(updated.value, self.c))

    def leave_SimpleString(self, original: cst.SimpleString, updated: cst.SimpleString) -> cst.SimpleString:
        """A size is called the same in docstrings as in the code."""
        if '"""' not in updated.value:
            return updated
        return updated.with_changes(value=self.namer.prose(updated.value, self.c))


def _places(node: cst.CSTNode) -> list[Any]:
    """The fields that an expression reads, each with the slots on its way."""
    found: list[Any] = list(m.findall(node, PLACE))
    inner = {id(place.value) for place in found}
    return [place for place in found if id(place) not in inner]
