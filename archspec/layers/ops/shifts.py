"""Token shift: what each token reads is mixed with the one before it (RWKV)."""

from collections.abc import Sequence
from dataclasses import dataclass

from archspec.layers.ops.op import Op
from archspec.layers.ops.pointwise import Elementwise
from archspec.layers.tensors import How, Kept, Param, Run, Saved


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Shift(Elementwise):
    """Every token replaced by the one before it; the last one is kept while decoding."""

    def arithmetic(self, run: Run) -> int:
        """None: it only moves numbers."""
        return 0

    def gives(self, run: Run, how: How) -> Saved:
        """All tokens but the last of a copy that begins with the token before them."""
        assert isinstance(self.shape[-1], int)
        return Saved("", ("B", run.T + 1, self.shape[-1]), "model")

    def saved(self, run: Run, how: How) -> tuple[Saved, ...]:
        """Nothing."""
        return ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Lerp(Elementwise):
    """The second input at the share that a parameter gives each channel, the first for the rest."""

    def arithmetic(self, run: Run) -> int:
        """Of an element: difference, product, sum."""
        return 3 * run.size(self.shape)

    def saved(self, run: Run, how: How) -> tuple[Saved, ...]:
        """Both inputs."""
        return tuple(map(Saved, self.inputs))


def token_shift(d_model: int, mixes: Sequence[str]) -> tuple[Op, ...]:
    """The shift of x and, for each of `mixes`, x mixed with it by a parameter `time_mix_...` of d_model shares.

    The ops are called `shift` and `mix_...`.
    """
    shape = ("B", "T", d_model)
    shift = Shift(name="shift", fn="previous token", shape=shape, kept=(Kept("shift", ("B", d_model)),))
    return shift, *(
        Lerp(
            name=f"mix_{name}",
            fn="lerp",
            shape=shape,
            inputs=("shift", "x"),
            params=(
                Param(f"time_mix_{name}", (d_model,), note="share of the token itself; the rest is the one before"),
            ),
        )
        for name in mixes
    )
