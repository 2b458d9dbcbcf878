"""Normal init. What it sets is said in `archspec.layers.inits.normal`."""

from torch import Tensor, nn

from archspec.layers.inits.normal import NormalInit as Config


def init_weights(model: nn.Module, c: Config) -> None:
    """Draw linear layers, tables (last, for a head tied to one), what modules set themselves, stacked experts."""
    draw = truncated_normal if c.truncated else nn.init.normal_
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            draw(module.weight, std=c.std)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    if c.residual_scale == "depth":
        # What writes to the residual stream starts smaller, the more so the deeper the model.
        for name, module in model.named_modules():
            if isinstance(module, nn.Linear) and name.endswith(("o_proj", "down_proj", "out_proj")):
                draw(module.weight, std=c.std * c.n_branches**-0.5)
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            draw(module.weight, std=c.embedding_std)
    for module in model.modules():
        reset = getattr(module, "reset_parameters", None)
        if reset is not None and not type(module).__module__.startswith("torch."):
            reset()
    for name, weight in model.named_parameters():
        if weight.dim() == 3 and name.endswith(("gate_proj", "up_proj", "down_proj")):
            if c.residual_scale == "depth":
                residual = name.endswith("down_proj")
                draw(weight, std=c.std * c.n_branches**-0.5 if residual else c.std)
            else:
                draw(weight, std=c.std)


def truncated_normal(weight: Tensor, std: float) -> None:
    """N(0, std^2), drawn again beyond two standard deviations."""
    nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)
