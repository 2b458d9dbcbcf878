"""Every linear layer and table starts at N(0, std^2), or uniform with the same std, every bias at 0.

With `residual_scale: depth` the projections that write to the residual stream (o_proj, down_proj, out_proj) start at
std / sqrt(n_branches), so that the stream's variance does not grow with depth (two branches a layer for a mixer and a
feed-forward network, one for a mixer alone). Each of several stacks counts its own branches.

Sources: Radford et al. 2019, "GPT-2" (0.02 and the depth factor); Devlin et al. 2019, "BERT", and Dosovitskiy et al.
2021, "ViT" (truncated at two standard deviations).
"""

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

from archspec.layers.fields import Positive, Size, derived, field, inherited
from archspec.layers.starting import InitComponent


class NormalInit(InitComponent):
    """One standard deviation for all, optionally smaller where a block writes to the residual stream."""

    examples: ClassVar[tuple[dict[str, Any], ...]] = (
        {},
        {"residual_scale": "depth", "std": 0.1},
        {"truncated": True, "embedding_std": 1.0},
        {"distribution": "uniform", "std": 0.1},
    )

    kind: Literal["normal"] = "normal"
    n_branches: Size = inherited("residual branches of all layers: mixers, cross-attentions and feed-forward networks")
    std: Positive = field("standard deviation of the linear layers", 0.02)
    embedding_std: Positive = derived("standard deviation of the embedding tables", "std")
    residual_scale: Literal["none", "depth"] = field(
        "whether residual projections start smaller by sqrt(n_branches)", "none"
    )
    distribution: Literal["normal", "uniform"] = field("how weights are drawn; uniform within sqrt(3) std", "normal")
    truncated: bool = field("drawn again beyond two standard deviations", False, when=("distribution", "normal"))

    def idle(self) -> Iterator[str]:
        """A depth factor without a branch or of 1, and a deviation of tables that are not there."""
        if self.residual_scale == "depth" and not (self.names.residual or self.names.stacked_residual):
            yield "residual_scale has no effect: no projection writes to the residual stream"
        elif self.residual_scale == "depth" and self.n_branches == 1 and not self.names.branches:
            yield "residual_scale has no effect on one branch, whose factor is 1"
        if self.embedding_std != self.std and not self.names.tables:
            yield "embedding_std has no effect: the model has no embedding table"
