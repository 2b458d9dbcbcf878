"""What stands for an op in a flow: a sign, or a box with a bold name, and shapes and counts in grey below it."""

from collections.abc import Iterable

from archspec.diagram.flow import Node, box, white
from archspec.diagram.grid import MOST, grid_size
from archspec.diagram.style import GREY, MOE, NORM, Tone
from archspec.diagram.text import Line, wrap
from archspec.diagram.words import DOT, GATED, MINUS, TIMES, amount, by, spelled, times, to
from archspec.errors import many
from archspec.layers.ops import (
    ADD,
    MULTIPLY,
    SUBTRACT,
    Attend,
    Conv,
    Elementwise,
    Embedding,
    Experts,
    FFTConv,
    Linear,
    Norm,
    Op,
    Recurrent,
    Route,
    Scan,
)

SIGNS = {ADD: "+", SUBTRACT: MINUS, MULTIPLY: TIMES}
SUB_WIDTH = 150.0  # points after which a grey line is broken
BIAS = "bias"  # what an attention calls a table of biases that its stack gives it
RULES = 3  # of a router that are written into its box


def params(op: Op | Iterable[Op]) -> int:
    """Parameters of one or several ops."""
    ops = (op,) if isinstance(op, Op) else op
    return sum(p.numel for o in ops for p in o.params if not p.buffer)


def counted(text: str, n: int) -> str:
    """A text with a number of parameters after it."""
    return f"{text} {DOT} {amount(n)}" if n and text else amount(n) if n else text


def sign(op: Op, inputs: int) -> str:
    """The sign of an op that is drawn as a circle, or nothing."""
    if not isinstance(op, Elementwise) or op.params or inputs not in (2, 3):
        return ""
    return SIGNS.get(op.fn, "")


def op_box(op: Op, hue: Tone, readers: int) -> Node:
    """The box of an op that so many others read."""
    split = isinstance(op, Route) or (len(op.outputs) > 1 and readers > 1)
    found = _titled(op, hue, split)
    found.key = isinstance(op, Attend | Scan | FFTConv | Recurrent | Experts)
    found.split = split
    return found


def _titled(op: Op, hue: Tone, split: bool) -> Node:
    match op:
        case Linear():
            return _linear(op, hue, split)
        case Norm():
            return box(op.name, op.label or spelled(op.name), (), NORM, 9)
        case Conv():
            return _conv(op, hue)
        case Attend():
            return _attend(op, hue)
        case Scan() | Recurrent():
            return _recurrence(op, hue)
        case FFTConv():
            return _main(op, "long convolution", ["by FFT, O(T log T)", *_own(op)], hue, 120)
        case Route():
            return _route(op)
        case Experts():
            return _experts(op)
        case Embedding():
            title = spelled(BIAS) if op.biases else op.name
            return box(op.name, title, [counted(by(op.rows, op.dim), params(op))], hue, 9)
        case Elementwise():
            return white(op.name, spelled(op.fn), _own(op), late=bool(op.inputs))
    return box(op.name, op.name, _own(op), hue, pen=1.6)


def _own(op: Op) -> list[str]:
    """The number of parameters, where there are any."""
    return [amount(params(op))] if op.params else []


def _main(op: Op, title: str, subs: Iterable[str], hue: Tone, least: float) -> Node:
    """A box for what a panel is about."""
    return box(op.name, title, subs, hue, 11, pen=1.8, least=least)


def _linear(op: Linear, hue: Tone, split: bool) -> Node:
    n = params(op)
    if op.heads is not None:
        return box(op.name, op.name, [by(op.heads, op.d_out // op.heads), *_own(op)], hue, least=64)
    widths = {width for _, width in op.outputs}
    even = split and len(op.outputs) == 2 and len(widths) == 1
    return box(op.name, op.name, [counted(to(op.d_in, by(2, *widths) if even else op.d_out), n)], hue)


def _conv(op: Conv, hue: Tone) -> Node:
    if op.d_in is not None:
        return box(op.name, "patch convolution", [counted(to(op.d_in, op.channels), params(op))], hue)
    return white(op.name, "causal conv1d", [f"depthwise, k = {op.taps}"])


def _attend(op: Attend, hue: Tone) -> Node:
    heads = f"{many(op.n_heads, 'head')} {TIMES} {op.qk_dim}"
    heads += "" if op.qk_dim == op.v_dim else f" (values {op.v_dim})"
    facts = [f"window {op.window}{' and global tokens' if op.global_tokens else ''}"] if op.window else []
    facts += [spelled(op.bias)] if op.bias and len(op.inputs) == 3 else []  # others come in over a line
    facts += [f"soft-cap {op.softcap:.4g}"] if op.softcap else []
    facts += ["sinks"] if op.sinks else []
    return _main(op, op.label or op.name, [heads, *wrap(", ".join(facts), 8, SUB_WIDTH)], hue, 130)


def _recurrence(op: Scan | Recurrent, hue: Tone) -> Node:
    title = op.label or op.name
    if isinstance(op, Recurrent):
        return _main(op, title, [counted(to(op.d_in, op.width), params(op))], hue, 110)
    return _main(op, title, [f"{amount(params(op))} params"] if op.params else [], hue, 110)


def _route(op: Route) -> Node:
    who = "expert choice" if op.by_expert else f"top-{op.top_k}"
    rules = ([f"{op.top_k} of {op.n_experts} on average"] if op.by_expert else []) + [*op.rules]
    return white(op.name, f"{op.score}, {who}", [line for rule in rules[:RULES] for line in wrap(rule, 8, 105)])


def _experts(op: Experts) -> Node:
    gated = f"{GATED.get(op.activation, 'gated')} " if op.matrices == 3 else ""
    each = params(op) // op.n_experts
    drawn = f", {MOST} drawn" if op.n_experts > MOST else ""
    lines = (
        Line(f"{op.n_experts} {gated}experts", 11, True),
        Line(f"{to(op.d_model, op.d_ff, op.d_model)} {DOT} {amount(each)} each", 8, color=GREY),
        *([Line(f"gate weights {times(op.scale)}", 8, color=GREY)] if op.scale != 1 else []),
        Line(f"{op.top_k} of {op.n_experts} run for each token{drawn}", 8, color=GREY),
    )
    n = min(op.n_experts, MOST)
    w, h = grid_size(n, lines)
    return Node(op.name, "grid", lines, MOE, w=w, h=h, grid=(n, min(op.top_k, n)))
