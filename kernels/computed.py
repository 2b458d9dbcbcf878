"""Numbers that a module computes from its sizes once and keeps, such as the frequencies of rotary positions.

They are in no checkpoint, so nothing that happens to a model may lose them: casting, moving, making it on the device
meta, and giving it storage with `to_empty` or with `load_state_dict(assign=True)`. A module that keeps some computes
them again whenever its tensors go elsewhere, in `_apply`.
"""

import torch
from torch import Tensor, nn

CPU = torch.device("cpu")


def kept(numbers: Tensor, device: torch.device | None = None) -> nn.Buffer:
    """The bits of `numbers`, in float32, as a buffer that is in no checkpoint.

    As integers they stay exact when the model is cast to another dtype. On the device meta, which holds no numbers, a
    model has them on the CPU.
    """
    device = torch.empty(0).device if device is None else device
    return nn.Buffer(numbers.view(torch.int32).to(CPU if device.type == "meta" else device), persistent=False)


def used(bits: Tensor, device: torch.device | None) -> Tensor:
    """The numbers of a `kept` buffer, on `device`: weights that were assigned may be elsewhere."""
    return bits.view(torch.float32) if device is None else bits.view(torch.float32).to(device)
