"""PyTorch's own init. What it sets is said in `archspec.layers.inits.pytorch`."""

import torch
from torch import nn

from archspec.layers.inits.pytorch import PyTorchInit as Config
from archspec.modules.starting import number_of


@torch.no_grad()
def init_weights(model: nn.Module, c: Config) -> None:
    """Draw matrices and tables, each module before the one that holds it and may start it in its own way."""
    for module in reversed([*model.modules()]):
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=c.embedding_std)
        elif hasattr(module, "reset_parameters"):
            module.reset_parameters()  # type: ignore[operator]
        if c.zero_bias and c.names.linear_biases and isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
        if c.zero_bias and c.names.convolutions and isinstance(module, nn.Conv2d) and module.bias is not None:
            nn.init.zeros_(module.bias)
    if c.residual_scale == "depth" and c.names.residual:
        # What writes to the residual stream starts smaller, the more so the deeper the model.
        for name, module in model.named_modules():
            if isinstance(module, nn.Linear) and name.endswith(c.names.residual):
                if c.names.branches:
                    module.weight.mul_(number_of(name, c.names.branches) ** -0.5)
                else:
                    module.weight.mul_(c.n_branches**-0.5)
    if c.residual_scale == "depth" and c.names.stacked_residual:
        for name, weight in model.named_parameters():
            if name.endswith(c.names.stacked_residual):
                if c.names.branches:
                    weight.mul_(number_of(name, c.names.branches) ** -0.5)
                else:
                    weight.mul_(c.n_branches**-0.5)
