"""What generated files say in words: docstrings of the model, its stacks and its blocks."""

from archspec.codegen.writer import Writer
from archspec.errors import many
from archspec.language.model import Block, Head, Spec, Stack
from archspec.language.streams import named
from archspec.layers.arguments import argument
from archspec.layers.ops import Shape
from archspec.lowering import Function

LONGEST_SUMMARY = 106  # characters that a docstring of a class may have
INPUTS = {"tokens": "ids"}  # what numbers of an input are, where they are no measurements


def summary(function: Function) -> str:
    """One line about what a function computes, as the docstring of its class."""
    match function.of:
        case Spec() as spec:
            reads = " and ".join(a.name.replace("_", " ") for a in spec.arguments if not a.optional)
            return f"{reads.capitalize()} in, {_out(spec, len(reads))}."
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
    streams = ", ".join(named(function.stack.streams))
    return [f'        """{streams} (B, T, {width}) -> (B, T, {width})."""']


def _model_docstring(writer: Writer, spec: Spec) -> list[str]:
    stacks = {s.name: s for s in spec.stacks}
    needed = [_input(stacks[a.stack], a.name) for a in spec.arguments if not a.optional]
    notes = [argument(a.of).meaning.format(a.name) for a in spec.arguments if a.optional]
    answers = {head: _sizes(writer, head, head.component.ops()[-1].shape) for head in spec.heads}
    if spec.by_name:
        notes = [f'"{head.name}" {shape}: {spec.gives(head)}' for head, shape in answers.items()] + notes
    first = f"{', '.join(needed)} -> {'answers by name' if spec.by_name else answers[spec.heads[0]]}"
    if not notes:
        return [f'        """{first}."""']
    return [f'        """{first}.', "", *(f"        {n[0].upper() + n[1:]}." for n in notes), '        """']


def _input(stack: Stack, name: str) -> str:
    """An input of the model with its shape: `tokens (B, T) ids`."""
    embedding = stack.embedding
    shape = ", ".join(d if isinstance(d, str) else str(d) for d in embedding.input_shape)
    return f"{name} ({shape})" + (" ids" if embedding.n_ids is not None else "")


def _out(spec: Spec, taken: int) -> str:
    """What comes out, in words that fit into a line of which so many characters are taken."""
    if not spec.by_name:
        return f"{spec.gives(spec.heads[0])} out"
    said = f"out by name: {', '.join(f'{head.name} ({spec.gives(head)})' for head in spec.heads)}"
    return said if len(said) + taken + 6 < LONGEST_SUMMARY else f"answers of {len(spec.heads)} heads out by name"


def _sizes(writer: Writer, head: Head, shape: Shape) -> str:
    """A shape, its sizes by the names of constants of the head, where the file has them."""
    c = head.component.untied
    known = {writer.constants.peek(c, f): getattr(c, f) for f in type(c).model_fields}
    names = {value: name for name, value in known.items() if name in writer.constants.used and name != "D_MODEL"}
    said = [names.get(d, str(d)) if isinstance(d, int) else d for d in shape]
    return f"({', '.join(said)})"


def remark(shape: Shape | None, width: str) -> str:
    """The comment behind a statement: the shape of what it gives."""
    if shape is None:
        return ""
    return f"  # ({', '.join(width if isinstance(d, int) and d > 1 else str(d) for d in shape)})"
