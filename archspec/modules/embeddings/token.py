"""Token embedding, as a module. What it computes is said in `archspec.layers.embeddings.token`."""

import torch.nn.functional as F
from torch import Tensor, nn

from archspec.kernels.inputs import check_channels, check_ids
from archspec.kernels.state import State, advance
from archspec.layers.embeddings.token import TokenEmbedding as Config
from archspec.modules import submodule
from archspec.modules.projection import linear


class TokenEmbedding(nn.Module):
    """Rows of a table, with what is added to them before the first layer."""

    def __init__(self, c: Config):
        super().__init__()
        self.c = c
        if c.d_factor is None:
            self.token = nn.Embedding(c.vocab_size, c.d_model)
        else:
            self.token = nn.Embedding(c.vocab_size, c.d_factor)
        if c.position is not None:
            self.position = submodule(c.position)
        if c.token_types is not None:
            self.token_type = nn.Embedding(c.token_types, c.d_model if c.d_factor is None else c.d_factor)
        if c.channels:
            self.channels = nn.ModuleDict(
                {name: nn.Embedding(n, c.d_model if c.d_factor is None else c.d_factor) for name, n in c.channels}
            )
        if c.norm is not None:
            self.norm = submodule(c.norm, c.d_model if c.d_factor is None else c.d_factor)
        if c.d_factor is not None:
            self.project = linear(c, "project", c.d_factor, c.d_model, bias=c.factor_bias)

    def forward(
        self,
        tokens: Tensor,
        state: State | None = None,
        positions: Tensor | None = None,
        token_types: Tensor | None = None,
        channels: dict[str, Tensor | None] | None = None,
    ) -> Tensor:
        """tokens (B, T) -> (B, T, d_model)."""
        c = self.c
        if not c.plain:
            check_ids("tokens", tokens, c.vocab_size)
        if c.token_types is not None and not c.plain and token_types is not None:
            check_ids("token_types", token_types, c.token_types, tokens)
        if c.channels and not c.plain and channels is not None:
            check_channels(channels, self.channels, tokens)
        if c.d_factor is None:
            x = self.token(tokens)  # (B, T, d_model)
        else:
            x = self.token(tokens)  # (B, T, d_factor)
        if c.scale != 1:
            x = x * c.scale
        if c.token_types is not None:
            # Without segments (B, T), all tokens are of segment 0.
            x = x + (self.token_type.weight[0] if token_types is None else self.token_type(token_types))
        if c.channels:
            for name, table in self.channels.items():
                # Without ids (B, T) of a channel, all tokens are of its first row.
                ids = None if channels is None else channels[name]
                x = x + (table.get_parameter("weight")[0] if ids is None else table(ids))
        if c.position is not None:
            x = x + self.position(x, advance(state, tokens.shape[1]), positions=positions if c.counted else None)
        if c.norm is not None:
            x = self.norm(x)
        if c.dropout:
            x = F.dropout(x, c.dropout, self.training)
        if c.d_factor is not None:
            x = self.project(x)  # (B, T, d_model)
        return x
