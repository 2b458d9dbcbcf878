"""Softmax attention."""

from dataclasses import dataclass

from archspec.formulas.functions import greatest, half, least
from archspec.layers.ops.attention_memory import memory
from archspec.layers.ops.op import Op
from archspec.layers.tensors import How, Kept, Run, Saved


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Attend(Op):
    """Softmax attention: scores from `qk_dim` channels, a mean of `v_dim` channels, `n_heads` times.

    Its first three inputs are queries, keys and values, of which there are `n_kv_heads`. FLOPs are those of all pairs
    of a query and a key that is kept, as counters have it; `mask` and `window` say how many of them matter. `bias` is
    what is added to the scores ("alibi", "t5"). Its reader has the results of all heads `joined`, side by side. With
    `global_tokens` there are more visible pairs: how many is a matter of the text, so that they count as none.
    While decoding it also reads what is `shared` with it: what an earlier layer keeps.
    """

    n_heads: int
    n_kv_heads: int
    qk_dim: int
    v_dim: int
    mask: str
    keys: str = "S"
    window: int | None = None
    bias: str = ""
    softcap: float | None = None
    sinks: bool = False
    joined: bool = True
    global_tokens: bool = False
    shared: tuple[Kept, ...] = ()

    @property
    def proved(self) -> bool:
        """Not with global tokens, with which each row has a mask of its own."""
        return not self.global_tokens

    def flops(self, run: Run) -> int:
        """Scores and weighted mean over all pairs."""
        return 2 * self.pairs(run) * self.n_heads * (self.qk_dim + self.v_dim)

    def backward_flops(self, run: Run, how: How) -> int:
        """Gradients of weights, values, queries and keys; the scores again where they are not kept (flash)."""
        again = self.qk_dim if self.recomputes(run, how) else 0
        return 2 * self.pairs(run) * self.n_heads * (2 * self.qk_dim + 2 * self.v_dim + again)

    def needed_flops(self, run: Run) -> int:
        """Scores and weighted mean over the visible pairs."""
        return 2 * self.visible(run) * self.n_heads * (self.qk_dim + self.v_dim)

    def arithmetic(self, run: Run) -> int:
        """Of a score: scale, maximum, difference, exponential and sum; its bias and its cap."""
        return self.pairs(run) * self.n_heads * (5 + bool(self.bias) + 2 * (self.softcap is not None))

    def traffic(self, run: Run, how: How, given: int) -> tuple[int, int]:
        """Queries, keys, values, what is kept of them, and the result; eager also the scores, four times."""
        read, written = Op.traffic(self, run, how, given)
        read += sum(run.size(k.needed(run)) for k in self.shared) if run.decodes else 0
        scores = 2 * self.n_heads * self.pairs(run) if how.attention == "eager" else 0
        return read + scores, written + scores

    def pairs(self, run: Run) -> int:
        """Queries times the keys that are there; with a window, that many before the first query and no more."""
        if self.keys != "S" or self.window is None or self.mask == "bidirectional":
            return run.size(("B", "T", self.keys))
        return run.B * run.T * least(run.S, self.window - 1 + run.T)

    def visible(self, run: Run) -> int:
        """The pairs that matter: of a key at or before the query, in its window. Queries are the last of the keys."""
        S = run.size((self.keys,))
        if self.keys != "S" or self.mask not in ("causal", "bidirectional"):
            return run.B * run.T * S
        seen = S if self.window is None else least(self.window, S)
        if self.mask == "bidirectional":
            return run.B * run.T * S if self.window is None else run.B * (run.T * (2 * seen - 1) - seen * (seen - 1))
        missing = greatest(0, seen - 1 - (S - run.T))  # keys that the first query lacks, the next one fewer
        return run.B * (run.T * seen - half(missing * (missing + 1)))

    def gives(self, run: Run, how: How) -> Saved:
        """The result of all heads, in a copy where they do not lie side by side."""
        return memory(self, run, how)[1]

    def saved(self, run: Run, how: How) -> tuple[Saved, ...]:
        """As its form in these sizes has it."""
        return memory(self, run, how)[0]

    def operands(self) -> tuple[Saved, Saved, Saved]:
        """Queries, keys and values as its kernel is given them."""
        q, k, v = self.inputs[:3]
        return Saved(q), Saved(k), Saved(v)

    def laid(self, how: How) -> tuple[bool, ...]:
        """Of queries, keys and values whether the heads of a token lie side by side."""
        return how.scattered[:3]

    def recomputes(self, run: Run, how: How) -> bool:
        """Whether the backward pass computes the scores again instead of keeping them."""
        return how.attention == "flash"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class LatentAttend(Attend):
    """Attention over expanded keys, or, where earlier tokens are only there as latents, over the latents themselves.

    Then the products with the projection that expands them are as many as its own, once for each new token, so that
    op counts them. `latent` and `rope` are the widths of what is kept of a token; `latents` names the two ops that give
    them.
    """

    latent: int
    rope: int
    latents: tuple[str, str]

    def operands(self) -> tuple[Saved, Saved, Saved]:
        """Queries and keys put together of their two parts, and the values beside the keys."""
        queries = Saved("queries", ("B", self.n_heads, "T", self.qk_dim), "model")
        return queries, Saved("joined keys", ("B", self.n_heads, "T", self.qk_dim), "model"), Saved(self.inputs[2])

    def laid(self, how: How) -> tuple[bool, ...]:
        """What is put together is written head by head."""
        return (False, False, True)

    def flops(self, run: Run) -> int:
        """Scores and weighted mean over all pairs, in the form that runs."""
        return 2 * self.pairs(run) * self.n_heads * self._width(run) + self._expansion(run)

    def needed_flops(self, run: Run) -> int:
        """The same over the visible pairs."""
        return 2 * self.visible(run) * self.n_heads * self._width(run) + self._expansion(run)

    def traffic(self, run: Run, how: How, given: int) -> tuple[int, int]:
        """Also the keys and values that latents are expanded to, which are written and read."""
        read, written = Attend.traffic(self, run, how, given)
        width = self.n_heads * (self.qk_dim - self.rope + self.v_dim)
        expanded = run.B * run.S * width if run.decodes and run.expands else 0
        return read + expanded, written + expanded

    def _width(self, run: Run) -> int:
        expanded = run.S == run.T or run.expands
        return self.qk_dim + self.v_dim if expanded else 2 * self.latent + self.rope

    def _expansion(self, run: Run) -> int:
        """Bringing the latents of earlier tokens to keys and values again."""
        if run.S == run.T or not run.expands:
            return 0
        return 2 * run.B * (run.S - run.T) * self.latent * self.n_heads * (self.qk_dim - self.rope + self.v_dim)
