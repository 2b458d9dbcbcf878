"""What optimizers keep for each parameter, and what they need while they step: a table, with its sources.

State is what the papers keep. The workspace of a step is not: it belongs to an implementation, and is said here in
sizes of the largest parameter, as measured with PyTorch 2.13, one parameter after another (`foreach=False`), which is
what runs on a CPU; all at once (`foreach=True`, the default on CUDA) takes as much of every parameter. An optimizer
that is not part of PyTorch has no measured workspace: None, and a step's peak is then an estimate that leaves it out.
"""

from dataclasses import dataclass

from archspec.errors import CostError
from archspec.layers.ops import Param


@dataclass(frozen=True, slots=True)
class Optimizer:
    """An optimizer.

    Attributes:
        states: bytes of each number that it keeps of a parameter; None for one as wide as the parameter.
        counters: bytes that it keeps of each tensor, whatever its size (the number of steps).
        workspace: tensors as large as the largest parameter that exist during its step; None where nobody measured it.
        source: where all this is from.
        blocks: numbers that share one float32 scale in each quantised state; 0 without.
        matrices_only: whether it steps matrices of the layers alone; then `other` steps the rest.
    """

    states: tuple[int | None, ...]
    counters: int
    workspace: int | None
    source: str
    blocks: int = 0
    matrices_only: bool = False
    other: str = ""

    def bytes_of(self, p: Param, width: int, inside: bool = True) -> int:
        """Bytes that it keeps of a parameter whose numbers have that width; `inside` a layer, or outside of all."""
        if self.matrices_only and (len(p.shape) != 2 or not inside):
            return OPTIMIZERS[self.other].bytes_of(p, width)
        if self.blocks and p.numel < SMALLEST_QUANTISED:
            return 4 * len(self.states) * p.numel + self.counters
        scales = 4 * len(self.states) * -(-p.numel // self.blocks) if self.blocks else 0
        return sum(p.numel * (state or width) for state in self.states) + scales + self.counters


SMALLEST_QUANTISED = 4096  # numbers of a tensor, below which bitsandbytes keeps float32 states

OPTIMIZERS = {
    "sgd": Optimizer((), 0, 0, "torch.optim.SGD without momentum"),
    "momentum": Optimizer((None,), 0, 0, "torch.optim.SGD with momentum"),
    "adam": Optimizer((None, None), 4, 2, "torch.optim.Adam; Kingma and Ba 2015"),
    "adamw": Optimizer((None, None), 4, 2, "torch.optim.AdamW; Loshchilov and Hutter 2019"),
    "adamw8bit": Optimizer(
        (1, 1), 0, None, "bitsandbytes AdamW8bit, blocks of 256; Dettmers et al. 2022", blocks=256
    ),
    "muon": Optimizer(
        (None,), 0, None, "torch.optim.Muon for matrices of layers, AdamW for all else; Jordan et al. 2024",
        matrices_only=True, other="adamw",
    ),
}  # fmt: skip


def optimizer(name: str) -> Optimizer:
    """The optimizer of that name.

    Raises:
        CostError: there is none in the table.
    """
    if not isinstance(name, str) or name not in OPTIMIZERS:
        raise CostError(f"optimizer = {name!r} is unknown; known: {', '.join(OPTIMIZERS)}")
    return OPTIMIZERS[name]
