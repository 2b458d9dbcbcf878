"""Masked-language-model head, as a module. What it computes is said in `archspec.layers.heads.masked_lm`."""

import torch.nn.functional as F
from torch import Tensor, nn

from archspec.layers.heads.masked_lm import MaskedLMHead as Config
from archspec.modules import submodule
from archspec.modules.projection import linear


class MaskedLMHead(nn.Module):
    """logits = proj(norm(activation(transform(x))))."""

    def __init__(self, c: Config):
        super().__init__()
        self.c = c
        self.transform = linear(c, "transform", c.d_model, c.d_embed)
        self.norm = submodule(c.norm, c.d_embed)
        self.proj = linear(c, "proj", c.d_embed, c.vocab_size, bias=c.bias)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, d_model) -> logits (B, T, vocab_size)."""
        c = self.c
        x = self.transform(x)  # (B, T, d_embed)
        if c.activation == "gelu":
            x = F.gelu(x)
        elif c.activation == "gelu_tanh":
            x = F.gelu(x, approximate="tanh")
        elif c.activation == "relu":
            x = F.relu(x)
        elif c.activation == "silu":
            x = F.silu(x)
        return self.proj(self.norm(x))  # (B, T, vocab_size)
