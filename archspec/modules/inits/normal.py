"""Normal init. What it sets is said in `archspec.layers.inits.normal`."""

from torch import Tensor, nn

from archspec.layers.inits.normal import NormalInit as Config


def init_weights(model: nn.Module, c: Config) -> None:
    """Draw matrices and tables, and reset what modules start in their own way."""
    draw = uniform if c.distribution == "uniform" else truncated_normal if c.truncated else nn.init.normal_
    for module in model.modules():
        if c.embedding_std == c.std and not c.names.linear_biases and not c.names.convolutions:
            if isinstance(module, nn.Linear | nn.Embedding):
                draw(module.weight, std=c.std)
        elif isinstance(module, nn.Linear | nn.Conv2d if c.names.convolutions else nn.Linear):
            draw(module.weight, std=c.std)
            if c.names.linear_biases and module.bias is not None:
                nn.init.zeros_(module.bias)
        elif c.embedding_std == c.std and isinstance(module, nn.Embedding):
            draw(module.weight, std=c.embedding_std)
    if c.residual_scale == "depth" and c.names.residual:
        # What writes to the residual stream starts smaller, the more so the deeper the model.
        for name, module in model.named_modules():
            if isinstance(module, nn.Linear) and name.endswith(c.names.residual):
                draw(module.weight, std=c.std * c.n_branches**-0.5)
    if c.embedding_std != c.std:
        # Last, as a tied head is a table.
        for module in model.modules():
            if isinstance(module, nn.Embedding):
                draw(module.weight, std=c.embedding_std)
    for module in model.modules():
        if hasattr(module, "reset_parameters") and not type(module).__module__.startswith("torch."):
            module.reset_parameters()  # type: ignore[operator]
    if c.names.stacked:
        for name, weight in model.named_parameters():
            if name.endswith(c.names.stacked):
                if c.residual_scale == "depth":
                    residual = name.endswith(c.names.stacked_residual)
                    draw(weight, std=c.std * c.n_branches**-0.5 if residual else c.std)
                else:
                    draw(weight, std=c.std)
    if c.names.cells:
        for name, weight in model.named_parameters():
            if name.rpartition(".")[0].endswith(c.names.cells) and weight.dim() == 2:
                draw(weight, std=c.std)
            elif name.rpartition(".")[0].endswith(c.names.cells):
                nn.init.zeros_(weight)


def truncated_normal(weight: Tensor, std: float) -> None:
    """N(0, std^2), drawn again beyond two standard deviations."""
    nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)


def uniform(weight: Tensor, std: float) -> None:
    """Uniform around 0 with a standard deviation of std."""
    nn.init.uniform_(weight, -(3**0.5) * std, 3**0.5 * std)
