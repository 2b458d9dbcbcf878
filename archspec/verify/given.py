"""What a component's forward is given when it is looked at by itself."""

from typing import Any

import torch
from torch import Tensor

from archspec.language.model import Spec
from archspec.layers.base import Component, EmbeddingComponent, MixerComponent, NormComponent
from archspec.layers.ops import Linear, Run


def components(spec: Spec) -> list[tuple[Component, int]]:
    """Every different component that runs by itself, with the width of what it takes; norms apart."""
    found = {(c, stack.d_model): None for stack in spec.stacks for c in (*stack.parts, stack.embedding)}
    found |= {(head.component, spec.main.d_model): None for head in spec.heads}
    return [(c, width) for c, width in found if not isinstance(c, NormComponent)]


def first(output: Tensor | tuple[Tensor, ...]) -> Tensor:
    """What a component gives, without what later layers read of it."""
    return output[0] if isinstance(output, tuple) else output


def given(
    c: Component, width: int, run: Run, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> dict[str, Any]:
    """The arguments of forward by name, the first of them x; no mask, no prefix and no state.

    Args:
        c: the component.
        width: of the vectors that it takes, for all but embeddings.
        run: the sizes of batch, tokens and memory.
        device: where the tensors live; on "meta" they are shapes alone.
        dtype: of numbers.
    """
    g = torch.Generator().manual_seed(0)

    def numbers(*shape: int) -> Tensor:
        found = torch.empty(shape, device=device, dtype=dtype)
        return found if found.is_meta else torch.randn(shape, generator=g).to(device, dtype)

    found: dict[str, Any] = {"x": numbers(run.B, run.T, width)}
    if isinstance(c, EmbeddingComponent):
        shape = run.shape(c.input_shape)
        found["x"] = numbers(*shape) if c.n_ids is None else torch.zeros(shape, dtype=torch.long, device=device)
    if "memory" in c.arguments:
        d_memory = next(op.d_in for op in c.ops() if isinstance(op, Linear) and "memory" in op.inputs)
        found["memory"] = numbers(run.B, run.M, d_memory)
    if "bias" in c.arguments and isinstance(c, MixerComponent) and c.shared_bias is not None:
        found["bias"] = numbers(*run.shape(c.shared_bias.ops()[-1].shape))
    for name, port in c.accepts.items():
        if name in c.arguments:
            found[name] = numbers(*run.shape(port.shape))
    zeros = torch.zeros(run.B, run.T, dtype=torch.long, device=device)
    if "token_types" in c.arguments:
        found["token_types"] = zeros.clone()
    if "channels" in c.arguments and isinstance(c, EmbeddingComponent):
        found["channels"] = {name: zeros.clone() for name in c.ids}
    return found
