"""Language-model head, as a module. What it computes is said in `archspec.layers.heads.lm`."""

import torch
from torch import Tensor, nn

from archspec.layers.heads.lm import LMHead as Config
from archspec.modules.projection import linear


class LMHead(nn.Module):
    """A linear layer from the last hidden state to the logits."""

    def __init__(self, c: Config):
        super().__init__()
        self.c = c
        if c.d_embed != c.d_model:
            self.project = linear(c, "project", c.d_model, c.d_embed, bias=False)
        self.proj = linear(c, "proj", c.d_embed, c.vocab_size, bias=c.bias)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, d_model) -> logits (B, T, vocab_size)."""
        c = self.c
        if c.d_embed != c.d_model:
            x = self.project(x)  # (B, T, d_embed)
        logits = self.proj(x)  # (B, T, vocab_size)
        if c.scale != 1:
            logits = logits * c.scale
        if c.softcap is not None:
            logits = c.softcap * torch.tanh(logits / c.softcap)
        return logits
