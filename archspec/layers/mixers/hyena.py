"""Hyena: gates around long convolutions whose filters are given by a small network of the position.

    x_0, ..., x_{n-1}, v = conv(in_proj(u))        v <- k_o * (x_i v) + b_o (x_i v),  i = n-1 ... 1, o = 0 ... n-2
    y = out_proj(x_0 v)                            k(t) = MLP(features(t)) (exp(-|decay| t) + shift),  sine activations

Positions are fractions of filter_len, which is fixed, so a filter's tap does not depend on how long the input is.
State while decoding: every input of every long convolution, and the last d_conv - 1 inputs of the short one; beside
it the filters, evaluated once, filter_len numbers a channel in float32 (counted with the state). Cost O(T log T
d_model) to train beside the projections, O(T d_model) a decoded token.

Sources: Poli et al. 2023 (arXiv 2302.10866); Nguyen et al. 2023 (HyenaDNA: shift, features, frequency).
"""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from archspec.layers.base import MixerComponent
from archspec.layers.fields import Number, Positive, Probability, Size, Width, derived, field, inherited
from archspec.layers.ops import MULTIPLY, Conv, Decay, Features, FFTConv, Kept, Op, Param, Sine, elementwise, linear

Order = Annotated[int, Field(ge=2, le=64)]
Layers = Annotated[int, Field(ge=0, le=64)]


class Hyena(MixerComponent):
    """Long convolutions with implicit filters, between gates."""

    examples: ClassVar[tuple[dict[str, Any], ...]] = (
        {"filter_order": 8},
        {"order": 3, "filter_order": 4, "num_inner_mlps": 0, "emb_dim": 5, "d_conv": 2, "filter_len": 40,
         "bias": False, "train_freq": False, "sine_freq": 10.0},
        {"filter_order": 8, "num_inner_mlps": 1, "train_positions": True, "train_decay": True, "decay_shift": 0.05,
         "dropout": 0.25},
        {"filter_order": 8, "modulate": False},
    )  # fmt: skip

    kind: Literal["hyena"] = "hyena"
    d_model: Width = inherited("width of the residual stream")
    order: Order = field("gates; there are order - 1 long convolutions", 2)
    d_conv: Size = field("taps of the short convolution of the projections", 3)
    bias: bool = field("bias of the input and output projections", True)
    filter_len: Size = derived("taps of a filter, the longest sequence; the unit of positions", "max_seq_len")
    filter_order: Width = field("width of the filter network", 64)
    num_inner_mlps: Layers = field("layers of the filter network between its first and its last", 2)
    emb_dim: Size = field("features of a position: its fraction of filter_len, cosines and sines; odd", 3)
    sine_freq: Positive = field("(initial) frequency of the sine activations", 1.0)
    train_freq: bool = field("whether the frequencies are trained", True)
    train_positions: bool = field("whether the features of the positions are trained", False)
    modulate: bool = field("whether filters decay exponentially", True)
    fast_decay_pct: Positive = field(
        "fraction of filter_len at which the fastest channel has decayed", 0.3, when=("modulate",)
    )
    slow_decay_pct: Positive = field(
        "fraction of filter_len at which the slowest channel has decayed", 1.5, when=("modulate",)
    )
    decay_target: Annotated[float, Field(gt=0, lt=1)] = field(
        "what a filter has then decayed to", 0.01, when=("modulate",)
    )
    decay_shift: Number = field("what is added to the decay, below which it does not fall", 0.0, when=("modulate",))
    train_decay: bool = field("whether the decay rates are trained", False, when=("modulate",))
    dropout: Probability = field("dropout of the gated inputs of the long convolutions", 0.0, inherit="dropout")

    def check(self) -> None:
        """Refuse features that are not a fraction and pairs."""
        if self.emb_dim < 3 or self.emb_dim % 2 == 0:
            raise ValueError(
                f"emb_dim = {self.emb_dim} must be odd and at least 3: a fraction and pairs of cosine and sine"
            )

    def doubts(self, length: int | None) -> Iterator[str]:
        """Filters that end before the longest sequence does."""
        if length is not None and self.filter_len < length:
            yield f"filter_len = {self.filter_len} is below max_seq_len = {length}: longer texts are errors"

    @property
    def arguments(self) -> tuple[str, ...]:
        """The decoding state, and which tokens are padding."""
        return ("state", "mask")

    @property
    def filter_dim(self) -> int:
        """Channels of all filters together."""
        return (self.order - 1) * self.d_model

    @property
    def bands(self) -> int:
        """Frequencies of the features of a position."""
        return (self.emb_dim - 1) // 2

    @property
    def longest(self) -> int:
        """The taps of the filters."""
        return self.filter_len

    @property
    def streams(self) -> tuple[tuple[str, int], ...]:
        """What the input projection gives side by side: the gates, and what they gate."""
        return (*((f"x{i}", self.d_model) for i in range(self.order)), ("v", self.d_model))

    def ops(self) -> tuple[Op, ...]:
        """Projection, short convolution, the filters, then gate and long convolution in turn, gate, projection."""
        width = (self.order + 1) * self.d_model
        return (
            self._features(),
            linear("in_proj", self.d_model, width, self.bias, outputs=self.streams),
            Conv(
                name="short_filter",
                shape=("B", "T", width),
                inputs=("in_proj",),
                params=(
                    Param("short_filter.weight", (width, 1, self.d_conv)),
                    Param("short_filter.bias", (width,)),
                ),
                outputs=self.streams,
                kernel="short_conv",
                kept=(Kept("conv", ("B", self.d_conv - 1, width)),),
                channels=width,
                taps=self.d_conv,
            ),
            *self._filter(),
            *self._recurrence(),
            linear("out_proj", self.d_model, self.d_model, self.bias, inputs=("gate_0",), residual=True),
        )

    def _features(self) -> Op:
        """The features of the positions, with the tensors that the module itself holds."""
        own = [Param("filter_bias", (self.filter_dim,), note="skip of the long convolutions")]
        if self.train_freq:
            own.append(Param("freq", (self.filter_order,)))
        if self.train_positions:
            own.append(Param("positions", (self.filter_len, self.emb_dim)))
        if self.modulate and self.train_decay:
            own.append(Param("decay", (self.filter_dim,)))
        return Features(
            name="features", fn="t, cos, sin", shape=("T", self.emb_dim), inputs=(), params=tuple(own), dtype="float32",
            learned="positions" if self.train_positions else "", fixed=not self.train_positions,
        )  # fmt: skip

    def _sine(self, name: str, source: str) -> Op:
        return Sine(
            name=name, fn="sin", shape=("T", self.filter_order), inputs=(source,), dtype="float32",
            learned=self.train_freq,
        )  # fmt: skip

    def _filter(self) -> list[Op]:
        """The filter network, which runs once for all sequences: its rows are positions."""
        last = "filter_in_sin"
        found: list[Op] = [
            linear("filter_in", self.emb_dim, self.filter_order, True, inputs=("features",), rows=("T",), wide=True),
            self._sine(last, "filter_in"),
        ]
        for i in range(self.num_inner_mlps):
            name = f"filter_inner.{i}"
            found += [
                linear(name, self.filter_order, self.filter_order, True, inputs=(last,), rows=("T",), wide=True),
                self._sine(f"{name}_sin", name),
            ]
            last = f"{name}_sin"
        found.append(linear("filter_out", self.filter_order, self.filter_dim, inputs=(last,), rows=("T",), wide=True))
        if self.modulate:
            found.append(Decay(
                name="filter_decay", fn="decay", shape=("T", self.filter_dim), inputs=("filter_out",), dtype="float32",
                learned=self.train_decay,
            ))  # fmt: skip
        return found

    def _recurrence(self) -> list[Op]:
        shape, value, found = ("B", "T", self.d_model), "short_filter", list[Op]()
        for i in range(self.order - 1, 0, -1):
            conv = FFTConv(
                name=f"conv_{i}",
                shape=shape,
                inputs=(f"gate_{i}", "filter_decay" if self.modulate else "filter_out"),
                note="by FFT, without matrix products; decoding holds the filters, once for all sequences of a batch",
                kernel="long_conv",
                kept=self._kept(i),
                channels=self.d_model,
            )
            first = value == "short_filter"
            inputs, takes = (("short_filter",), ("v", f"x{i}")) if first else (("short_filter", value), (f"x{i}",))
            found += [elementwise(MULTIPLY, shape, inputs, f"gate_{i}", takes=takes), conv]
            value = conv.name
        return [*found, elementwise(MULTIPLY, shape, ("short_filter", value), "gate_0", takes=("x0",))]

    def _kept(self, i: int) -> tuple[Kept, ...]:
        """The inputs of a long convolution; with the first, the filters of all, evaluated once."""
        first = i == self.order - 1
        filters = Kept("filters", (self.filter_len, self.filter_dim), dtype="float32")
        inputs = Kept(f"{self.order - 1 - i}.inputs", ("B", 1, "S", self.d_model))
        return (filters, inputs) if first else (inputs,)
