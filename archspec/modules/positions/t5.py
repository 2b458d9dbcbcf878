"""T5's relative position bias, as a module. What it computes is said in `archspec.layers.positions.t5`."""

from torch import Tensor, nn

from archspec.kernels.attention.position_bias import place_distances, t5_buckets
from archspec.kernels.state import State, advance
from archspec.layers.positions.t5 import T5Bias as Config


class T5Bias(nn.Module):
    """A learned bias for each bucket of distances and each head."""

    def __init__(self, c: Config):
        super().__init__()
        self.c = c
        self.table = nn.Embedding(c.n_buckets, c.n_heads)

    def forward(
        self,
        x: Tensor,
        state: State | None = None,
        mask: Tensor | None = None,
        places: Tensor | None = None,
        total: int = 0,
        distances: Tensor | None = None,
    ) -> Tensor:
        """The biases (1, n_heads, T, S) of the tokens x (B, T, .) on all S that are seen."""
        c = self.c
        T = x.shape[1]
        if c.shared:
            S = advance(state, T) + T
        else:
            S = total
        if c.placed and c.shared and places is not None:
            distances = place_distances(places, state, mask=mask if c.padded else None)
        if c.placed and distances is not None:
            # Those of each row, (B, T, S), give biases (B, n_heads, T, S).
            buckets = t5_buckets(T, S, c.n_buckets, c.max_distance, c.bidirectional, distance=distances)
            return self.table(buckets).permute(0, 3, 1, 2)
        buckets = t5_buckets(T, S, c.n_buckets, c.max_distance, c.bidirectional, self.table.weight.device)  # (T, S)
        return self.table(buckets).permute(2, 0, 1).unsqueeze(0)  # (1, n_heads, T, S)
