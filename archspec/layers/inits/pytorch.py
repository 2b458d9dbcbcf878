"""PyTorch's own init: linear layers uniform within fan_in^-0.5, weights and biases; tables N(0, 1).

`embedding_std` and `residual_scale` change the tables and the projections that write to the residual stream, as Mamba's
code does: N(0, 0.02^2), and PyTorch's weights over sqrt(n_branches) with every bias at 0.

Sources: `reset_parameters` of `torch.nn.Linear` and `torch.nn.Embedding`; Gu and Dao 2023, the code of Mamba.
"""

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

from archspec.layers.fields import Positive, Size, field, inherited
from archspec.layers.starting import InitComponent


class PyTorchInit(InitComponent):
    """What `torch.nn` does by itself, or that with the changes of Mamba."""

    examples: ClassVar[tuple[dict[str, Any], ...]] = (
        {},
        {"embedding_std": 0.02, "residual_scale": "depth", "zero_bias": True},
    )

    kind: Literal["pytorch"] = "pytorch"
    n_branches: Size = inherited("residual branches of all layers: mixers, cross-attentions and feed-forward networks")
    embedding_std: Positive = field("standard deviation of the embedding tables", 1.0)
    residual_scale: Literal["none", "depth"] = field(
        "whether residual projections start smaller by sqrt(n_branches)", "none"
    )
    zero_bias: bool = field("whether biases of linear layers start at 0", False)

    def idle(self) -> Iterator[str]:
        """A depth factor without a branch or of 1, and what it would do to tensors that are not there."""
        if self.residual_scale == "depth" and not (self.names.residual or self.names.stacked_residual):
            yield "residual_scale has no effect: no projection writes to the residual stream"
        elif self.residual_scale == "depth" and self.n_branches == 1 and not self.names.branches:
            yield "residual_scale has no effect on one branch, whose factor is 1"
        if self.zero_bias and not self.names.linear_biases:
            yield "zero_bias has no effect: no linear layer has a bias"
        if self.embedding_std != 1 and not self.names.tables:
            yield "embedding_std has no effect: the model has no embedding table"
