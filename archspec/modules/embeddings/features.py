"""Feature embedding, as a module. What it computes is said in `archspec.layers.embeddings.features`."""

import torch.nn.functional as F
from torch import Tensor, nn

from archspec.kernels.inputs import check_features
from archspec.kernels.state import State, advance
from archspec.layers.embeddings.features import FeatureEmbedding as Config
from archspec.modules import submodule
from archspec.modules.projection import linear


class FeatureEmbedding(nn.Module):
    """A linear layer on continuous inputs."""

    def __init__(self, c: Config):
        super().__init__()
        self.c = c
        self.project = linear(c, "project", c.d_input, c.d_model, bias=c.bias)
        if c.position is not None:
            self.position = submodule(c.position)
        if c.norm is not None:
            self.norm = submodule(c.norm, c.d_model)

    def forward(self, features: Tensor, state: State | None = None, positions: Tensor | None = None) -> Tensor:
        """features (B, T, d_input) -> (B, T, d_model)."""
        c = self.c
        if not c.plain:
            check_features(features, c.d_input, self.project.weight)
        x = self.project(features)  # (B, T, d_model)
        if c.position is not None:
            x = x + self.position(x, advance(state, features.shape[1]), positions=positions if c.counted else None)
        if c.norm is not None:
            x = self.norm(x)
        if c.dropout:
            x = F.dropout(x, c.dropout, self.training)
        return x
