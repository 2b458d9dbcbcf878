"""The text of what holds the layers together: blocks from their wiring, stacks, and the model itself."""

import libcst as cst

from archspec.codegen.layout import code
from archspec.codegen.layout import fitted as fold
from archspec.codegen.writer import Writer
from archspec.layers.base import Component, NormComponent
from archspec.spec.model import Block, Segment, Spec, Stack
from archspec.spec.wiring import Binary, Call, Expr, Name, Negate, text

KINDS = {
    "state": "State | None",
    "mask": "Tensor | None",
    "memory": "Tensor | None",
    "memory_mask": "Tensor | None",
    "bias": "Tensor | None",
    "prefix_len": "int | Tensor | None",
    "token_types": "Tensor | None",
}
MEANING = {
    "mask": "`{}` (B, T) is True for real tokens",
    "prefix_len": "`{}` tokens are seen by all",
    "token_types": "`{}` (B, T) numbers the segment of each token",
    "state": "`{}` is read and brought up to date: a dict, empty at the start of a sequence",
}
GIVES = {
    "lm": "logits of the next token",
    "masked_lm": "logits of every token",
    "classification": "class scores",
    "regression": "predictions",
    "none": "hidden states",
}
INPUT_SHAPES = {"tokens": "(B, T) ids", "images": "(B, C, H, W)", "features": "(B, T, d_input)"}
WIDTH = 120


def signature(inputs: tuple[str, ...], first: str = "x: Tensor") -> str:
    """`self, x: Tensor, state: State | None = None`."""
    return ", ".join(["self", first, *(f"{i}: {KINDS[i]} = None" for i in inputs)])


def indented(lines: list[str]) -> list[str]:
    """Lines one level further to the right."""
    return [f"    {line}" for line in lines]


def listed(opening: str, items: list[str], closing: str) -> list[str]:
    """Items on one line, or one a line when that would be too long."""
    line = f"{opening}{', '.join(items)}{closing}"
    return [line] if len(line) + 24 <= WIDTH else [opening, *(f"    {i}," for i in items), closing]


class Structure:
    """Writes blocks, stacks and the model into a `Writer`."""

    def __init__(self, writer: Writer):
        self.writer, self.spec = writer, writer.spec
        writer.need("torch", "nn")
        writer.need("torch", "Tensor")

    def state(self) -> None:
        """Import what handling decoding state needs."""
        self.writer.need("archspec.kernels.state", "State")
        self.writer.need("archspec.kernels.state", "substate")

    def d_model(self, c: Component | None, width: int) -> str:
        """The width of the residual stream as the file calls it."""
        for use in [c] if c is not None else []:
            if getattr(use, "d_model", None) == width:
                return self.writer.constant(use, "d_model", width) or str(width)
        return str(width)

    # Blocks

    def block(self, block: Block, stack: Stack) -> str:
        """The class of a block; returns its name."""
        name = self.writer.names[block]
        if name in self.writer.parts:
            return name
        width = self.width(stack)
        lines = [f"class {name}(nn.Module):", f'    """{self.summary(block)}"""', "", "    def __init__(self) -> None:"]
        lines.append("        super().__init__()")
        for part_name, part in block.parts:
            made = self.writer.layer(part)
            lines.append(f"        self.{part_name} = {made}({width if isinstance(part, NormComponent) else ''})")
        if "dropout" in block.wiring.calls():
            lines.append(f"        self.dropout = nn.Dropout({block.dropout!r})")
        if "state" in stack.inputs:
            self.state()
        lines += ["", *self.header("forward", signature(stack.inputs))]
        lines.append(f'        """x (B, T, {width}) -> (B, T, {width})."""')
        for i, step in enumerate(block.wiring.steps):
            value = self.expression(step.value, block)
            is_last = i == len(block.wiring.steps) - 1
            lines += self.fitted("return " + value if is_last else f"{step.target} = {value}")
        self.writer.parts[name] = "\n".join(lines)
        return name

    def width(self, stack: Stack) -> str:
        """The width of a stack as the file calls it."""
        parts = [p for s in stack.segments for la in s.layers for _, p in la.block.parts]
        for c in [*parts, stack.embedding]:
            if getattr(c, "d_model", None) == stack.d_model:
                return self.writer.constant(c, "d_model", stack.d_model) or str(stack.d_model)
        return str(stack.d_model)

    def summary(self, block: Block) -> str:
        """What a block computes, as its docstring."""
        said = "; ".join(block.wiring.lines())
        return said + "." if len(said) < WIDTH - 14 else "One residual block."

    def header(self, name: str, arguments: str, returns: str = "Tensor") -> list[str]:
        """The `def` line, folded when it is too long."""
        line = f"    def {name}({arguments}) -> {returns}:"
        if len(line) <= WIDTH:
            return [line]
        if len(arguments) + 8 <= WIDTH:
            return [f"    def {name}(", f"        {arguments}", f"    ) -> {returns}:"]
        return [f"    def {name}(", *(f"        {a}," for a in arguments.split(", ")), f"    ) -> {returns}:"]

    def fitted(self, statement: str) -> list[str]:
        """A statement in the body of a method; parentheses fold a long one."""
        bare = statement.partition("  # ")[0]
        for said in (statement, bare):
            if len(said) + 8 <= WIDTH:
                return ["        " + said]
        parsed = cst.parse_statement(bare)
        assert isinstance(parsed, cst.SimpleStatementLine)
        folded = code(fold(parsed, 8)).rstrip("\n").splitlines()
        if len(folded) > 1 and all(len(line) + 8 <= WIDTH for line in folded):
            return ["        " + line for line in folded]
        head, _, value = (
            statement.partition(" = ") if not statement.startswith("return ") else ("return", "", statement[7:])
        )
        opening = f"{head} = (" if head != "return" else "return ("
        pieces = value.split(" + ")
        return [
            f"        {opening}",
            f"            {pieces[0]}",
            *(f"            + {p}" for p in pieces[1:]),
            "        )",
        ]

    def expression(self, expr: Expr, block: Block) -> str:
        """An expression of the wiring as Python."""
        match expr:
            case Call(module=module, argument=argument):
                part = block.part(module)
                extra = [f"{i}={self.passed(i, module)}" for i in (part.inputs if part is not None else ())]
                return f"self.{module}({', '.join([self.expression(argument, block), *extra])})"
            case Binary(operator=operator, left=left, right=right):
                a, b = self.operand(left, block, operator), self.operand(right, block, operator, right_side=True)
                return f"{a} {operator} {b}"
            case Negate(operand=operand):
                return f"-{self.operand(operand, block, '*')}"
            case Name(name=name):
                return name
        return text(expr)

    def operand(self, expr: Expr, block: Block, operator: str, right_side: bool = False) -> str:
        """One side of an operation, in parentheses where Python needs them."""
        said = self.expression(expr, block)
        looser = (
            isinstance(expr, Binary) and expr.operator in "+-" and (operator == "*" or (operator == "-" and right_side))
        )
        return f"({said})" if looser or (isinstance(expr, Binary) and right_side and operator != "*") else said

    def passed(self, name: str, module: str) -> str:
        """What a part is given for one of its inputs."""
        return f'substate(state, "{module}")' if name == "state" else name

    # Stacks

    def members(self, stack: Stack) -> list[str]:
        """The lines of `__init__` that make the embedding, the layers and the final norm."""
        lines = [f"self.embedding = {self.writer.layer(stack.embedding)}()"]
        if stack.position_bias is not None:
            lines.append(f"self.position_bias = {self.writer.layer(stack.position_bias)}()")
        lines += self.blocks(stack)
        if stack.final_norm is not None:
            lines.append(f"self.norm = {self.writer.layer(stack.final_norm)}({self.width(stack)})")
        return lines

    def blocks(self, stack: Stack) -> list[str]:
        """The lines that make the layers, repeats folded."""
        made = [self.segment(s, stack) for s in stack.segments]
        if len(made) == 1:
            line = f"self.blocks = nn.ModuleList({' '.join(made[0])})"
            return [line] if len(line) + 8 <= WIDTH else ["self.blocks = nn.ModuleList(", *indented(made[0]), ")"]
        lines = []
        for pieces in made:
            star = "*{}" if pieces[0].startswith("[") else "*({})"
            line = star.format(" ".join(pieces)) + ","
            short = len(line) + 16 <= WIDTH
            lines += [line] if short else ["*(", *indented(pieces), "),"]
        return ["self.blocks = nn.ModuleList(", *indented(["[", *indented(lines), "]"]), ")"]

    def segment(self, segment: Segment, stack: Stack) -> list[str]:
        """One period and its repeats as an expression, in pieces that may stand on lines of their own."""
        calls = [f"{self.block(layer.block, stack)}()" for layer in segment.layers]
        if segment.repeat == 1:
            return listed("[", calls, "]")
        if segment.shared:
            return listed("[", calls, f"] * {segment.repeat}")
        if len(calls) == 1:
            return [calls[0], f"for _ in range({segment.repeat})"]
        return ["block", f"for _ in range({segment.repeat})", *listed("for block in (", calls, ")")]

    def run(self, stack: Stack, x: str, inputs: dict[str, str]) -> list[str]:
        """The lines of `forward` from the stack's input to its output `x`; `inputs` says what arguments are called."""
        takes = [
            f"{i}={inputs[i]}" if i != "state" else 'state=substate(state, "embedding")'
            for i in stack.embedding.inputs
            if i != "state" or stack.has_state
        ]
        lines = [f"x = self.embedding({', '.join([x, *takes])})  # (B, T, {self.width(stack)})"]
        inputs = dict(inputs)
        if stack.position_bias is not None:
            if "state" in stack.inputs:
                self.writer.need("archspec.kernels.state", "advance")
                lines += ["start = advance(state, x.shape[1])"]
                lines += ["bias = self.position_bias(x.shape[1], start + x.shape[1])  # (1, H, T, S)"]
            else:
                lines += ["bias = self.position_bias(x.shape[1], x.shape[1])  # (1, H, T, T)"]
            inputs["bias"] = "bias"
        if stack.has_state:
            self.state()
        passed = [f"{i}={inputs[i]}" if i != "state" else "state=substate(state, i)" for i in stack.inputs]
        each = "for i, block in enumerate(self.blocks):" if "state" in stack.inputs else "for block in self.blocks:"
        lines += [each, f"    x = block({', '.join(['x', *passed])})"]
        return lines

    def stack(self, stack: Stack) -> str:
        """The class of one of several stacks; returns its name."""
        name = stack.name.title().replace("_", "")
        members = self.members(stack)
        reads = str(getattr(stack.embedding, "reads", "tokens"))
        inputs = self.stack_inputs(stack)
        run = self.run(stack, reads, {i: i for i in inputs})
        final = "self.norm(x)" if stack.final_norm is not None else "x"
        lines = [f"class {name}(nn.Module):", f'    """{stack.n_layers} layers over {reads}."""', ""]
        lines += [
            "    def __init__(self) -> None:",
            "        super().__init__()",
            *(f"        {m}" for m in members),
            "",
        ]
        lines += self.header("forward", signature(inputs, f"{reads}: Tensor"))
        lines += [f'        """{reads} {INPUT_SHAPES.get(reads, "")} -> (B, T, {self.width(stack)})."""']
        lines += [*(f"        {line}" for line in run), f"        return {final}"]
        self.writer.parts[name] = "\n".join(lines)
        return name

    def stack_inputs(self, stack: Stack) -> tuple[str, ...]:
        """What the forward of a stack of its own takes after its input."""
        own = [i for i in stack.inputs if i != "bias"]
        if stack.has_state and "state" not in own:
            own.insert(0, "state")
        return (*own, *(i for i in stack.embedding.inputs if i != "state"))

    # The model

    def model(self) -> None:
        """The class of the whole model."""
        spec = self.spec
        single = len(spec.stacks) == 1
        members = self.members(spec.main) if single else self.stacks()
        head = self.writer.layer(spec.head)
        kind = str(getattr(spec.head, "kind", ""))
        self.writer.function(spec.init, "init_weights")
        members += [f"self.head = {head}()"]
        members += [f"self.{replaced} = self.{used}  # tied" for replaced, used in spec.ties]
        members += ["init_weights(self)"]
        run, x = self.single_run() if single else self.several_run()
        lines = [
            "class Model(nn.Module):",
            f'    """{self.model_summary(kind)}"""',
            "",
            "    def __init__(self) -> None:",
        ]
        lines += ["        super().__init__()", *(f"        {m}" for m in members), ""]
        arguments = ["self"] + [
            f"{a.name}: {KINDS[a.of]} = None" if a.optional else f"{a.name}: Tensor" for a in spec.arguments
        ]
        lines += self.header("forward", ", ".join(arguments))
        lines += self.model_docstring()
        own = {a.of: a.name for a in spec.arguments if a.stack == spec.main.name}
        given = ", ".join([x, *(f"{i}={own[i]}" for i in spec.head.inputs)])
        lines += [*(f"        {line}" for line in run), f"        return self.head({given})"]
        if spec.aux_losses:
            lines += self.aux_loss()
        self.writer.parts["Model"] = "\n".join(lines)

    def stacks(self) -> list[str]:
        """The lines that make several stacks."""
        return [f"self.{stack.name} = {self.stack(stack)}()" for stack in self.spec.stacks]

    def single_run(self) -> tuple[list[str], str]:
        """The body of forward for one stack, and what the head reads."""
        arguments = self.spec.arguments
        run = self.run(self.spec.main, arguments[0].name, {a.of: a.name for a in arguments[1:]})
        return run, "self.norm(x)" if self.spec.main.final_norm is not None else "x"

    def several_run(self) -> tuple[list[str], str]:
        """The body of forward for several stacks: the earlier ones run once for a sequence."""
        lines = []
        for stack in self.spec.stacks:
            call = f"self.{stack.name}({', '.join(self.stack_arguments(stack))})"
            if stack is self.spec.main:
                lines += [line[8:] for line in self.fitted(f"x = {call}  # (B, T, {self.width(stack)})")]
            elif self.spec.arguments[-1].of == "state":
                self.writer.need("archspec.kernels.state", "once")
                remembered = f'{stack.name} = once(state, "{stack.name}_output", lambda: {call})'
                lines += [line[8:] for line in self.fitted(remembered)]
            else:
                lines += [line[8:] for line in self.fitted(f"{stack.name} = {call}  # (B, T, {self.width(stack)})")]
        return lines, "x"

    def stack_arguments(self, stack: Stack) -> list[str]:
        """What a stack is called with."""
        first = next(a for a in self.spec.arguments if a.stack == stack.name)
        given = {a.of: a.name for a in self.spec.arguments if a.stack == stack.name}
        given |= {"memory": stack.memory or "", "memory_mask": f"{stack.memory}_mask"}
        given |= {"state": f'substate(state, "{stack.name}")'}
        return [first.name, *(f"{i}={given[i]}" for i in self.stack_inputs(stack))]

    def model_summary(self, kind: str) -> str:
        """One line about the model."""
        reads = " and ".join(a.name.replace("_", " ") for a in self.spec.arguments if not a.optional)
        return f"{reads.capitalize()} in, {GIVES.get(kind, 'its output')} out."

    def model_docstring(self) -> list[str]:
        """What forward takes and gives."""
        needed = [f"{a.name} {INPUT_SHAPES.get(a.of, '')}".strip() for a in self.spec.arguments if not a.optional]
        notes = [MEANING[a.of].format(a.name) for a in self.spec.arguments if a.optional]
        ops = self.spec.head.ops()
        shape = ", ".join(map(self.dimension, ops[-1].shape if ops else ("B", "T", self.spec.main.d_model)))
        first = f"{', '.join(needed)} -> ({shape})"
        if not notes:
            return [f'        """{first}."""']
        return [f'        """{first}.', "", *(f"        {n[0].upper() + n[1:]}." for n in notes), '        """']

    def dimension(self, d: int | str) -> str:
        """A size of the output by its name, where the file has one."""
        known = {
            v: n for n, (v, _) in self.writer.constants.used.items() if n in ("VOCAB_SIZE", "N_CLASSES", "N_OUTPUTS")
        }
        return known.get(d, str(d)) if isinstance(d, int) else d

    def aux_loss(self) -> list[str]:
        """The method that adds up the routers' losses."""
        self.writer.need("torch", "")
        return [
            "",
            "    def aux_loss(self) -> Tensor:",
            '        """The sum of the routers\' losses of the last forward pass in training, to add to the loss."""',
            '        found = [m.aux_loss for m in self.modules() if isinstance(getattr(m, "aux_loss", None), Tensor)]',
            "        return torch.stack(found).sum() if found else torch.zeros(())",
        ]


def write(spec: Spec, writer: Writer) -> None:
    """Every class of the model into the writer."""
    Structure(writer).model()
