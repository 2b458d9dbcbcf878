"""What softmax attention keeps for its backward pass, in each form in which `kernels.attention.softmax` runs it.

The forms on a CPU: `plain` is PyTorch's operator over all keys or all up to the own position; `masked` the same with a
mask for every pair; `written` has the scores written out; `tiles` computes them again in the backward pass. Elsewhere
`flash` keeps output and log-sum-exp, `eager` the weights.
"""

from typing import TYPE_CHECKING, Literal

from archspec.formulas.functions import at_least
from archspec.kernels.thresholds import PAIRS_AT_ONCE, PAIRS_UNPADDED, PAIRS_WRITTEN_OUT
from archspec.layers.tensors import How, Run, Saved, Shape

if TYPE_CHECKING:
    from archspec.layers.ops.attention import Attend

Form = Literal["flash", "eager", "plain", "masked", "written", "tiles"]
Found = tuple[tuple[Saved, ...], Saved]  # what is kept, and what others read


def form(op: "Attend", run: Run, how: How) -> Form:
    """In which form it runs."""
    if not how.on_cpu:
        return "eager" if how.attention == "eager" else "flash"
    written = op.softcap is not None or op.sinks
    chooses = _window(op, run)
    causal = _causal(op, run)
    if not (written or chooses or op.bias):
        return "plain"
    learns = op.bias == "t5"
    limit = PAIRS_WRITTEN_OUT if written or learns else PAIRS_AT_ONCE
    no_mask = not (chooses or causal or op.bias or written)
    if not (_is_one(run.T) or no_mask) and at_least(run.size(("T", op.keys)), limit + 1):
        return "tiles"
    return "written" if written else "masked"


def memory(op: "Attend", run: Run, how: How) -> Found:
    """What an attention keeps, and where the result stands as its reader sees it."""
    kind = form(op, run, how)
    if kind in ("plain", "masked"):
        return _fused(op, run, how, kind == "plain")
    if kind == "written":
        return _written(op, run, how)
    return _eager(op) if kind == "eager" else _recomputed(op, run)


def _fused(op: "Attend", run: Run, how: How, plain: bool) -> Found:
    """PyTorch's fused operator: queries, keys, values, mask, output and log-sum-exp.

    It gives values as wide as keys (the narrower are filled up with zeros), laid out as its queries are.
    """
    group, width = op.n_heads // op.n_kv_heads, max(op.qk_dim, op.v_dim)
    if op.bias == "t5" or (op.qk_dim != op.v_dim and not at_least(run.size(("T", op.keys)) * group, PAIRS_UNPADDED)):
        return _math(op, run, how, plain)
    mixed = plain and not _causal(op, run) and group > 1  # the heads of a group as more queries of one
    scattered = op.laid(how)[0] and op.qk_dim == width and not mixed
    copied = mixed and op.laid(how)[0] and not _is_one(run.T)
    q, k, v = op.operands()
    kept = (
        _padded(q, ("B", op.n_heads, "T"), op.qk_dim, width, copied),
        _padded(k, ("B", op.n_kv_heads, op.keys), op.qk_dim, width),
        _padded(v, ("B", op.n_kv_heads, op.keys), op.v_dim, width),
        *(() if plain else (_mask(op),)),
        Saved("lse", ("B", op.n_heads, "T"), "float32"),
        Saved("out", ("B", op.n_heads, "T", width), "model"),
    )
    cut = op.v_dim < width
    return kept, _joined(op, kept[-1], cut or not (scattered or _is_one(run.T)))


def _joined(op: "Attend", out: Saved, apart: bool) -> Saved:
    """What is read of the result: a copy where the heads of a token do not lie side by side."""
    return Saved("", op.shape, "model") if op.joined and apart and op.n_heads > 1 else out


def _padded(given: Saved, rows: Shape, dim: int, width: int, copied: bool = False) -> Saved:
    """An operand, in a copy where zeros are added to its channels or it is laid out anew."""
    return given if dim == width and not copied else Saved(f"{given.tensor} copy", (*rows, width), "model")


def _mask(op: "Attend") -> Saved:
    """One number for each pair, and with slopes for each head."""
    return Saved("mask", (*((op.n_heads,) if op.bias else ()), "T", op.keys), "model")


def _math(op: "Attend", run: Run, how: How, plain: bool) -> Found:
    """PyTorch's operator where it is not fused: products in float32, keys and values repeated for a group's heads."""
    group = op.n_heads // op.n_kv_heads
    mixed = plain and not _causal(op, run) and group > 1
    repeated = group > 1 and not mixed
    heads = op.n_heads if repeated else op.n_kv_heads
    values = Saved("values", ("B", heads, op.keys, op.v_dim), "float32")
    hidden = (Saved("hidden", ("T", op.keys), "bool"),) if op.bias == "t5" and _hides(op, run) else ()
    kept = (
        *hidden,
        Saved("scaled", ("B", op.n_heads, "T", op.qk_dim), "float32"),
        Saved("keys", ("B", heads, op.keys, op.qk_dim), "float32"),
        Saved("softmax", ("B", op.n_heads, "T", op.keys), "float32"),
        values if repeated else _one_matrix_a_head(op, run, how, 2, values),
    )
    return kept, Saved("", op.shape, "model")


def _one_matrix_a_head(op: "Attend", run: Run, how: How, index: int, copy: Saved) -> Saved:
    """Keys or values as a product of matrices reads them: copied where those of a head do not lie side by side."""
    split = op.laid(how)[index] and at_least(run.B, 2) and op.n_kv_heads > 1 and not _is_one(run.size((op.keys,)))
    return copy if split else op.operands()[index]._replace(shape=copy.shape, dtype=copy.dtype)


def _written(op: "Attend", run: Run, how: How) -> Found:
    """Scores in float32; what sinks add to the softmax is one more number a query."""
    pairs: Shape = ("B", op.n_heads, "T", op.keys)
    hides = _hides(op, run)
    keys = Saved("keys", ("B", op.n_kv_heads, op.keys, op.qk_dim), "float32")
    values = Saved("values", ("B", op.n_kv_heads, op.keys, op.v_dim), "model")
    kept = (
        Saved("scaled", ("B", op.n_heads, "T", op.qk_dim), "float32"),
        _one_matrix_a_head(op, run, how, 1, keys),
        _one_matrix_a_head(op, run, how, 2, values),
        *((Saved("bent", pairs, "float32"),) if op.softcap is not None else ()),
        *(Saved(name, ("T", op.keys), "bool") for name in ("hidden", "hidden again") if hides),
        Saved("softmax", pairs, "float32"),
        *((Saved("softmax of sinks", (*pairs[:-1], 1), "float32"),) if op.sinks else ()),
        Saved("weights" if hides else "softmax", pairs, "model"),
    )
    return kept, Saved("", op.shape, "model")


def _eager(op: "Attend") -> Found:
    """The weights in float32, and in the type of the model; keys and values repeated for the heads of a group."""
    pairs: Shape = ("B", op.n_heads, "T", op.keys)
    q, k, v = op.operands()
    repeated = op.n_heads != op.n_kv_heads
    kept = (
        q,
        Saved("keys", ("B", op.n_heads, op.keys, op.qk_dim), "model") if repeated else k,
        Saved("values", ("B", op.n_heads, op.keys, op.v_dim), "model") if repeated else v,
        Saved("softmax", pairs, "float32"),
        Saved("softmax", pairs, "model"),
    )
    return kept, Saved("", op.shape, "model")


def _recomputed(op: "Attend", run: Run) -> Found:
    """Output and log-sum-exp, from which the scores are made again; the output is then laid out token by token."""
    bias = (Saved(i) for i in op.inputs[3:4])
    out = Saved("out", op.shape, "model")
    kept = (*op.operands(), *bias, Saved("lse", ("B", op.n_heads, "T"), "float32"), out)
    return kept, _joined(op, out, not _is_one(run.T))


def _hides(op: "Attend", run: Run) -> bool:
    """Whether any query does not see every key."""
    return _causal(op, run) or _window(op, run)


def _window(op: "Attend", run: Run) -> bool:
    """Whether a window hides any key."""
    if op.window is None:
        return False
    return at_least(run.T, op.window + 1) or at_least(run.size((op.keys,)), op.window + 1)


def _causal(op: "Attend", run: Run) -> bool:
    """Whether later keys are hidden from any query."""
    return op.mask in ("causal", "prefix") and (_window(op, run) or not _is_one(run.T))


def _is_one(a: int) -> bool:
    return not at_least(a, 2)
