"""T5's init. What it sets is said in `archspec.layers.inits.t5`."""

from torch import nn

from archspec.layers.inits.t5 import T5Init as Config


def init_weights(model: nn.Module, c: Config) -> None:
    """Draw matrices, then tables (a tied head is its table), and reset what modules start in their own way."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            std = module.weight[0].numel() ** -0.5
            if name.endswith("q_proj"):
                std = std * c.head_dim**-0.5
            elif name.endswith("head.proj"):
                std = 1.0
            nn.init.normal_(module.weight, std=c.factor * std)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding):
            relative = name.endswith(("position.table", "position_bias.table")) and "embedding." not in name
            nn.init.normal_(module.weight, std=c.factor * c.d_model**-0.5 if relative else c.factor)
    for module in model.modules():
        reset = getattr(module, "reset_parameters", None)
        if reset is not None and not type(module).__module__.startswith("torch."):
            reset()
    if c.n_stacked:
        for name, weight in model.named_parameters():
            if weight.dim() == 3 and name.endswith(("gate_proj", "up_proj", "down_proj")):
                nn.init.normal_(weight, std=c.factor * weight.shape[2] ** -0.5)
    if c.n_recurrent:
        for name, weight in model.named_parameters():
            if name.rpartition(".")[2].startswith(("weight_ih_l", "weight_hh_l")):
                nn.init.normal_(weight, std=c.factor * weight.shape[1] ** -0.5)
            elif name.rpartition(".")[2].startswith(("bias_ih_l", "bias_hh_l")):
                nn.init.zeros_(weight)
