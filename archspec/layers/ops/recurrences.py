"""Recurrences: linear ones, which run in parallel, and those of RNNs, which do not."""

from dataclasses import dataclass
from typing import ClassVar

from archspec.formulas.functions import at_least, ceil_div, least, levels
from archspec.kernels.thresholds import SCAN_CHUNK, WKV_CHUNK
from archspec.layers.ops.op import SCAN, Op
from archspec.layers.tensors import How, Run, Saved

LSTM_GATES = 4


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Scan(Op):
    """A linear recurrence over a state of `width` x `d_state` numbers.

    Without `chunk` it is an associative scan: only the read-out is a product, and `gated` says that its kernel gates
    the output too. With `chunk`, that many tokens are computed as one masked matrix product, whose scores have `shared`
    channels in all, and the state goes from chunk to chunk.
    """

    width: int
    d_state: int
    chunk: int | None = None
    shared: int = 0
    gated: bool = False

    work: ClassVar[str] = SCAN

    def flops(self, run: Run) -> int:
        """The read-out; of chunks also the scores, their product with the inputs, and what is written to the state."""
        state = 2 * self.width * self.d_state
        if self.chunk is None or _steps(run):  # one token updates the state element by element
            return run.size(("B", "T")) * state
        scores, values = self._in_chunks(run)
        return scores + values + 2 * self._tokens(run) * state

    def backward_flops(self, run: Run, how: How) -> int:
        """By hand in the kernels: of a scan the gradients of A, B, C and of what enters; of chunks the scores again."""
        state = 2 * self.width * self.d_state
        if self.chunk is None:
            return run.size(("B", "T")) * state * (5 if self.gated else 4)
        scores, values = self._in_chunks(run)
        return 3 * scores + 2 * values + 5 * self._tokens(run) * state

    def arithmetic(self, run: Run) -> int:
        """Of each number of the state: decay, its exponential, its product, what enters, and the sum.

        In chunks the state decays once a chunk, and each pair of tokens has a decay in each head.
        """
        if self.chunk is None or _steps(run):
            return 5 * run.size(("B", "T")) * self.width * self.d_state
        chunks = ceil_div(run.T, self.chunk)
        heads = run.size(self.shape[2:-1])
        return 2 * run.B * chunks * self.width * self.d_state + 3 * self._tokens(run) * self._length(run) * heads

    def unfused(self, run: Run) -> int:
        """Elements that a scan moves more which writes decay, what enters and the state of each token to memory."""
        return 6 * run.size(("B", "T")) * self.width * self.d_state if self.chunk is None else 0

    def steps(self, run: Run) -> int:
        """One a chunk; log T for an associative scan."""
        return levels(run.T) if self.chunk is None else ceil_div(run.T, self.chunk)

    def saved(self, run: Run, how: How) -> tuple[Saved, ...]:
        """What enters it, and the states that enter the chunks: all else is computed again."""
        if self.chunk is None:
            chunks = ceil_div(run.T, SCAN_CHUNK)
            states = Saved("states", ("B", chunks, self.d_state, self.width), "float32")
            return (*map(Saved, self.inputs), Saved("first state", ("B", self.width, self.d_state), "float32"), states)
        chunks = ceil_div(run.T, self._length(run))
        x, heads = self.inputs[0], self.shape[:-1]
        copies = (Saved("widened", self.shape, "float32"), Saved("skipped", self.shape, "float32"))
        return (
            *map(Saved, self.inputs),
            *(copies if how.width < 4 else (Saved(x),)),
            *((Saved("skip", self.shape[2:-1], "float32"),) if how.width < 4 else ()),
            Saved("values", self.shape, "model"),
            Saved("decay", heads, "float32"),
            Saved("states", (chunks + 1, "B", self.width, self.d_state), "float32"),
        )

    def _length(self, run: Run) -> int:
        assert self.chunk is not None
        return least(self.chunk, run.T)

    def _tokens(self, run: Run) -> int:
        """Tokens of whole chunks."""
        return run.B * ceil_div(run.T, self._length(run)) * self._length(run)

    def _in_chunks(self, run: Run) -> tuple[int, int]:
        """FLOPs of the scores of all pairs in a chunk, and of their product with the inputs."""
        pairs = 2 * self._tokens(run) * self._length(run)
        return pairs * self.shared, pairs * self.width


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class WKV(Scan):
    """The average of RWKV-4: the state of a channel is two sums, with the values and without, and their exponent.

    It is an associative scan without any product of matrices: what it costs is element-wise.
    """

    def flops(self, run: Run) -> int:
        """None of matrix products."""
        return 0

    def backward_flops(self, run: Run, how: How) -> int:
        """None either."""
        return 0

    def arithmetic(self, run: Run) -> int:
        """Of a channel: 12 to read the average (exponents, both sums, their quotient), 11 to add the token to it."""
        return 23 * run.size(("B", "T")) * self.width

    def unfused(self, run: Run) -> int:
        """Elements that a scan moves more which writes both sums and their exponent at each token to memory."""
        return 6 * run.size(("B", "T")) * self.width

    def saved(self, run: Run, how: How) -> tuple[Saved, ...]:
        """What enters it, the sums before and the exponent after it, and the sums that enter the chunks."""
        state = ("B", self.width)
        sums = (Saved(name, state, "float32") for name in ("num", "den", "max", "last max"))
        states = Saved("states", (3, "B", ceil_div(run.T, WKV_CHUNK), self.width), "float32")
        return (*map(Saved, self.inputs), *sums, states)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Recurrent(Op):
    """A non-linear recurrence whose cell multiplies input and state by dense matrices, one token at a time."""

    d_in: int
    width: int
    gates: int

    def flops(self, run: Run) -> int:
        """Two for each weight of the cell, at each token."""
        return 2 * run.size(("B", "T")) * self.gates * self.width * (self.d_in + self.width)

    def backward_flops(self, run: Run, how: How) -> int:
        """Twice as many, without the gradient of the state before the first token, nor that of an input without one."""
        first = 2 * run.B * self.gates * self.width * self.width
        unread = 0 if how.input_learns else 2 * run.size(("B", "T")) * self.gates * self.width * self.d_in
        return 2 * self.flops(run) - first - unread

    def arithmetic(self, run: Run) -> int:
        """Of each gate: bias, sum, function, and its product with the state."""
        return 4 * run.size(("B", "T")) * self.gates * self.width

    @property
    def proved(self) -> bool:
        """Not of an LSTM, whose library keeps a workspace of a size of its own."""
        return self.gates < LSTM_GATES

    def saved(self, run: Run, how: How) -> tuple[Saved, ...]:
        """Its input token by token, the states (of an RNN also the last), and of gated cells what their gates gave."""
        copied = self.inputs == ("x",) and at_least(run.B, 2) and at_least(run.T, 2)
        read = Saved("tokens", ("T", "B", self.d_in), "model") if copied else Saved(self.inputs[0])
        if self.gates == 1:
            return (read, Saved("states", (run.T + 1, "B", self.width), "model"))
        states = Saved("states", ("T", "B", self.width), "model")
        gates = Saved("gates", ("T", "B", self.gates * self.width), "model")
        more = Saved("of states" if self.gates < LSTM_GATES else "cells", ("T", "B", self.gates * self.width), "model")
        return (read, states, gates, more)

    def steps(self, run: Run) -> int:
        """One a token."""
        return run.T


def _steps(run: Run) -> bool:
    """Whether a state takes one token."""
    return run.decodes and run.T == 1
