"""Softmax attention."""

from dataclasses import dataclass

from archspec.formulas.functions import greatest, half, least
from archspec.layers.ops.op import Op
from archspec.layers.tensors import How, Run


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Attend(Op):
    """Softmax attention: scores from `qk_dim` channels, a mean of `v_dim` channels, `n_heads` times.

    Its first three inputs are queries, keys and values, of which there are `n_kv_heads`. FLOPs are those of all pairs
    of a query and a key that is kept, as counters have it; `mask` and `window` say how many of them matter. `bias` is
    what is added to the scores ("alibi", "t5").
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

    def flops(self, run: Run) -> int:
        """Scores and weighted mean over all pairs."""
        return 2 * self.pairs(run) * self.n_heads * (self.qk_dim + self.v_dim)

    def backward_flops(self, run: Run, how: How) -> int:
        """Gradients of weights, values, queries and keys; the scores again where they are not kept (flash)."""
        again = self.qk_dim if self.recomputes(run, how) else 0
        return 2 * self.pairs(run) * self.n_heads * (2 * self.qk_dim + 2 * self.v_dim + again)

    def arithmetic(self, run: Run) -> int:
        """Of a score: scale, maximum, difference, exponential and sum; its bias and its cap."""
        return self.pairs(run) * self.n_heads * (5 + bool(self.bias) + 2 * (self.softcap is not None))

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

    def flops(self, run: Run) -> int:
        """Scores and weighted mean over the T x S rectangle, in the form that runs."""
        width = self.qk_dim + self.v_dim if run.S == run.T else 2 * self.latent + self.rope
        return 2 * self.pairs(run) * self.n_heads * width
