"""Fan-in init. What it sets is said in `archspec.layers.inits.fan_in`."""

from torch import Tensor, nn

from archspec.layers.inits.fan_in import FanInInit as Config


def init_weights(model: nn.Module, c: Config) -> None:
    """Draw linear layers, tables (last, for a head tied to one), what modules set themselves, stacked experts."""
    draw = truncated_normal if c.truncated else nn.init.normal_
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            draw(module.weight, std=(c.scale / module.weight[0].numel()) ** 0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=c.embedding_std)
    for module in model.modules():
        reset = getattr(module, "reset_parameters", None)
        if reset is not None and not type(module).__module__.startswith("torch."):
            reset()
    for name, weight in model.named_parameters():
        if weight.dim() == 3 and name.endswith(("gate_proj", "up_proj", "down_proj")):
            draw(weight, std=(c.scale / weight.shape[2]) ** 0.5)


def truncated_normal(weight: Tensor, std: float) -> None:
    """N(0, std^2), drawn again beyond two standard deviations."""
    nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)
