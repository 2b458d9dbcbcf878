"""One layer as its wiring says: norms, parts, sums and scaled branches, with the residual paths as rails."""

import re
from itertools import count

from archspec.diagram.catalog import Catalog
from archspec.diagram.describe import params, spelled
from archspec.diagram.flow import SINK, SOURCE, Edge, Flow, Node, bare, box, circle, white
from archspec.diagram.style import NORM
from archspec.diagram.text import DOT, MINUS, TIMES, amount, shape_text
from archspec.language.model import Block
from archspec.language.wiring import BUILTINS, SUBLAYERS, Binary, Call, Expr, Name, Negate, Number, builtin, text, walk
from archspec.layers.base import Component
from archspec.layers.ops import Experts

SIGNS = {"+": "+", "-": MINUS, "*": TIMES}
DECIMAL = re.compile(r"(?<![\w.])\d+\.\d+(e[+-]?\d+)?")
NAMED = {
    "pre": "pre-norm residual",
    "post": "post-norm residual",
    "sandwich": "norms before and after each branch",
    "inner_post": "norm at the end of each branch",
    "parallel": "parallel branches, one norm",
    "parallel_two_norms": "parallel branches, two norms",
    "deepnorm": "post-norm residual, DeepNorm",
    "layer_scale": "pre-norm residual with LayerScale",
    "none": "residual without norms",
}


def wiring_name(block: Block) -> str:
    """What the wiring is called, when it is one of the built-in ones."""
    parts = [n for n in SUBLAYERS if block.part(n) is not None]
    lines = tuple(line.replace("dropout", "") for line in block.wiring.lines())
    factor = next((e.value for s in block.wiring.steps for e in walk(s.value) if isinstance(e, Number)), None)
    for kind in BUILTINS:
        alpha = factor if kind == "deepnorm" else None
        if (kind == "deepnorm" and alpha is None) or not parts or (kind.startswith("parallel") and len(parts) < 2):
            continue
        plain = builtin(kind, parts, alpha=alpha)
        wrapped = tuple(line.replace("dropout", "") for line in builtin(kind, parts, True, alpha))
        if lines in (plain, wrapped):
            return NAMED[kind]
    return "custom wiring"


def wiring_lines(block: Block) -> list[str]:
    """The lines of the wiring, their numbers with four significant digits."""
    return [DECIMAL.sub(lambda found: f"{float(found[0]):.4g}", line) for line in block.wiring.lines()]


def layer_flow(block: Block, d_model: int, kinds: Catalog) -> Flow:
    """The flow of one layer."""
    return _Layer(block, d_model, kinds).flow


class _Layer:
    def __init__(self, block: Block, d_model: int, kinds: Catalog):
        self.block, self.kinds = block, kinds
        self.flow = Flow()
        self.numbers = count(1)
        self.flow.add(bare(SOURCE, f"x {shape_text(('B', 'T', d_model))}"))
        values = {"x": SOURCE}
        for step in block.wiring.steps:
            values[step.target] = self.value(step.value, values)
        self.flow.add(bare(SINK, shape_text(("B", "T", d_model))), (values["x"],))
        _mark_rails(self.flow)

    def value(self, expr: Expr, values: dict[str, str]) -> str:
        """The node that an expression ends in."""
        match expr:
            case Name(name=name):
                return values[name]
            case Call(module=module, argument=argument):
                return self.call(module, self.value(argument, values))
            case Negate(operand=operand):
                return self.flow.add(white(self.name("negate"), MINUS), (self.value(operand, values),)).name
            case Binary(operator=operator, left=left, right=right):
                return self.binary(operator, left, right, values)
        raise TypeError(f"not an expression of the wiring: {expr}")

    def binary(self, operator: str, left: Expr, right: Expr, values: dict[str, str]) -> str:
        """A sum or product; one with a number is a small box on the line."""
        for number, other in ((left, right), (right, left)):
            if _constant(number):
                sign = SIGNS[operator]
                node = white(self.name("scale"), f"{sign} {_written(number)}")
                return self.flow.add(node, (self.value(other, values),)).name
        sides = (self.value(left, values), self.value(right, values))
        return self.flow.add(circle(self.name("sum"), SIGNS[operator]), sides).name

    def call(self, module: str, source: str) -> str:
        """The node of a part; dropout is not drawn."""
        part = self.block.part(module)
        if part is None:
            return source
        name = self.name(module) if module in self.flow.nodes else module
        inputs = [source]
        if "memory" in part.arguments:
            inputs.append(self.flow.add(bare(self.name("memory"), "memory")).name)
        return self.flow.add(self.node(name, part), inputs).name

    def node(self, name: str, part: Component) -> Node:
        """The box of a part."""
        if part.role in ("norm", "scale"):
            title = spelled(str(getattr(part, "kind", part.title)))
            return box(name, title, (), NORM, 9, least=92)
        kind = self.kinds.of.get(id(part))
        title = part.title.partition(",")[0] if kind is None or not kind.title else kind.title
        found = box(name, title, (_size(part),), kind.tone if kind else NORM, 11, least=110)
        found.h += 12
        return found

    def name(self, stem: str) -> str:
        """A new name."""
        return f"{stem}#{next(self.numbers)}"


def _constant(expr: Expr) -> bool:
    return isinstance(expr, Number) or (isinstance(expr, Negate) and _constant(expr.operand))


def _written(expr: Expr) -> str:
    """A constant with four significant digits."""
    if isinstance(expr, Negate):
        return f"-{_written(expr.operand)}"
    return f"{expr.value:.4g}" if isinstance(expr, Number) else text(expr)


def _size(part: Component) -> str:
    ops = part.ops()
    total = params(ops)
    active = sum(p.count * p.active[0] // p.active[1] for op in ops for p in op.params if not p.buffer)
    if any(isinstance(op, Experts) for op in ops):
        return f"{amount(total)} {DOT} {amount(active)} active"
    return f"{amount(total)} params" if total else "no parameters"


def _mark_rails(flow: Flow) -> None:
    """Lines into a sum from something that its other input also comes from are residual paths."""
    above: dict[str, set[str]] = {}
    for name in flow.nodes:
        sources = [e.source for e in flow.into(name)]
        above[name] = set(sources).union(*(above[s] for s in sources))
    for name, node in flow.nodes.items():
        edges = flow.into(name)
        if node.form != "circle" or len(edges) != 2:
            continue
        for edge, other in (edges, edges[::-1]):
            if edge.source in above[other.source]:
                flow.replace(edge, Edge(edge.source, name, edge.order, "residual"))
                break
