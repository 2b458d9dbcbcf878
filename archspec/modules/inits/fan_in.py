"""Fan-in init. What it sets is said in `archspec.layers.inits.fan_in`."""

from torch import Tensor, nn

from archspec.layers.inits.fan_in import FanInInit as Config


def init_weights(model: nn.Module, c: Config) -> None:
    """Draw matrices, then tables (a tied head is its table), and reset what modules start in their own way."""
    draw = truncated_normal if c.truncated else nn.init.normal_
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d if c.names.convolutions else nn.Linear):
            draw(module.weight, std=(c.scale / module.weight[0].numel()) ** 0.5)
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
                draw(weight, std=(c.scale / weight.shape[2]) ** 0.5)
    if c.names.cells:
        for name, weight in model.named_parameters():
            if name.rpartition(".")[0].endswith(c.names.cells) and weight.dim() == 2:
                draw(weight, std=(c.scale / weight.shape[1]) ** 0.5)
            elif name.rpartition(".")[0].endswith(c.names.cells):
                nn.init.zeros_(weight)


def truncated_normal(weight: Tensor, std: float) -> None:
    """N(0, std^2), drawn again beyond two standard deviations."""
    nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)
