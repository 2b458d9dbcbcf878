"""Normal init. What it sets is said in `archspec.layers.inits.normal`."""

from torch import nn

from archspec.layers.inits.normal import NormalInit as Config
from archspec.modules.starting import number_of, truncated_normal, uniform


def init_weights(model: nn.Module, c: Config) -> None:
    """Draw matrices and tables, each module before the one that holds it and may start it in its own way."""
    draw = uniform if c.distribution == "uniform" else truncated_normal if c.truncated else nn.init.normal_
    for module in reversed([*model.modules()]):
        if c.embedding_std == c.std and not c.names.linear_biases and not c.names.convolutions:
            if isinstance(module, nn.Linear | nn.Embedding):
                draw(module.weight, std=c.std)
            elif hasattr(module, "reset_parameters"):
                module.reset_parameters()  # type: ignore[operator]
        elif isinstance(module, nn.Linear | nn.Conv2d if c.names.convolutions else nn.Linear):
            draw(module.weight, std=c.std)
            if c.names.linear_biases and module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            draw(module.weight, std=c.embedding_std)
        elif hasattr(module, "reset_parameters"):
            module.reset_parameters()  # type: ignore[operator]
    if c.residual_scale == "depth" and c.names.residual:
        # What writes to the residual stream starts smaller, the more so the deeper the model.
        for name, module in model.named_modules():
            if isinstance(module, nn.Linear) and name.endswith(c.names.residual):
                if c.names.branches:
                    draw(module.weight, std=c.std * number_of(name, c.names.branches) ** -0.5)
                else:
                    draw(module.weight, std=c.std * c.n_branches**-0.5)
    if c.names.stacked:
        for name, weight in model.named_parameters():
            if c.residual_scale == "depth" and c.names.branches and name.endswith(c.names.stacked_residual):
                draw(weight, std=c.std * number_of(name, c.names.branches) ** -0.5)
            elif c.residual_scale == "depth" and not c.names.branches and name.endswith(c.names.stacked_residual):
                draw(weight, std=c.std * c.n_branches**-0.5)
            elif name.endswith(c.names.stacked):
                draw(weight, std=c.std)
    if c.names.cells:
        for name, weight in model.named_parameters():
            if name.rpartition(".")[0].endswith(c.names.cells) and weight.dim() == 2:
                draw(weight, std=c.std)
            elif name.rpartition(".")[0].endswith(c.names.cells):
                nn.init.zeros_(weight)
