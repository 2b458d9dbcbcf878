"""Glorot's init. What it sets is said in `archspec.layers.inits.xavier`."""

from torch import nn

from archspec.layers.inits.xavier import XavierInit as Config
from archspec.modules.starting import uniform


def init_weights(model: nn.Module, c: Config) -> None:
    """Draw matrices and tables, each module before the one that holds it and may start it in its own way."""
    draw = nn.init.xavier_uniform_ if c.distribution == "uniform" else nn.init.xavier_normal_
    for module in reversed([*model.modules()]):
        if isinstance(module, nn.Linear | nn.Conv2d if c.names.convolutions else nn.Linear):
            draw(module.weight, gain=c.gain)
            if c.names.linear_biases and module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=c.embedding_std)
        elif hasattr(module, "reset_parameters"):
            module.reset_parameters()  # type: ignore[operator]
    if c.names.stacked:
        draw_stack = uniform if c.distribution == "uniform" else nn.init.normal_
        for name, weight in model.named_parameters():
            if name.endswith(c.names.stacked):
                draw_stack(weight, std=c.gain * (2 / (weight.shape[1] + weight.shape[2])) ** 0.5)
    if c.names.cells:
        for name, weight in model.named_parameters():
            if name.rpartition(".")[0].endswith(c.names.cells) and weight.dim() == 2:
                draw(weight, gain=c.gain)
            elif name.rpartition(".")[0].endswith(c.names.cells):
                nn.init.zeros_(weight)
