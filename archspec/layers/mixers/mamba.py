"""Mamba: a selective state space, whose step, input and read-out depend on the token.

    x, z = in_proj(u);  x = silu(conv(x));  dt, B, C = x_proj(x);  dt = softplus(dt_proj(dt))
    h_t = exp(dt_t A) h_{t-1} + dt_t B_t x_t;  y_t = C_t h_t + D x_t;  out_proj(y * silu(z)),  A = -exp(A_log)

State while decoding: d_inner x d_state numbers and the last d_conv - 1 inputs of the convolution, however long the
sequence. Cost O(T d_inner d_state) to train beside the projections, O(d_inner d_state) a decoded token.

Sources: Gu and Dao 2023 (arXiv 2312.00752); Lieber et al. 2024 (Jamba) and Zuo et al. 2024 (Falcon Mamba) for the
norms of dt, B and C.
"""

from dataclasses import replace
from typing import Any, ClassVar, Literal

from archspec.layers.base import MixerComponent, NormComponent
from archspec.layers.fields import Positive, Size, Width, derived, field, inherited, slot
from archspec.layers.ops import Conv, Elementwise, Kept, Op, Param, Scan, elementwise, gate, linear


class Mamba(MixerComponent):
    """Selective state space with a decay for each channel and state (S6)."""

    examples: ClassVar[tuple[dict[str, Any], ...]] = (
        {},
        {
            "d_inner": 24,
            "d_state": 4,
            "d_conv": 3,
            "dt_rank": 3,
            "conv_bias": False,
            "bias": True,
            "dt_init": "constant",
        },
        {"d_state": 8, "bcdt_norm": {"kind": "rmsnorm"}},
    )

    kind: Literal["mamba"] = "mamba"
    d_model: Width = inherited("width of the residual stream")
    d_inner: Width = derived("channels of the scan", "2 * d_model")
    d_state: Width = field("states of a channel", 16)
    d_conv: Size = field("taps of the short convolution", 4)
    dt_rank: Width = derived("rank of the projection that gives the step sizes", "ceil(d_model / 16)")
    conv_bias: bool = field("bias of the short convolution", True)
    bias: bool = field("bias of the input and output projections", False)
    bcdt_norm: NormComponent | None = slot(
        "norm", "norm of dt, B and C, each on its own: with weights as in Jamba, without as in Falcon Mamba", None
    )
    dt_init: Literal["random", "constant"] = field(
        "initial weights of dt_proj: uniform up to a bound, or the bound", "random"
    )
    dt_scale: Positive = field("factor of that bound, dt_rank ** -0.5", 1.0)
    dt_min: Positive = field("smallest initial step size (sizes are drawn log-uniformly)", 0.001)
    dt_max: Positive = field("largest initial step size", 0.1)

    def check(self) -> None:
        """Refuse an empty range of step sizes."""
        if self.dt_min > self.dt_max:
            raise ValueError(f"dt_min = {self.dt_min} must not be greater than dt_max = {self.dt_max}")

    @property
    def arguments(self) -> tuple[str, ...]:
        """The decoding state, and which tokens are padding."""
        return ("state", "mask")

    def ops(self) -> tuple[Op, ...]:
        """Projection, short convolution, step size, B and C from what it gives, scan, gate, projection."""
        inner = ("B", "T", self.d_inner)
        selected = (("dt", self.dt_rank), ("B", self.d_state), ("C", self.d_state))
        return (
            self._own(),
            linear(
                "in_proj", self.d_model, 2 * self.d_inner, self.bias, outputs=(("x", self.d_inner), ("z", self.d_inner))
            ),
            self._conv(),
            elementwise("silu", inner, ("conv1d",), within="conv1d"),
            linear("x_proj", self.d_inner, sum(w for _, w in selected), inputs=("silu",), outputs=selected),
            *self._norms(),
            self._step(),
            elementwise("softplus", inner, ("dt_proj",), "dt", dtype="float32"),
            self._scan(),
            gate("gate", inner, ("scan", "in_proj"), "silu", within="scan", takes=("z",)),
            linear("out_proj", self.d_inner, self.d_model, self.bias, inputs=("gate",), residual=True),
        )

    def _step(self) -> Op:
        source, takes = ("dt_norm", ()) if self.bcdt_norm else ("x_proj", ("dt",))
        return linear("dt_proj", self.dt_rank, self.d_inner, True, inputs=(source,), takes=takes)

    def _own(self) -> Op:
        return Elementwise(
            name="A",
            fn="-exp(A_log)",
            dtype="float32",
            shape=(self.d_inner, self.d_state),
            inputs=(),
            params=(Param("A_log", (self.d_inner, self.d_state)), Param("D", (self.d_inner,), note="skip of the scan")),
        )

    def _conv(self) -> Op:
        bias = (Param("conv1d.bias", (self.d_inner,)),) if self.conv_bias else ()
        return Conv(
            name="conv1d",
            shape=("B", "T", self.d_inner),
            inputs=("in_proj",),
            takes=("x",),
            params=(Param("conv1d.weight", (self.d_inner, 1, self.d_conv)), *bias),
            kernel="short_conv",
            kept=(Kept("conv", ("B", self.d_conv - 1, self.d_inner)),),
            channels=self.d_inner,
            taps=self.d_conv,
        )

    def _norms(self) -> tuple[Op, ...]:
        """A norm of each of dt, B and C, where there are any."""
        if self.bcdt_norm is None:
            return ()
        found = []
        for name, width in (("dt", self.dt_rank), ("B", self.d_state), ("C", self.d_state)):
            op = self.bcdt_norm.op(f"{name.lower()}_norm", width, ("x_proj",), ("B", "T", width))
            found.append(replace(op, takes=(name,)))
        return tuple(found)

    def _scan(self) -> Op:
        return Scan(
            name="scan",
            shape=("B", "T", self.d_inner),
            inputs=("silu", "dt", *(("b_norm", "c_norm") if self.bcdt_norm else ("x_proj",)), "A"),
            takes=() if self.bcdt_norm else ("B", "C"),
            label="selective scan",
            note="only the read-out is a matrix product, the decay and the update are element-wise",
            kernel="selective_scan",
            kept=(Kept("ssm", ("B", self.d_inner, self.d_state), dtype="float32"),),
            width=self.d_inner,
            d_state=self.d_state,
            gated=True,
        )
