"""What stands in the box of an op: a bold name, and shapes and counts in grey below it."""

import math
from collections.abc import Iterable

from archspec.diagram.flow import PAD_X, PAD_Y, Node, box, white
from archspec.diagram.grid import MOST, grid_size
from archspec.diagram.style import GREY, MOE, NORM, Tone
from archspec.diagram.text import (
    ARROW,
    DOT,
    MINUS,
    SQUARED,
    TIMES,
    Line,
    amount,
    extent,
    size,
    wrap,
)
from archspec.layers.base import Component
from archspec.layers.ops import (
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

SPELLED = {
    "silu": "SiLU",
    "gelu": "GELU",
    "gelu_tanh": "GELU (tanh)",
    "relu": "ReLU",
    "relu2": f"ReLU{SQUARED}",
    "rope": "RoPE",
    "identity": "identity",
    "rmsnorm": "RMSNorm",
    "layernorm": "LayerNorm",
    "layer_scale": "LayerScale",
}
PRODUCTS = frozenset({"multiply", "gate", "product", "mul", "*"})
SUMS = frozenset({"add", "sum", "plus", "residual"})
SUB_WIDTH = 150.0  # points after which a grey line is broken


def spelled(name: str) -> str:
    """A function or norm as the field writes it."""
    return SPELLED.get(name, name)


def params(op: Op | Iterable[Op]) -> int:
    """Parameters of one or several ops."""
    ops = (op,) if isinstance(op, Op) else op
    return sum(p.count for o in ops for p in o.params if not p.buffer)


def counted(text: str, n: int) -> str:
    """A text with a number of parameters after it."""
    return f"{text} {DOT} {amount(n)}" if n and text else amount(n) if n else text


def factor(component: Component, field: str, width: int = 0) -> list[str]:
    """A factor other than 1 that a component has, as `x 0.25`; the root of `width` is written as one."""
    value = getattr(component, field, None)
    if not isinstance(value, int | float) or value == 1:
        return []
    root = width > 1 and math.isclose(value, math.sqrt(width), rel_tol=1e-4)
    return [f"{TIMES} sqrt({width})" if root else f"{TIMES} {value:.4g}"]


def operator(op: Op, inputs: int) -> str:
    """The sign of an op that is drawn as a circle, or nothing."""
    if not isinstance(op, Elementwise) or op.params or inputs not in (2, 3):
        return ""
    if op.fn in PRODUCTS or op.fn.endswith((" gate", " multiply")):
        return TIMES
    if op.fn in SUMS:
        return "+"
    return MINUS if op.fn == "subtract" else ""


def slices(op: Op, readers: int) -> list[str]:
    """The names of the tensors that a projection gives at once: its note `x, z`, when several ops read them."""
    names = [n.strip() for n in op.note.split(",")]
    short = len(names) > 1 and all(n and len(n) <= 8 and " " not in n for n in names)
    return names if isinstance(op, Linear) and readers > 1 and short else []


def op_node(op: Op, component: Component, hue: Tone, readers: int) -> Node:
    """The box of an op."""
    found = _op_node(op, component, hue, readers)
    found.key = isinstance(op, Attend | Scan | FFTConv | Recurrent | Experts)
    return found


def _op_node(op: Op, component: Component, hue: Tone, readers: int) -> Node:
    match op:
        case Linear():
            return _linear(op, hue, readers)
        case Norm():
            return box(op.name, spelled(op.kind), (), NORM, 9)
        case Conv():
            return _conv(op, hue)
        case Attend():
            return _attend(op, component, hue)
        case Scan():
            return _scan(op, component, hue)
        case FFTConv():
            subs = ["by FFT, O(T log T)", *([amount(params(op))] if op.params else [])]
            return box(op.name, "long convolution", subs, hue, 11, pen=1.8, least=120)
        case Recurrent():
            return _recurrent(op, component, hue)
        case Route():
            return _route(op)
        case Experts():
            return _experts(op, component)
        case Embedding():
            return box(op.name, op.name, [counted(f"{op.rows} {TIMES} {op.dim}", params(op))], hue, 9)
        case Elementwise():
            return white(op.name, spelled(op.fn), [amount(params(op))] if op.params else (), late=bool(op.inputs))
    return box(op.name, op.name, [amount(params(op))] if op.params else (), hue, pen=1.6)


def _linear(op: Linear, hue: Tone, readers: int) -> Node:
    heads = [d for d in op.shape if isinstance(d, int)]
    n = params(op)
    if len(op.shape) == 4 and len(heads) == 2:
        return box(op.name, op.name, [f"{heads[0]} {TIMES} {heads[1]}", *([amount(n)] if n else [])], hue, least=64)
    parts = len(slices(op, readers))
    even = parts == 2 and op.d_out % 2 == 0
    out = f"2 {TIMES} {op.d_out // 2}" if even else str(op.d_out)
    found = box(op.name, op.name, [counted(f"{op.d_in} {ARROW} {out}", n)], hue)
    found.split = parts > 1
    return found


def _conv(op: Conv, hue: Tone) -> Node:
    if op.d_in > 1:
        return box(op.name, "patch convolution", [counted(f"{op.d_in} {ARROW} {op.channels}", params(op))], hue)
    return white(op.name, "causal conv1d", [f"depthwise, k = {op.kernel}"])


def _attend(op: Attend, component: Component, hue: Tone) -> Node:
    title = op.note.partition(";")[0] or "softmax attention"
    heads = f"{op.n_heads} heads {TIMES} {op.qk_dim}"
    heads += "" if op.qk_dim == op.v_dim else f" (values {op.v_dim})"
    position = getattr(component, "position", None)
    kind = getattr(position, "kind", "")
    facts = [f"window {op.window}"] if op.window else []
    facts += ["ALiBi"] if getattr(position, "slopes", False) else []
    facts += [f"T5 bias {amount(params(op))}"] if kind == "t5" and params(op) else []
    facts += [f"soft-cap {component.softcap:.4g}"] if getattr(component, "softcap", None) else []  # type: ignore[attr-defined]
    facts += ["sinks"] if getattr(component, "sinks", False) else []
    subs = [heads, *wrap(", ".join(facts), 8, SUB_WIDTH)]
    return box(op.name, title, subs, hue, 11, pen=1.8, least=130)


def _scan(op: Scan, component: Component, hue: Tone) -> Node:
    clause = op.note.partition(";")[0].partition(",")[0].strip()
    title = clause if clause.endswith(("scan", "rule", "recurrence", "retention", "attention")) else ""
    title = title or f"{component.title.partition(',')[0]} scan"
    subs = [f"{amount(params(op))} params"] if op.params else []
    return box(op.name, title, subs, hue, 11, pen=1.8, least=110)


def _recurrent(op: Recurrent, component: Component, hue: Tone) -> Node:
    title = component.title.partition(",")[0]
    name = op.name.replace("_", " ")
    title = f"{title} {name if getattr(component, 'depth', 1) > 1 else name.removeprefix('l0').strip()}".strip()
    found = box(op.name, title, [counted(f"{op.d_in} {ARROW} {op.width}", params(op))], hue, 11, pen=1.8, least=110)
    return with_state(found, f"state {op.cache.fixed + op.cache.exact} numbers") if _keeps(op) else found


def _keeps(op: Op) -> bool:
    return bool(op.cache.fixed or op.cache.exact)


def with_line(node: Node, text: str) -> Node:
    """The node with one more grey line."""
    node.lines = (*node.lines, Line(text, 8, color=GREY))
    w, h = extent(node.lines)
    node.w, node.h = max(node.w, w + PAD_X), h + PAD_Y + 1
    return node


def with_state(node: Node, text: str) -> Node:
    """The node with a dashed box in it for what it keeps."""
    node.inset = (Line(text, 8, color=GREY),)
    w, h = extent(node.inset)
    _, own = extent(node.lines)
    node.w = max(node.w, w + 30)
    node.h = own + h + PAD_Y + 9
    return node


def _route(op: Route) -> Node:
    parts = [p.strip() for p in op.note.split(",")] if op.note else []
    score = next((p for p in parts if p in ("softmax", "sigmoid")), "")
    who = "expert choice" if "expert choice" in parts else f"top-{op.top_k}"
    title = ", ".join([*([score] if score else []), who])
    rest = [p for p in parts if p not in (score, who) and not p.startswith(f"top-{op.top_k} of")]
    subs = [line for part in rest[:3] for line in wrap(part.partition(" moved by")[0], 8, 105)]
    found = white(op.name, title, subs)
    found.split = True
    return found


def _experts(op: Experts, component: Component) -> Node:
    kind = "gated " if op.matrices == 3 else ""
    parts = [p.strip() for p in op.note.split(",")]
    name = {"silu": "SwiGLU ", "gelu": "GEGLU ", "gelu_tanh": "GEGLU "}.get(parts[1] if len(parts) > 1 else "", kind)
    each = params(op) // op.n_experts
    drawn = f", {MOST} drawn" if op.n_experts > MOST else ""
    lines = (
        Line(f"{op.n_experts} {name if op.matrices == 3 else ''}experts", 11, True),
        Line(f"{op.d_model} {ARROW} {op.d_ff} {ARROW} {op.d_model} {DOT} {amount(each)} each", 8, color=GREY),
        *(Line(f"gate weights {f}", 8, color=GREY) for f in factor(component, "routed_scale")),
        Line(f"{op.top_k} of {op.n_experts} run for each token{drawn}", 8, color=GREY),
    )
    n = min(op.n_experts, MOST)
    w, h = grid_size(n, lines)
    return Node(op.name, "grid", lines, MOE, w=w, h=h, grid=(n, min(op.top_k, n)))


def cache_text(op: Op) -> str:
    """What an attention keeps of a token, in a dashed box."""
    if op.cache.per_memory_token:
        return f"{size(2 * op.cache.per_memory_token)} per memory token"
    return f"{size(2 * op.cache.per_token)} per token"
