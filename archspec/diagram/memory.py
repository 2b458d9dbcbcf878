"""What decoding keeps, in words: by one op, by one component, and by the whole model."""

from collections.abc import Iterable, Sequence

from archspec.diagram.style import GREY, INK
from archspec.diagram.text import Line
from archspec.diagram.words import byte_size
from archspec.errors import in_tokens
from archspec.graph import Node
from archspec.layers.ops import Attend, Kept, LatentAttend, Op
from archspec.passes.count import cache_bytes

GRADES = ("O(1)", "O(window)", "O(T)")  # what a decoded token costs a layer


def name_of_cache(ops: Iterable[Op]) -> str:
    """What the tokens that some ops keep are called."""
    keeping = [op for op in ops if op.kept]
    if any(isinstance(op, LatentAttend) for op in keeping):
        return "latent cache"
    return "KV cache" if any(isinstance(op, Attend) for op in keeping) else "cache"


def growing(kept: Iterable[Kept], along: str) -> int:
    """Bytes for each token along S or M."""
    return sum(k.width() * k.per_token() for k in kept if k.grows == along)


def fixed(kept: Iterable[Kept]) -> int:
    """Bytes that do not grow."""
    return sum(k.width() * k.fixed() for k in kept)


def cache_words(op: Op) -> str:
    """What an attention keeps of a token."""
    memory = growing(op.kept, "M")
    kept = f"{byte_size(memory)} per memory token" if memory else f"{byte_size(growing(op.kept, 'S'))} per token"
    limit = max((k.limit or 0 for k in op.kept), default=0)
    return f"{kept}, last {limit}" if limit else kept


def layer_words(ops: Sequence[Op]) -> list[str]:
    """What a component keeps: what grows with each token, what does not, and the most tokens."""
    every, name = [k for op in ops for k in op.kept], name_of_cache(ops)
    sizes = ((growing(every, along), token) for along, token in (("S", "token"), ("M", "memory token")))
    parts = [f"{name} {byte_size(n)} / {token} / layer" for n, token in sizes if n]
    own, common = (fixed(k for k in every if (k.batch_axis is None) == shared) for shared in (False, True))
    parts += [f"fixed state {byte_size(own)} / layer / sequence"] if own else []
    parts += [f"{byte_size(common)} / layer for all sequences"] if common else []
    limits = {k.limit for k in every if k.grows == "S"}
    most = max((limit or 0 for limit in limits), default=0)
    return [*parts, *([f"at most {in_tokens(most)}"] if most and None not in limits else [])]


def model_words(nodes: Sequence[Node], tokens: int | None) -> tuple[Line, ...]:
    """What one sequence keeps in these nodes after `tokens`: the part that grows, and the fixed part."""
    every = [(node.repeat, node.op.kept) for node in nodes]
    grows = sum(n * (growing(kept, "S") + growing(kept, "M")) for n, kept in every)
    stays = sum(n * fixed(kept) for n, kept in every)
    if not grows and not stays:
        return (Line("no cache, no state", 9, color=GREY),)
    parts = []
    if grows:
        most = grows if tokens is None else cache_bytes(nodes, tokens) - stays
        name = "KV " if any(isinstance(node.op, Attend) and node.op.kept for node in nodes) else ""
        parts.append(name + byte_size(most) + (" / token" if tokens is None else ""))
    parts += [f"state {byte_size(stays)}"] if stays else []
    where = "" if not grows else f"cache at T = {tokens}: " if tokens else "cache: "
    return (
        Line(where + "  +  ".join(parts), 9.5, color=INK),
        Line(_decoding(nodes), 8.5, color=GREY),
        Line(f"one sequence, 2 bytes a number{_wider(nodes)}", 8.5, color=GREY),
    )


def _wider(nodes: Iterable[Node]) -> str:
    """Which numbers take more than two bytes."""
    types = {k.dtype for node in nodes for k in node.op.kept}
    words = (("float32", ", recurrent states 4"), ("int64", ", counts 8"))
    return "".join(text for dtype, text in words if dtype in types)


def _decoding(nodes: Iterable[Node]) -> str:
    """On how many layers a decoded token costs more the more there are before it."""
    grades: dict[tuple[str, int, int], int] = {}
    repeat: dict[tuple[str, int, int], int] = {}
    for node in (n for n in nodes if n.segment >= 0):
        key = (node.stack, node.segment, node.layer)
        repeat[key] = node.repeat
        every = (*node.op.kept, *(node.op.shared if isinstance(node.op, Attend) else ()))
        own = (1 if k.limit is not None else 2 for k in every if k.grows == "S")
        grades[key] = max(grades.get(key, 0), *own, 0)
    totals = [sum(repeat[key] for key, g in grades.items() if g == grade) for grade in range(len(GRADES))]
    found = [(GRADES[grade], totals[grade]) for grade in (2, 1, 0) if totals[grade]]
    return "decode: " + ", ".join(f"{grade} on {n} layer{'s' if n != 1 else ''}" for grade, n in found)
