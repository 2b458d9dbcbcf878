"""The text of a stack: embedding, layers with their repeats folded, final norm, and the run through them."""

from archspec.codegen.block import need_state, width_of, write_block
from archspec.codegen.layout import WIDTH
from archspec.codegen.lines import INPUT_SHAPES, header, indented, listed, signature
from archspec.codegen.writer import Writer
from archspec.language.model import Segment, Stack


class StackText:
    """Writes one stack after another into a `Writer`."""

    def __init__(self, writer: Writer):
        self.writer = writer

    def width(self, stack: Stack) -> str:
        """The width of a stack as the file calls it."""
        return width_of(self.writer, stack)

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
        calls = [f"{write_block(self.writer, layer.block, stack)}()" for layer in segment.layers]
        if segment.repeat == 1:
            return listed("[", calls, "]")
        if segment.shared:
            return listed("[", calls, f"] * {segment.repeat}")
        if len(calls) == 1:
            return [calls[0], f"for _ in range({segment.repeat})"]
        return ["block", f"for _ in range({segment.repeat})", *listed("for block in (", calls, ")")]

    def run(self, stack: Stack, x: str, inputs: dict[str, str]) -> list[str]:
        """The lines of `forward` from the stack's input to its output `x`; `inputs` says what arguments are called."""
        decodes = self.writer.spec.decodes(stack)
        takes = [
            f"{i}={inputs[i]}" if i != "state" else 'state=substate(state, "embedding")'
            for i in stack.embedding.arguments
            if i != "state" or decodes
        ]
        lines = [f"x = self.embedding({', '.join([x, *takes])})  # (B, T, {self.width(stack)})"]
        inputs = dict(inputs)
        if stack.position_bias is not None:
            if decodes:
                self.writer.need("archspec.kernels.state", "advance")
                lines += ["start = advance(state, x.shape[1])"]
                lines += ["bias = self.position_bias(x.shape[1], start + x.shape[1])  # (1, H, T, S)"]
            else:
                lines += ["bias = self.position_bias(x.shape[1], x.shape[1])  # (1, H, T, T)"]
            inputs["bias"] = "bias"
        if decodes:
            need_state(self.writer)
        passed = [
            f"{i}={inputs[i]}" if i != "state" else "state=substate(state, i)"
            for i in stack.arguments
            if i != "state" or decodes
        ]
        each = "for i, block in enumerate(self.blocks):" if decodes else "for block in self.blocks:"
        lines += [each, f"    x = block({', '.join(['x', *passed])})"]
        return lines

    def write(self, stack: Stack) -> str:
        """The class of one of several stacks; returns its name."""
        name = self.writer.stack_names[stack.name]
        members = self.members(stack)
        reads = str(getattr(stack.embedding, "reads", "tokens"))
        inputs = self.takes(stack)
        run = self.run(stack, reads, {i: i for i in inputs})
        final = "self.norm(x)" if stack.final_norm is not None else "x"
        lines = [f"class {name}(nn.Module):", f'    """{stack.n_layers} layers over {reads}."""', ""]
        lines += [
            "    def __init__(self) -> None:",
            "        super().__init__()",
            *(f"        {m}" for m in members),
            "",
        ]
        lines += header("forward", signature(inputs, f"{reads}: Tensor"))
        lines += [f'        """{reads} {INPUT_SHAPES.get(reads, "")} -> (B, T, {self.width(stack)})."""']
        lines += [*(f"        {line}" for line in run), f"        return {final}"]
        self.writer.parts[name] = "\n".join(lines)
        return name

    def takes(self, stack: Stack) -> tuple[str, ...]:
        """What the forward of a stack of its own takes after its input."""
        decodes = self.writer.spec.decodes(stack)
        own = [i for i in stack.arguments if i != "bias" and (i != "state" or decodes)]
        return (*own, *(i for i in stack.embedding.arguments if i != "state"))
