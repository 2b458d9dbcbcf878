"""The text of the model: its stacks, its head, and what `forward` takes."""

from archspec.codegen.lines import INPUT_SHAPES, KINDS, fitted, header
from archspec.codegen.stack import StackText
from archspec.codegen.writer import Writer
from archspec.language.model import Stack

MEANING = {
    "mask": "`{}` (B, T) is True for real tokens",
    "prefix_len": "the first `{}` tokens are seen by all; while decoding, the first call must hold them all",
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


class ModelText:
    """Writes the model of a spec, and everything below it, into a `Writer`."""

    def __init__(self, writer: Writer):
        self.writer, self.spec, self.text = writer, writer.spec, StackText(writer)
        writer.need("torch", "nn")
        writer.need("torch", "Tensor")

    def write(self) -> None:
        """The class of the whole model."""
        spec = self.spec
        single = len(spec.stacks) == 1
        members = self.text.members(spec.main) if single else self.stacks()
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
        lines += header("forward", ", ".join(arguments))
        lines += self.model_docstring()
        own = {a.of: a.name for a in spec.arguments if a.stack == spec.main.name}
        given = ", ".join([x, *(f"{i}={own[i]}" for i in spec.head.arguments)])
        lines += [*(f"        {line}" for line in run), f"        return self.head({given})"]
        if spec.aux_losses:
            lines += self.aux_loss()
        if spec.moves_biases:
            lines += self.update_bias()
        self.writer.parts["Model"] = "\n".join(lines)

    def stacks(self) -> list[str]:
        """The lines that make several stacks."""
        return [f"self.{stack.name} = {self.text.write(stack)}()" for stack in self.spec.stacks]

    def single_run(self) -> tuple[list[str], str]:
        """The body of forward for one stack, and what the head reads."""
        arguments = self.spec.arguments
        run = self.text.run(self.spec.main, arguments[0].name, {a.of: a.name for a in arguments[1:]})
        return run, "self.norm(x)" if self.spec.main.final_norm is not None else "x"

    def several_run(self) -> tuple[list[str], str]:
        """The body of forward for several stacks: the earlier ones run once for a sequence."""
        lines = []
        for stack in self.spec.stacks:
            call = f"self.{stack.name}({', '.join(self.stack_arguments(stack))})"
            if stack is self.spec.main:
                lines += [line[8:] for line in fitted(f"x = {call}  # (B, T, {self.text.width(stack)})")]
            elif self.spec.arguments[-1].of == "state":
                self.writer.need("archspec.kernels.state", "once")
                remembered = f'{stack.name} = once(state, "{stack.name}_output", lambda: {call})'
                lines += [line[8:] for line in fitted(remembered)]
            else:
                lines += [line[8:] for line in fitted(f"{stack.name} = {call}  # (B, T, {self.text.width(stack)})")]
        return lines, "x"

    def stack_arguments(self, stack: Stack) -> list[str]:
        """What a stack is called with."""
        first = next(a for a in self.spec.arguments if a.stack == stack.name)
        given = {a.of: a.name for a in self.spec.arguments if a.stack == stack.name}
        given |= {"memory": stack.memory or "", "memory_mask": f"{stack.memory}_mask"}
        given |= {"state": f'substate(state, "{stack.name}")'}
        return [first.name, *(f"{i}={given[i]}" for i in self.text.takes(stack))]

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

    def update_bias(self) -> list[str]:
        """The method that moves the routers' correction biases."""
        return [
            "",
            "    def update_bias(self) -> None:",
            '        """Move every router\'s correction bias against its load: call once after each training step."""',
            "        for module in self.modules():",
            '            if hasattr(module, "correction_bias"):',
            "                module.update_bias()",
        ]

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
