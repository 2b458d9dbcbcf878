"""PyTorch's own init. What it sets is said in `archspec.layers.inits.pytorch`."""

import torch
from torch import nn

from archspec.layers.inits.pytorch import PyTorchInit as Config


@torch.no_grad()
def init_weights(model: nn.Module, c: Config) -> None:
    """Draw linear layers, tables (last, for a head tied to one), then what modules set themselves."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d if c.names.convolutions else nn.Linear):
            module.reset_parameters()
            if c.zero_bias and c.names.linear_biases and module.bias is not None:
                nn.init.zeros_(module.bias)
    if c.residual_scale == "depth" and c.names.residual:
        # What writes to the residual stream starts smaller, the more so the deeper the model.
        for name, module in model.named_modules():
            if isinstance(module, nn.Linear) and name.endswith(c.names.residual):
                module.weight.mul_(c.n_branches**-0.5)
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=c.embedding_std)
    for module in model.modules():
        if hasattr(module, "reset_parameters") and not type(module).__module__.startswith("torch."):
            module.reset_parameters()  # type: ignore[operator]
    if c.residual_scale == "depth" and c.names.stacked_residual:
        for name, weight in model.named_parameters():
            if name.endswith(c.names.stacked_residual):
                weight.mul_(c.n_branches**-0.5)
