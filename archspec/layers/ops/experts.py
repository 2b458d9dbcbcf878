"""Mixtures of experts: who computes a token, and the computing."""

from dataclasses import dataclass

from archspec.formulas.functions import ceil_div, least
from archspec.layers.ops.op import Op
from archspec.layers.ops.pointwise_memory import activated
from archspec.layers.tensors import How, Run, Saved, Shape


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Route(Op):
    """Picks `top_k` of `n_experts` for each token, or with `by_expert` tokens for each expert, by the router's scores.

    `score` is the function that makes them of the logits, of those of the chosen alone with `scores_last`; weights are
    divided by their sum (`renormalise`) and multiplied by `scale`. An expert takes tokens of each sequence, or with
    `over_batch` of all. `rules` say in words what else the choice heeds.
    """

    n_experts: int
    top_k: int
    score: str
    by_expert: bool = False
    rules: tuple[str, ...] = ()
    scores_last: bool = False
    renormalise: bool = False
    scale: float = 1.0
    over_batch: bool = False

    def arithmetic(self, run: Run) -> int:
        """Of each expert: exponential, sum, quotient and comparison."""
        return 4 * run.size(("B", "T")) * self.n_experts

    def gives(self, run: Run, how: How) -> Saved:
        """The weights."""
        if self.scores_last and not self.renormalise and self.scale == 1.0:
            return self._chosen
        return Saved("", (slots(run, self),), "float32")

    def saved(self, run: Run, how: How) -> tuple[Saved, ...]:
        """Scores, the numbers of what is chosen, and where weights are divided by their sum both."""
        every: Shape = ("B", "T", self.n_experts)
        logits = Saved(self.inputs[0], every, "float32")
        scores = (self._chosen, logits) if self.scores_last else (Saved("scores", every, "float32"),)
        kept = (*scores, Saved("chosen", (slots(run, self),), "int64"))
        return (*kept, self._chosen, Saved("sum", ("B", "T", 1), "float32")) if self.renormalise else kept

    @property
    def _chosen(self) -> Saved:
        return Saved("weights", ("B", "T", self.top_k), "float32")


def slots(run: Run, route: "Route | Experts") -> int:
    """Rows that all experts compute: `top_k` of each token; or as many of each expert, rounded up."""
    if not route.by_expert:
        return run.size(("B", "T")) * route.top_k
    rows, tokens = (1, run.size(("B", "T"))) if route.over_batch else (run.B, run.T)
    return rows * route.n_experts * ceil_div(route.top_k * tokens, route.n_experts)


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
    by_expert: bool = False
    over_batch: bool = False

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

    def saved(self, run: Run, how: How) -> tuple[Saved, ...]:
        """The rows of each product, sorted by expert, and where they came from."""
        n = slots(run, self)
        hidden: Shape = (n, self.d_ff)
        rows = (Saved("rows", (n, self.d_model), "model"), Saved("ends", (self.n_experts,), "int64"))
        given = (Saved("hidden", hidden, "model"), Saved("results", (n, self.d_model), "model"), Saved(self.inputs[1]))
        added = (Saved("of tokens", (n,), "int64"), Saved("weighted", (n, self.d_model), "model"))
        return (*self._order(run, how, n), *rows, *self._activated(hidden), *given, *(added if self.by_expert else ()))

    def _activated(self, hidden: Shape) -> tuple[Saved, ...]:
        if self.matrices < 3:
            return activated(self.activation, "up", "hidden", hidden)
        result = "gate" if self.activation == "identity" else "act"
        factors = (Saved(result, hidden, "model"), Saved("up", hidden, "model"))
        return (*activated(self.activation, "gate", "act", hidden), *factors)

    def _order(self, run: Run, how: How, n: int) -> tuple[Saved, ...]:
        """By which rows go to experts and come back: through operators in 16 bits and on a GPU, else PyTorch's own."""
        places = Saved("places", (n,), "int64")
        if how.width < 4 or not how.on_cpu:
            given = Saved("picked", (n, self.d_model), "model") if self.by_expert else Saved(self.inputs[0])
            return (given, Saved("order", (n,), "int64"), places)
        bags = n if self.by_expert else run.size(("B", "T"))
        own = (Saved(name, (bags,), "int64") for name in ("offsets", "sizes of bags", "greatest"))
        return (Saved("tokens", (n,), "int64"), places, *own)
