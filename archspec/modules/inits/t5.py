"""T5's init. What it sets is said in `archspec.layers.inits.t5`."""

from torch import nn

from archspec.layers.inits.t5 import T5Init as Config


def init_weights(model: nn.Module, c: Config) -> None:
    """Draw matrices, then tables (a tied head is its table), and reset what modules start in their own way."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d if c.names.convolutions else nn.Linear):
            std = module.weight[0].numel() ** -0.5
            if c.names.queries and name.endswith(c.names.queries):
                std = std * c.head_dim**-0.5
            elif c.names.output and name == c.names.output:
                std = 1.0
            nn.init.normal_(module.weight, std=c.factor * std)
            if c.names.linear_biases and module.bias is not None:
                nn.init.zeros_(module.bias)
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding):
            if c.names.biases and name.endswith(c.names.biases):
                nn.init.normal_(module.weight, std=c.factor * c.d_model**-0.5)
            else:
                nn.init.normal_(module.weight, std=c.factor)
    for module in model.modules():
        if hasattr(module, "reset_parameters") and not type(module).__module__.startswith("torch."):
            module.reset_parameters()  # type: ignore[operator]
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
