"""What generated files say in words: docstrings of the model, its stacks and its blocks."""

from archspec.codegen.writer import Writer
from archspec.errors import many
from archspec.language.model import Block, Spec, Stack
from archspec.layers.arguments import ARGUMENTS
from archspec.layers.ops import Shape
from archspec.lowering import Function

LONGEST_SUMMARY = 106  # characters that a docstring of a class may have
INPUTS = {"tokens": "ids"}  # what numbers of an input are, where they are no measurements


def summary(function: Function) -> str:
    """One line about what a function computes, as the docstring of its class."""
    match function.of:
        case Spec() as spec:
            reads = " and ".join(a.name.replace("_", " ") for a in spec.arguments if not a.optional)
            return f"{reads.capitalize()} in, {spec.head.gives(spec.main.looks_ahead)} out."
        case Stack() as stack:
            return f"{many(stack.n_layers, 'layer')} over {stack.embedding.reads}."
        case Block() as block:
            said = "; ".join(block.wiring.lines())
            return said + "." if len(said) < LONGEST_SUMMARY else "One residual block."


def forward_docstring(writer: Writer, function: Function, width: str) -> list[str]:
    """What the forward of a function takes and gives."""
    match function.of:
        case Spec() as spec:
            return _model_docstring(writer, spec)
        case Stack() as stack:
            return [f'        """{_input(stack, stack.embedding.reads)} -> (B, T, {width})."""']
    return [f'        """x (B, T, {width}) -> (B, T, {width})."""']


def _model_docstring(writer: Writer, spec: Spec) -> list[str]:
    stacks = {s.name: s for s in spec.stacks}
    needed = [_input(stacks[a.stack], a.name) for a in spec.arguments if not a.optional]
    notes = [ARGUMENTS[a.of].meaning.format(a.name) for a in spec.arguments if a.optional]
    shape = _sizes(writer, spec, spec.head.ops()[-1].shape)
    first = f"{', '.join(needed)} -> {shape}"
    if not notes:
        return [f'        """{first}."""']
    return [f'        """{first}.', "", *(f"        {n[0].upper() + n[1:]}." for n in notes), '        """']


def _input(stack: Stack, name: str) -> str:
    """An input of the model with its shape: `tokens (B, T) ids`."""
    embedding = stack.embedding
    shape = ", ".join(d if isinstance(d, str) else str(d) for d in embedding.input_shape)
    return f"{name} ({shape})" + (" ids" if embedding.n_ids is not None else "")


def _sizes(writer: Writer, spec: Spec, shape: Shape) -> str:
    """A shape, its sizes by the names of constants of the head, where the file has them."""
    known = {writer.constants.peek(spec.head, f): getattr(spec.head, f) for f in type(spec.head).model_fields}
    names = {value: name for name, value in known.items() if name in writer.constants.used and name != "D_MODEL"}
    said = [names.get(d, str(d)) if isinstance(d, int) else d for d in shape]
    return f"({', '.join(said)})"


def remark(shape: Shape | None, width: str) -> str:
    """The comment behind a statement: the shape of what it gives."""
    if shape is None:
        return ""
    return f"  # ({', '.join(width if isinstance(d, int) and d > 1 else str(d) for d in shape)})"
