"""The texts around the layers of a stack: its input, embedding and norm, its heads, and what comes out."""

from archspec.diagram.boxes import counted, params
from archspec.diagram.style import GREY
from archspec.diagram.text import Line, shorten, styled
from archspec.diagram.words import by, shape_text, spelled, times, to
from archspec.layers.base import Component, EmbeddingComponent, HeadComponent, NormComponent
from archspec.layers.ops import SCALE, SOFTCAP, Conv, Elementwise, Embedding, Linear, Op

SUB_WIDTH = 200.0  # points after which a grey line is cut


def input_text(embedding: EmbeddingComponent) -> str:
    """What a stack reads, and its shape."""
    return f"{embedding.reads} {shape_text(embedding.input_shape)}"


def output_text(head: HeadComponent, gives: str) -> str:
    """What a head gives, in words, and its shape."""
    return f"{gives} {shape_text(head.ops()[-1].shape)}"


def embedding_lines(embedding: EmbeddingComponent, tied: str | None) -> tuple[Line, ...]:
    """The box of an embedding; `tied` is the stack whose table it shares."""
    ops = embedding.ops()
    table = next((op for op in ops if isinstance(op, Embedding)), None) if embedding.table else None
    total = params(ops) - (params(table) if table is not None and tied else 0)
    subs = [
        counted(_size(table, ops), total),
        *(f"rows {times(f, embedding.table_width)}" for f in _constants(ops, SCALE)),
        *(op.label for op in ops if isinstance(op, Elementwise) and op.label),
        f"shared with the {tied}" if tied else "",
        _with(embedding),
    ]
    return _lines(embedding.title, [shorten(s, 8, SUB_WIDTH) for s in subs])


def _size(table: Embedding | None, ops: tuple[Op, ...]) -> str:
    """Rows and width of a table, or height, width and channels of a patch."""
    if table is not None:
        return by(table.rows, table.dim)
    conv = next((op for op in ops if isinstance(op, Conv)), None)
    if conv is None:
        return ""
    _, channels, *sides = conv.params[0].shape
    return f"patches of {by(*sides, channels)}"


def _with(embedding: EmbeddingComponent) -> str:
    """What is added to a table's rows, in words."""
    words = [part.title if isinstance(part, NormComponent) else _positions(part) for part in embedding.children()]
    words += [spelled(name) for name in embedding.arguments if name == "token_types"]
    words += [spelled(name) for name in embedding.ids]
    return f"with {', '.join(words)}" if words else ""


def _positions(part: Component) -> str:
    return f"{part.title.lower()} positions"


def head_lines(head: HeadComponent) -> tuple[Line, ...]:
    """The box of a head; nothing for one that computes nothing."""
    ops = head.ops()
    last = next((op for op in reversed(ops) if isinstance(op, Linear)), None)
    if last is None:
        return ()
    facts = [f"logits {times(f)}" for f in _constants(ops, SCALE)]
    facts += [f"soft-cap {f:.4g}" for f in _constants(ops, SOFTCAP)]
    tied = "tied to the token embedding" if head.tied_shape is not None else ""
    return _lines(head.title, [counted(to(last.d_in, last.d_out), params(ops)), tied, ", ".join(facts)])


def _constants(ops: tuple[Op, ...], fn: str) -> list[float]:
    return [op.constant for op in ops if isinstance(op, Elementwise) and op.fn == fn and op.constant is not None]


def _lines(title: str, subs: list[str]) -> tuple[Line, ...]:
    return (Line(title, 10, True), *styled([s for s in subs if s], 8, GREY))


def norm_lines(norm: NormComponent) -> tuple[Line, ...]:
    """The box of a final norm."""
    return (Line(norm.title, 9.5, True),)
