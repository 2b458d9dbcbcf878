"""PyTorch's own init. What it sets is said in `archspec.layers.inits.pytorch`."""

from torch import nn

from archspec.layers.inits.pytorch import PyTorchInit as Config


def init_weights(model: nn.Module, c: Config) -> None:
    """Draw linear layers, tables (last, for a head tied to one), then what modules set themselves."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            module.reset_parameters()
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            module.reset_parameters()
    for module in model.modules():
        reset = getattr(module, "reset_parameters", None)
        if reset is not None and not type(module).__module__.startswith("torch."):
            reset()
