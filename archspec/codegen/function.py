"""The text of a function of the lowered program: a class whose forward is its statements."""

from typing import Any

import libcst as cst
import libcst.matchers as m

from archspec.codegen.between import running
from archspec.codegen.expression import Takes, printed
from archspec.codegen.heads import loss_method
from archspec.codegen.layout import WIDTH
from archspec.codegen.lines import fitted, header, indented, listed, signature
from archspec.codegen.prose import forward_docstring, remark, summary
from archspec.codegen.sources import PLAIN, code, definition
from archspec.codegen.writer import Writer
from archspec.language.depth import as_python, needs_math
from archspec.language.model import Block, Spec, Stack
from archspec.layers.base import Component, HeadComponent
from archspec.lowering import Function
from archspec.lowering.program import (
    Apply,
    Assign,
    ByName,
    Call,
    Collect,
    Dropout,
    Each,
    Expression,
    Layers,
    Member,
    Once,
    Period,
    Scoped,
    Substate,
    walk,
)

UPDATE_BIAS = '''
    def update_bias(self, *collected: dict[str, Tensor], group: Any = None) -> None:
        """After a step of training: move every router's correction bias by the `aux` of its forward passes."""
        move_biases(self, collected, group)'''
AUX_LOSS = '''
    def aux_loss(self, aux: dict[str, Tensor], group: Any = None) -> Tensor:
        """The losses of the routers in a pass that was given `aux`; `group`: the processes that share the batch."""
        return router_loss(aux, group)'''
APPLY = '''
    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Model":
        """Tied tensors stay one, also when `to_empty` makes others of them."""
        super()._apply(fn, recurse)
{ties}
        return self'''
LOAD = '''
    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Tied tensors stay one, also when `load_state_dict(assign=True)` takes others for them."""
{ties}
        super()._load_from_state_dict(state_dict, prefix, *args)'''
COLLECT, BALANCE, STATE = "archspec.kernels.collect", "archspec.kernels.moe.balance", "archspec.kernels.state"


class FunctionText:
    """Writes a function and, before it, every function and layer that it calls, into a `Writer`."""

    def __init__(self, writer: Writer):
        self.writer = writer
        writer.need("torch", "nn")
        writer.need("torch", "Tensor")

    def write(self, function: Function) -> str:
        """The class of a function; returns its name. Equal blocks are one class."""
        name = self.name(function)
        if name not in self.writer.parts:
            self.writer.parts[name] = "\n".join(self.lines(function, name))
        return name

    def name(self, function: Function) -> str:
        """What the class of a function is called."""
        match function.of:
            case Stack(name=name):
                return self.writer.stack_names[name]
            case Block() as block:
                return self.writer.names[block]
        return "Model"

    def lines(self, function: Function, name: str) -> list[str]:
        """The lines of the class."""
        members = [line for member in function.members for line in self.member(member, function.stack)]
        width = width_of(self.writer, function.stack)
        takes = self.takes(function)
        body = [line for statement in function.statements for line in self.statement(statement, width, takes)]
        self.need(function)
        return [
            f"class {name}(nn.Module):",
            f'    """{summary(function)}"""',
            "",
            f"    def __init__(self{', layer: int' if function.numbered else ''}) -> None:",
            "        super().__init__()",
            *(f"        {line}" for line in [*members, *self.factors(function), *self.start(function)]),
            "",
            *(["    @atomic"] if self.is_atomic(function) else []),
            *header("forward", signature(function, self.collected(function)), returned(function)),
            *forward_docstring(self.writer, function, width),
            *body,
            *fitted(f"return {', '.join([printed(function.result, takes), *function.gives])}"),
            *self.ties(function),
            *self.methods(function),
        ]

    # __init__

    def member(self, member: Member, stack: Stack) -> list[str]:
        """The lines that make a member."""
        match member.made:
            case Function() as function:
                return [f"self.{member.name} = {self.write(function)}()"]
            case Dropout(rate=rate):
                return [f"self.{member.name} = nn.Dropout({rate!r})"]
            case Layers() as layers:
                return self.layers(member.name, layers)
            case HeadComponent() as head:
                return [f"self.{member.name} = {self.writer.layer(head.untied)}()"]
            case Component() as c:
                given = [] if member.width is None else [width_of(self.writer, stack)]
                given += ["layer"] if c.numbered else []
                return [f"self.{member.name} = {self.writer.layer(c)}({', '.join(given)})"]

    def layers(self, name: str, layers: Layers) -> list[str]:
        """The lines that make the layers, repeats folded."""
        made = [self.period(period) for period in layers.periods]
        if len(made) == 1:
            line = f"self.{name} = nn.ModuleList({' '.join(made[0])})"
            return [line] if len(line) + 8 <= WIDTH else [f"self.{name} = nn.ModuleList(", *indented(made[0]), ")"]
        lines = []
        for pieces in made:
            star = "*{}" if pieces[0].startswith("[") else "*({})"
            line = star.format(" ".join(pieces)) + ","
            short = len(line) + 16 <= WIDTH
            lines += [line] if short else ["*(", *indented(pieces), "),"]
        return [f"self.{name} = nn.ModuleList(", *indented(["[", *indented(lines), "]"]), ")"]

    def period(self, period: Period) -> list[str]:
        """One period and its repeats as an expression, in pieces that may stand on lines of their own."""
        calls = [self.layer(period, i) for i in range(len(period.layers))]
        if period.repeat == 1:
            return listed("[", calls, "]")
        if period.shared:
            return listed("[", calls, f"] * {period.repeat}")
        start, step, n = period.start, len(calls), period.n_layers
        numbers = [str(start), str(start + n)] if start or step > 1 else [str(n)]
        numbers += [str(step)] if step > 1 else []
        numbered = any(layer.numbered for layer in period.layers)
        each = f"for i in range({', '.join(numbers)})" if numbered else f"for _ in range({period.repeat})"
        return [calls[0], each] if step == 1 else ["block", each, *listed("for block in (", calls, ")")]

    def layer(self, period: Period, at: int) -> str:
        """One layer of a period made: with its number, where it asks for that."""
        layer = period.layers[at]
        if not layer.numbered:
            return f"{self.write(layer)}()"
        repeated = f"i + {at}" if at else "i"
        return f"{self.write(layer)}({period.start + at if period.repeat == 1 else repeated})"

    def factors(self, function: Function) -> list[str]:
        """The lines that work out numbers that differ from layer to layer."""
        if needs_math(factor.text for factor in function.per_layer):
            self.writer.need("math", "")
        return [f"self.{factor.name} = {as_python(factor.text)}" for factor in function.per_layer]

    def start(self, function: Function) -> list[str]:
        """The lines that tie tensors and start the weights."""
        if not isinstance(function.of, Spec):
            return []
        self.writer.function(function.of.init, "init_weights")
        return [
            *(f"self.{replaced} = self.{used}  # tied" for replaced, used in function.of.ties),
            "init_weights(self)",
        ]

    # forward

    def takes(self, function: Function) -> Takes:
        """What the forward of each member that is a component takes in this file."""
        made = {m.name: m.made.untied if isinstance(m.made, HeadComponent) else m.made for m in function.members}
        components = {name: c for name, c in made.items() if isinstance(c, Component)}
        return {name: self.writer.takes[c] for name, c in components.items() if c in self.writer.takes}

    def statement(self, statement: Assign | Each, width: str, takes: Takes) -> list[str]:
        """The lines of a statement."""
        if self.is_left_out(statement):
            return []
        if isinstance(statement, Assign):
            return fitted(f"{statement.target} = {printed(statement.value, takes)}{remark(statement.shape, width)}")
        if statement.runs:
            return [line for run in statement.runs for line in running(statement, run)]
        x, member = statement.target, statement.member
        given = ", ".join([x, *(f"{name}={printed(value)}" for name, value in statement.named)])
        numbered = any(isinstance(value, Substate | Scoped) for _, value in statement.named)
        each = f"for i, block in enumerate(self.{member}):" if numbered else f"for block in self.{member}:"
        return [f"        {each}", f"            {x} = block({given})"]

    def need(self, function: Function) -> None:
        """Import what the body of forward names."""
        parts = [part for value in self.expressions(function) for part in walk(value)]
        found = {type(part) for part in parts}
        takes_state = any(p.of == "state" for p in function.parameters)
        names = {"State": takes_state, "substate": Substate in found, "once": Once in found}
        names["atomic"] = self.is_atomic(function)
        for name in (name for name, needed in names.items() if needed):
            self.writer.need("archspec.kernels.state", name)
        layout = {part.function for part in parts if isinstance(part, Apply)}
        layout |= {"by_document" for part in parts if isinstance(part, Call) and part.by_rows}
        layout |= {"Rows"} if any(p.of == "rows" for p in function.parameters) else set()
        for name in sorted(layout):
            self.writer.need("archspec.kernels.padding", name)
        for name, needed in {"collect": Collect in found, "scope": Scoped in found}.items():
            if needed:
                self.writer.need(COLLECT, name)

    def collected(self, function: Function) -> str:
        """The type of what a function collects in: of a model, the dict of its caller."""
        if not any(p.of == "aux" for p in function.parameters):
            return ""
        if not isinstance(function.of, Spec):
            return self.writer.need(COLLECT, "Scope")
        if self.writer.form != "plain":
            return "dict[str, Tensor]"
        self.writer.need("typing", "Any")
        return "dict[str, Any]"

    def expressions(self, function: Function) -> list[Expression]:
        """Every expression that the forward of a function evaluates in this file."""
        found: list[Expression] = [function.result]
        for statement in function.statements:
            if isinstance(statement, Each):
                found += [value for _, value in statement.named]
            elif not self.is_left_out(statement):
                found.append(statement.value)
        return found

    def is_left_out(self, statement: Assign | Each) -> bool:
        """Whether a plain file does without a statement: it checks nothing, and layers collect in the caller's dict."""
        if self.writer.form != "plain" or isinstance(statement, Each):
            return False
        return statement.checks or isinstance(statement.value, Collect)

    def is_atomic(self, function: Function) -> bool:
        """Whether a call that fails leaves the state as it was: that of a whole model, but in a plain file."""
        takes_state = any(p.of == "state" for p in function.parameters)
        return takes_state and isinstance(function.of, Spec) and self.writer.form != "plain"

    def ties(self, function: Function) -> list[str]:
        """The methods that keep the tied tensors of a model one tensor."""
        if not isinstance(function.of, Spec) or not function.of.ties:
            return []
        self.writer.need("collections.abc", "Callable")
        self.writer.need("typing", "Any")
        again = [line for pair in function.of.ties for line in fitted("self.{} = self.{}".format(*pair))]
        loaded = [line for names in function.of.tied for line in self.loaded(names)]
        return [APPLY.format(ties="\n".join(again)), LOAD.format(ties="\n".join(loaded))]

    def loaded(self, names: tuple[str, ...]) -> list[str]:
        """The lines that give tied tensors one parameter of a checkpoint."""
        tied = ", ".join(f'"{name}"' for name in names)
        short = f"        names = [prefix + name for name in ({tied})]"
        return [
            *([short] if len(short) <= WIDTH else [*fitted(f"tied = ({tied})"), short.replace(f"({tied})", "tied")]),
            "        if names[0] in state_dict:",
            "            state_dict.update(dict.fromkeys(names, nn.Parameter(state_dict[names[0]])))",
        ]

    def methods(self, function: Function) -> list[str]:
        """What a model has beside forward."""
        if not isinstance(function.of, Spec):
            return []
        spec = function.of
        own = loss_method(self.writer, spec) if spec.by_name else []
        if self.writer.form == "plain":
            losses = own + (self.method("aux_loss", loss_of(spec)) if spec.aux_losses else [])
            return losses + (self.method("update_bias", "update_biases") if spec.moves_biases else [])
        found = [*own]
        if spec.aux_losses:
            self.writer.need(BALANCE, "router_loss")
            found.append(AUX_LOSS)
        if spec.moves_biases:
            self.writer.need(BALANCE, "move_biases")
            found.append(UPDATE_BIAS)
        if len(found) > len(own):
            self.writer.need("typing", "Any")
        return found

    def method(self, name: str, made: str) -> list[str]:
        """The lines of a method of a plain file's model: a plain function, whose first parameter is the model."""
        module = f"{PLAIN}.balance"
        node: Any = self.writer.require(definition(module, made), module, {made})
        node = m.replace(node.with_changes(name=cst.Name(name)), m.Name("model"), cst.Name("self"))
        text = code(node.with_deep_changes(node.params.params[0], annotation=None).with_changes(leading_lines=[]))
        return ["", *indented(text.strip().splitlines())]


def returned(function: Function) -> str:
    """The type of what a function returns."""
    if function.gives:
        return f"tuple[{', '.join(['Tensor'] * (1 + len(function.gives)))}]"
    return "dict[str, Tensor]" if isinstance(function.result, ByName) else "Tensor"


def loss_of(spec: Spec) -> str:
    """The plain function that sums what the routers of a spec lose."""
    losses = {(stack.name, pool) for stack in spec.stacks for part in stack.parts for pool in part.loss_pools}
    n_pools = sum(pool is not None for _, pool in losses)
    return "sum_of_losses" if not n_pools else "pooled_loss" if len(losses) == 1 else "mixed_losses"


def width_of(writer: Writer, stack: Stack) -> str:
    """The width of a stack as the file calls it."""
    for c in (*stack.parts, stack.embedding):
        if "d_model" in type(c).model_fields:
            return writer.constant(c, "d_model", stack.d_model) or str(stack.d_model)
    return str(stack.d_model)
