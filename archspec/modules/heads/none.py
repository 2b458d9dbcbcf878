"""No head, as a module: the model returns its last hidden states."""

from torch import Tensor, nn

from archspec.layers.heads.none import NoHead as Config


class NoHead(nn.Module):
    """The hidden states themselves."""

    def __init__(self, c: Config):
        super().__init__()
        self.c = c

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, d_model) -> x."""
        return x
