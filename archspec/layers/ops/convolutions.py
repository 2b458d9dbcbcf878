"""Convolutions, short and as long as the sequence."""

from dataclasses import dataclass
from typing import Any, ClassVar

from archspec.formulas.functions import levels, log, whole
from archspec.layers.ops.op import CONVOLUTION, Op
from archspec.layers.tensors import How, Run, Saved


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Conv(Op):
    """A short causal depthwise convolution, or a patch convolution when `d_in` is given."""

    channels: int
    taps: int
    d_in: int | None = None

    work: ClassVar[str] = CONVOLUTION

    def flops(self, run: Run) -> int:
        """Two for each output element, tap and input channel."""
        return 2 * run.size(self.shape) * self.taps * (self.d_in or 1)

    def saved(self, run: Run, how: How) -> tuple[Saved, ...]:
        """Its input, of which it computes the rest again."""
        return (Saved(self.inputs[0]),)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class FFTConv(Op):
    """A convolution as long as the sequence, by FFT: O(T log T) for each channel."""

    channels: int

    work: ClassVar[str] = CONVOLUTION

    def flops(self, run: Run) -> int:
        """An estimate: three real FFTs of n = 2T points at 2.5 n log2 n each, and the product of spectra.

        One token more is a sum over all S inputs, two for each of them.
        """
        return whole(self._estimate(run))

    def backward_flops(self, run: Run, how: How) -> int:
        """The same for each gradient."""
        return whole(self._estimate(run) * (2 if how.input_learns else 1))

    def _estimate(self, run: Run) -> Any:
        if run.decodes and run.T == 1:
            return 2 * run.B * run.S * self.channels
        n = 2 * run.T
        return run.B * self.channels * (3 * 2.5 * n * log(n) + 6 * run.T)

    def saved(self, run: Run, how: How) -> tuple[Saved, ...]:
        """Its inputs and its taps: spectra are computed again."""
        return tuple(map(Saved, self.inputs))

    def steps(self, run: Run) -> int:
        """The levels of an FFT of 2T points."""
        return 1 if run.decodes and run.T == 1 else levels(2 * run.T)
