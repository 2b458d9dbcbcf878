"""Room for tokens before they come: buffers that `append` of `archspec.kernels.state` then writes into."""

import torch

from archspec.decoding.check import dtype_of
from archspec.decoding.layout import Layout
from archspec.decoding.tree import ROOM, Tree, leaves
from archspec.errors import StateError
from archspec.kernels.state import capacity


@torch.inference_mode(False)
def reserve(
    tree: Tree, layout: Layout, batch: int, tokens: int, dtype: torch.dtype | None, device: torch.device | None
) -> None:
    """Make buffers for that many tokens where there are none; in inference mode they could only be written on in it.

    Args:
        tree: the state.
        layout: that of its spec.
        batch: the number of sequences.
        tokens: for which there is to be room; a window takes no more than it ever needs.
        dtype: of the model.
        device: where to; PyTorch's default where it is None, as the dtype is.

    Raises:
        StateError: there is no memory for so many.
    """
    present = {held.path for held in leaves(tree)}
    for path, entry in layout.entries:
        if entry.token_axis is None or not entry.counted or path in present:
            continue
        size = capacity(tokens, entry.kept.limit)
        shape = [size if n is None else n for n in entry.sizes(batch)]
        *parents, name = path.split(".")
        held = tree
        for key in parents:
            held = held.setdefault(key, {})
        kind = dtype_of(entry.kept, dtype or torch.get_default_dtype())
        try:
            held[f"{name}{ROOM}"] = torch.empty(shape, dtype=kind, device=device)
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise StateError(f"no room for max_len = {tokens} tokens of {batch} sequences: {reason}") from error
