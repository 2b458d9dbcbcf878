"""T5's init. What it sets is said in `archspec.layers.inits.t5`."""

from torch import nn

from archspec.layers.inits.t5 import T5Init as Config
from archspec.modules.starting import number_of


def init_weights(model: nn.Module, c: Config) -> None:
    """Draw matrices and tables, each module before the one that holds it and may start it in its own way."""
    for name, module in reversed([*model.named_modules()]):
        if isinstance(module, nn.Linear | nn.Conv2d if c.names.convolutions else nn.Linear):
            std = module.weight.shape[1:].numel() ** -0.5
            if c.names.queries and c.head_dim is not None and name.endswith(c.names.queries):
                std = std * c.head_dim**-0.5
            elif c.names.queries and c.query_dim is not None and name.endswith(c.names.queries):
                std = std * c.query_dim**-0.5
            elif c.names.queries and c.head_dim is None and c.query_dim is None and name.endswith(c.names.queries):
                std = std * number_of(name, c.names.head_dims) ** -0.5
            elif (c.names.output and name == c.names.output) or (c.names.outputs and name in c.names.outputs):
                std = 1.0
            nn.init.normal_(module.weight, std=c.factor * std)
            if c.names.linear_biases and module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            if c.names.biases and c.names.widths:
                std = number_of(name, c.names.widths) ** -0.5 if name.endswith(c.names.biases) else 1.0
                nn.init.normal_(module.weight, std=c.factor * std)
            elif c.names.biases:
                std = c.d_model**-0.5 if name.endswith(c.names.biases) else 1.0
                nn.init.normal_(module.weight, std=c.factor * std)
            else:
                nn.init.normal_(module.weight, std=c.factor)
        elif hasattr(module, "reset_parameters"):
            module.reset_parameters()
    if c.names.stacked:
        for name, weight in model.named_parameters():
            if name.endswith(c.names.stacked):
                nn.init.normal_(weight, std=c.factor * weight.shape[2] ** -0.5)
    if c.names.cells:
        for name, weight in model.named_parameters():
            if name.rpartition(".")[0].endswith(c.names.cells) and weight.dim() == 2:
                nn.init.normal_(weight, std=c.factor * weight.shape[1] ** -0.5)
            elif name.rpartition(".")[0].endswith(c.names.cells):
                nn.init.zeros_(weight)
