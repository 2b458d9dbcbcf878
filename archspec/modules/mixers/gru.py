"""GRU, as a module. What it computes is said in `archspec.layers.mixers.gru`."""

from torch import Tensor, nn

from archspec.kernels.rnn.recurrent import gru
from archspec.kernels.state import State
from archspec.layers.mixers.gru import GRU as Config
from archspec.modules.projection import linear


class GRU(nn.Module):
    """PyTorch's GRU, with an output projection where its width is not d_model."""

    def __init__(self, c: Config):
        super().__init__()
        self.c = c
        # The weights of nn.GRU under their own names; torch.compile does not accept the module itself.
        cells = nn.GRU(c.d_model, c.d_hidden, c.depth, bias=c.bias, bidirectional=c.bidirectional)
        self.gru = nn.ParameterDict(cells.named_parameters())
        if c.projects:
            self.out_proj = linear(c, "out_proj", c.d_out, c.d_model, bias=c.bias)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """PyTorch's own: uniform up to d_hidden ** -0.5."""
        c = self.c
        for weight in self.gru.values():
            nn.init.uniform_(weight, -(c.d_hidden**-0.5), c.d_hidden**-0.5)

    def forward(self, x: Tensor, state: State | None = None, mask: Tensor | None = None) -> Tensor:
        """x (B, T, d_model) -> (B, T, d_model)."""
        c = self.c
        y = gru(
            x,
            list(self.gru.values()),
            None if c.bidirectional else state,
            mask=mask if c.padded else None,
            depth=c.depth,
            dropout=c.dropout if self.training else 0.0,
            bidirectional=c.bidirectional,
        )  # (B, T, d_out)
        if c.projects:
            return self.out_proj(y)  # (B, T, d_model)
        return y
