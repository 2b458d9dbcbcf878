"""Glorot's init. What it sets is said in `archspec.layers.inits.xavier`."""

from torch import nn

from archspec.layers.inits.xavier import XavierInit as Config


def init_weights(model: nn.Module, c: Config) -> None:
    """Draw matrices, then tables (a tied head is its table), and reset what modules start in their own way."""
    draw = nn.init.xavier_uniform_ if c.distribution == "uniform" else nn.init.xavier_normal_
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d if c.names.convolutions else nn.Linear):
            draw(module.weight, gain=c.gain)
            if c.names.linear_biases and module.bias is not None:
                nn.init.zeros_(module.bias)
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=c.embedding_std)
    for module in model.modules():
        if hasattr(module, "reset_parameters") and not type(module).__module__.startswith("torch."):
            module.reset_parameters()  # type: ignore[operator]
    if c.names.stacked:
        for name, weight in model.named_parameters():
            if name.endswith(c.names.stacked):
                for expert in weight.detach():
                    draw(expert, gain=c.gain)
    if c.names.cells:
        for name, weight in model.named_parameters():
            if name.rpartition(".")[0].endswith(c.names.cells) and weight.dim() == 2:
                draw(weight, gain=c.gain)
            elif name.rpartition(".")[0].endswith(c.names.cells):
                nn.init.zeros_(weight)
