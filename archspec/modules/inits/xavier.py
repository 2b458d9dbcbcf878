"""Glorot's init. What it sets is said in `archspec.layers.inits.xavier`."""

from torch import nn

from archspec.layers.inits.xavier import XavierInit as Config


def init_weights(model: nn.Module, c: Config) -> None:
    """Draw linear layers, tables (last, for a head tied to one), what modules set themselves, stacked experts."""
    draw = nn.init.xavier_uniform_ if c.distribution == "uniform" else nn.init.xavier_normal_
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            draw(module.weight, gain=c.gain)
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
            for expert in weight.detach():
                draw(expert, gain=c.gain)
