"""Mixtures of experts: who computes a token, and the computing."""

from dataclasses import dataclass

from archspec.formulas.functions import least
from archspec.layers.ops.op import Op
from archspec.layers.tensors import Run


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Route(Op):
    """Picks `top_k` of `n_experts` for each token, or with `by_expert` tokens for each expert, by the router's scores.

    `score` is the function that makes them of the logits; `rules` say in words what else the choice heeds.
    """

    n_experts: int
    top_k: int
    score: str
    by_expert: bool = False
    rules: tuple[str, ...] = ()

    def arithmetic(self, run: Run) -> int:
        """Of each expert: exponential, sum, quotient and comparison."""
        return 4 * run.size(("B", "T")) * self.n_experts


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Experts(Op):
    """Feed-forward networks of which a token runs `top_k` of `n_experts`; each has `matrices` of d_model x d_ff.

    `activation` is that of their hidden units (of their gate, where there are three matrices), `scale` the factor of
    their weighted sum.
    """

    n_experts: int
    top_k: int
    d_model: int
    d_ff: int
    matrices: int
    activation: str
    scale: float = 1.0

    def flops(self, run: Run) -> int:
        """The chosen experts only."""
        return 2 * run.size(("B", "T")) * self.top_k * self.matrices * self.d_model * self.d_ff

    def arithmetic(self, run: Run) -> int:
        """Of a chosen expert: its activation, its gate where it has one, its weight and the sum over experts."""
        hidden, gated = self.d_ff, self.matrices > 2
        return run.size(("B", "T")) * self.top_k * (hidden * (2 if gated else 1) + 2 * self.d_model)

    def weights_read(self, run: Run) -> int:
        """Those of the experts that are called: at most one more for each choice of a token."""
        each = self.matrices * self.d_model * self.d_ff
        return least(self.n_experts, run.size(("B", "T")) * self.top_k) * each
