"""Fan-in init. What it sets is said in `archspec.layers.inits.fan_in`."""

from torch import nn

from archspec.layers.inits.fan_in import FanInInit as Config
from archspec.modules.starting import truncated_normal


def init_weights(model: nn.Module, c: Config) -> None:
    """Draw matrices and tables, each module before the one that holds it and may start it in its own way."""
    draw = truncated_normal if c.truncated else nn.init.normal_
    for module in reversed([*model.modules()]):
        if isinstance(module, nn.Linear | nn.Conv2d if c.names.convolutions else nn.Linear):
            draw(module.weight, std=(c.scale / module.weight.shape[1:].numel()) ** 0.5)
            if c.names.linear_biases and module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=c.embedding_std)
        elif hasattr(module, "reset_parameters"):
            module.reset_parameters()  # type: ignore[operator]
    if c.names.stacked:
        for name, weight in model.named_parameters():
            if name.endswith(c.names.stacked):
                draw(weight, std=(c.scale / weight.shape[2]) ** 0.5)
    if c.names.cells:
        for name, weight in model.named_parameters():
            if name.rpartition(".")[0].endswith(c.names.cells) and weight.dim() == 2:
                draw(weight, std=(c.scale / weight.shape[1]) ** 0.5)
            elif name.rpartition(".")[0].endswith(c.names.cells):
                nn.init.zeros_(weight)
