"""One layer's source, specialised to one config: sizes get names, branches that the config rules out go, comments stay.

A layer is an ordinary `nn.Module` (or a function) whose config is `c`. Everything written in terms of the config alone
is decided here; everything else, and every comment on a line that stays, is kept as its author wrote it. Nothing is
guessed: if any trace of the config would be left, a `GenerateError` names the expression and its line.

What it asks of authors:

- the config is read as `c.field` where it is used, `self.c = c` and `c = self.c` aside;
- a condition is on the config alone, on the data alone, or joins the two with and/or, config first;
- a keyword argument that folds to something false is left out, so false must be what the callee assumes (not so in
  calls of nn.Linear and its like, which keep what they are given);
- an optional parameter that is no longer read is left out;
- sub-layers are made with `submodule(c.child, ...)`; only len, min and max are called on config values.
"""

from typing import Any, Protocol

import libcst as cst
import libcst.matchers as m

from archspec.codegen.layout import code, fitted, prune, returned, with_params
from archspec.errors import GenerateError
from archspec.layers.base import Component

UNKNOWN = object()
CONFIG = m.Name("c") | m.Attribute(m.Name("self"), m.Name("c"))
SCAFFOLD = m.SimpleStatementLine([m.Assign([m.AssignTarget(CONFIG)], value=CONFIG)])
IN_TRAINING = m.If(test=m.Attribute(m.Name("self"), m.Name("training")), body=m.IndentedBlock(), orelse=None)
PURE: dict[str, Any] = {"len": len, "min": min, "max": max}


class Namer(Protocol):
    """What the specialiser asks of the file that it writes into."""

    def constant(self, c: Component, field: str, value: float) -> str | None:
        """The name of a size, or None when the value is to be written as it is."""

    def instance(self, child: Component, parent: Component) -> str:
        """The name of the class of a sub-layer."""

    def prose(self, text: str, c: Component) -> str:
        """A comment or docstring with sizes called by their names."""


def specialise(node: cst.CSTNode, c: Component, namer: Namer, where: str) -> Any:
    """The class or function `node` for the config `c`; `where` names it in errors."""
    done = node.visit(_Specialise(c, namer))
    if not isinstance(done, cst.ClassDef | cst.FunctionDef):
        raise GenerateError(f"{where}: nothing is left of it")
    if isinstance(done, cst.ClassDef) and isinstance(node, cst.ClassDef):
        done = prune(node, done)
    if left := m.findall(done, CONFIG):
        uses = m.findall(done, m.Attribute(CONFIG)) or left
        raise GenerateError(f"{where}: cannot decide {code(uses[0])!r} from the config")
    return done


class _Self:
    """Stands for `self` while a condition is evaluated: it has a config and nothing else."""

    def __init__(self, c: Component):
        self.c = c


class _Specialise(cst.CSTTransformer):
    def __init__(self, c: Component, namer: Namer):
        super().__init__()
        self.c, self.namer = c, namer
        self.names = {"c": c, "self": _Self(c), "__builtins__": PURE}
        self.pure: dict[cst.CSTNode, bool] = {}
        self.prose: dict[cst.CSTNode, bool] = {}
        self.replaced: dict[cst.CSTNode, Any] = {}
        self.elifs: set[cst.If] = set()
        self.depth = 0

    # Deciding

    def value(self, node: cst.BaseExpression) -> Any:
        """What an expression comes to if it depends on the config and nothing else, or UNKNOWN."""
        if not self.reads_config(node) or not is_pure(node):
            return UNKNOWN
        try:
            return eval(f"({code(node)})", dict(self.names))
        except (NameError, AttributeError):  # it also reads data, such as self.training
            return UNKNOWN

    def reads_config(self, node: cst.CSTNode) -> bool:
        """Whether the config occurs in a node; remembered, for every node above it asks again."""
        if node not in self.pure:
            self.pure[node] = is_config(node) or any(self.reads_config(child) for child in node.children)
        return self.pure[node]

    def concerns(self, node: cst.CSTNode) -> bool:
        """Whether there is anything to do in a node: the config, or prose that may name sizes."""
        if node not in self.prose:
            here = isinstance(node, cst.Comment) or (isinstance(node, cst.SimpleString) and '"""' in node.value)
            below = any(self.concerns(child) for child in node.children)
            self.prose[node] = here or below or self.reads_config(node)
        return self.prose[node]

    def truth(self, node: cst.BaseExpression) -> Any:
        """As `value`, for a condition: one decided side may decide an and/or."""
        found = self.value(node)
        if found is not UNKNOWN:
            return bool(found)
        match node:
            case cst.BooleanOperation():
                left = self.truth(node.left)
                if left is UNKNOWN:
                    return UNKNOWN
                if isinstance(node.operator, cst.And):
                    return self.truth(node.right) if left else False
                return True if left else self.truth(node.right)
            case cst.UnaryOperation(operator=cst.Not()):
                inner = self.truth(node.expression)
                return UNKNOWN if inner is UNKNOWN else not inner
        return UNKNOWN

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
        if isinstance(node, cst.BaseExpression) and not m.matches(node, CONFIG):
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
        arithmetic = m.Attribute(CONFIG) | m.BinaryOperation() | m.Integer() | m.Float()
        parts = [node, *m.findall(node, m.BinaryOperation())]
        if (
            all(m.matches(p, arithmetic) for p in parts)
            and isinstance(value, int | float)
            and not isinstance(value, bool)
        ):
            names: dict[str, str] = {}
            for attribute in m.findall(node, m.Attribute(CONFIG)):
                assert isinstance(attribute, cst.Attribute)
                field = attribute.attr.value
                found = self.namer.constant(self.c, field, getattr(self.c, field))
                if found is None:
                    return literal(value)
                names[field] = found
            rename: Any = lambda a, _: cst.Name(names[a.attr.value])  # noqa: E731 - the library's own types say too little
            renamed = m.replace(node, m.Attribute(CONFIG), rename)
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
        self.depth -= 1  # a taken branch moves one level to the left
        body = branch.body.visit(self)
        self.depth += 1
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
        return fitted(updated, 4 * self.depth) if code(updated) != code(original) else updated

    def visit_IndentedBlock(self, node: cst.IndentedBlock) -> None:
        """Lines inside stand further to the right."""
        self.depth += 1

    def leave_IndentedBlock(self, original: cst.IndentedBlock, updated: cst.IndentedBlock) -> cst.IndentedBlock:
        """Nothing after a return that now always runs; no block without a statement."""
        self.depth -= 1
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
        if m.matches(original.func, m.Name("submodule")):
            child = self.value(original.args[0].value)
            if not isinstance(child, Component):
                raise GenerateError(f"submodule({code(original.args[0].value)}) does not build a component")
            args = [tidy(a) for a in updated.args[1:]]
            return cst.Call(cst.Name(self.namer.instance(child, self.c)), args)
        if m.matches(original.func, m.Attribute(value=m.Name("nn"))):  # bias=False says something there
            return updated
        kept = [b for a, b in zip(original.args, updated.args, strict=True) if not self.idle(a)]
        return updated.with_changes(args=[*kept[:-1], *map(last, kept[-1:])])

    def idle(self, argument: cst.Arg) -> bool:
        """Whether a keyword argument is decided, and false."""
        if argument.keyword is None:
            return False
        node = argument.value
        while isinstance(node, cst.IfExp):
            test = self.truth(node.test)
            if test is UNKNOWN:
                return False
            node = node.body if test else node.orelse
        value = self.value(node) if self.reads_config(node) else constant(node)
        return self.reads_config(argument.value) and value is not UNKNOWN and not value

    def leave_FunctionDef(self, original: cst.FunctionDef, updated: cst.FunctionDef) -> cst.FunctionDef:
        """Without the config, and with the annotation that `__init__` needs once it has no parameters."""
        if updated.name.value == "__init__" and updated.returns is None:
            updated = updated.with_changes(returns=cst.Annotation(cst.Name("None")))
        return with_params(updated, [p for p in updated.params.params if p.name.value != "c"])

    # Prose

    def leave_Comment(self, original: cst.Comment, updated: cst.Comment) -> cst.Comment:
        """A size is called the same in comments as in the code."""
        return updated.with_changes(value=self.namer.prose(updated.value, self.c))

    def leave_SimpleString(self, original: cst.SimpleString, updated: cst.SimpleString) -> cst.SimpleString:
        """A size is called the same in docstrings as in the code."""
        if '"""' not in updated.value:
            return updated
        return updated.with_changes(value=self.namer.prose(updated.value, self.c))


def is_config(node: cst.CSTNode) -> bool:
    """Whether a node is `c` or `self.c`."""
    if isinstance(node, cst.Name):
        return node.value == "c"
    return isinstance(node, cst.Attribute) and m.matches(node, CONFIG)


def is_pure(node: cst.CSTNode) -> bool:
    """Whether an expression calls nothing but len, min and max."""
    if isinstance(node, cst.Call) and not (isinstance(node.func, cst.Name) and node.func.value in PURE):
        return False
    if isinstance(node, cst.GeneratorExp | cst.ListComp | cst.Lambda):
        return False
    return all(is_pure(child) for child in node.children)


def enclosed(node: Any, outer: cst.BaseExpression) -> Any:
    """An operation that takes the place of `outer`, in the parentheses that held that."""
    operation = cst.BinaryOperation | cst.BooleanOperation | cst.Comparison | cst.IfExp | cst.UnaryOperation
    if outer.lpar and isinstance(node, operation) and not node.lpar:
        return node.with_changes(lpar=outer.lpar, rpar=outer.rpar)
    return node


def is_literal(value: Any) -> bool:
    """Whether a value can be written down."""
    if isinstance(value, tuple):
        return all(map(is_literal, value))
    return value is None or isinstance(value, bool | int | float | str)


def merged(first: Any, second: Any) -> Any:
    """Two statements `if self.training:` that specialising has brought together, as one."""
    head, *tail = second.body.body
    head = lead(head, [*second.leading_lines, *head.leading_lines])
    return first.with_changes(body=first.body.with_changes(body=[*first.body.body, head, *tail]))


def literal(value: Any) -> cst.BaseExpression:
    """A value as an expression; text as ruff quotes it."""
    text = repr(value)
    if isinstance(value, str) and '"' not in value:
        text = f'"{text[1:-1]}"'
    return cst.parse_expression(text)


def constant(node: cst.BaseExpression) -> Any:
    """The value of a literal, or UNKNOWN."""
    try:
        return eval(code(node), {"__builtins__": {}})
    except Exception:
        return UNKNOWN


def lead(statement: Any, lines: Any) -> Any:
    """A statement with other lines above it."""
    return statement.with_changes(leading_lines=lines) if hasattr(statement, "leading_lines") else statement


def without_blanks(statement: Any) -> Any:
    """The lines above a statement from the first comment on."""
    lines = getattr(statement, "leading_lines", ())
    first = next((i for i, line in enumerate(lines) if line.comment), len(lines))
    return lines[first:]


def last(argument: cst.Arg) -> cst.Arg:
    """The last argument of a call: no comma after it."""
    return argument.with_changes(comma=cst.MaybeSentinel.DEFAULT)


def tidy(argument: cst.Arg) -> cst.Arg:
    """An argument on one line."""
    return argument.with_changes(comma=cst.MaybeSentinel.DEFAULT, whitespace_after_arg=cst.SimpleWhitespace(""))
