"""Mamba-2: a selective state space whose decay is one number a head, computed as matrix products (SSD).

    z, x, B, C, dt = in_proj(u);  x, B, C = silu(conv(x, B, C));  dt = softplus(dt + dt_bias)
    S_t = exp(dt_t A) S_{t-1} + dt_t x_t B_t^T;  y_t = S_t C_t + D x_t,  A = -exp(A_log), in each head
    out_proj(norm(y * silu(z)))

State while decoding: n_heads x head_dim x d_state numbers and the last d_conv - 1 inputs of the convolution, however
long the sequence. Cost O(T (chunk + d_state) d_inner) to train beside the projections, O(d_inner d_state) a decoded
token.

Source: Dao and Gu 2024 (arXiv 2405.21060).
"""

from typing import Any, ClassVar, Literal

from archspec.layers.base import MixerComponent
from archspec.layers.fields import NotNegative, Positive, Size, Tokens, Width, derived, field, inherited
from archspec.layers.ops import Conv, Elementwise, GatedNorm, Kept, Op, Param, Scan, StepSize, elementwise, gate, linear


class Mamba2(MixerComponent):
    """State space duality: heads with a scalar decay, B and C shared within groups of heads."""

    examples: ClassVar[tuple[dict[str, Any], ...]] = (
        {"head_dim": 8, "d_state": 6, "chunk": 4},
        {"head_dim": 4, "d_state": 8, "n_groups": 2, "conv_bias": False, "bias": True, "norm_place": "before_gate",
         "d_conv": 3, "chunk": 8},
        {"head_dim": 8, "d_state": 4, "norm_place": "none", "d_inner": 24, "dt_limit_min": 0.02, "dt_limit_max": 0.05},
        {"head_dim": 8, "d_state": 4, "norm_group_size": 8, "norm_eps": 0.001},
    )  # fmt: skip

    kind: Literal["mamba2"] = "mamba2"
    d_model: Width = inherited("width of the residual stream")
    d_inner: Width = derived("channels of the scan", "2 * d_model")
    head_dim: Width = field("channels of a head", 64)
    n_heads: Size = derived("heads, each with a decay of its own", "d_inner / head_dim")
    n_groups: Size = field("groups of heads that share B and C", 1)
    d_state: Width = field("states of a channel", 128)
    d_conv: Size = field("taps of the short convolution of x, B and C", 4)
    chunk: Tokens = field("tokens that are computed as one masked matrix product", 64)
    conv_bias: bool = field("bias of the short convolution", True)
    bias: bool = field("bias of the input and output projections", False)
    norm_place: Literal["after_gate", "before_gate", "none"] = field(
        "the RMS norm: norm(y * silu(z)), norm(y) * silu(z), or y * silu(z)", "after_gate"
    )
    norm_eps: Positive = field(
        "epsilon of the RMS norm", 1e-5, inherit="norm.eps", when=("norm_place", "after_gate", "before_gate")
    )
    norm_group_size: Width = derived(
        "channels over which the RMS norm takes its mean",
        "d_inner / n_groups",
        when=("norm_place", "after_gate", "before_gate"),
    )
    dt_limit_min: NotNegative = field("smallest step size, after the softplus", 0.0)
    dt_limit_max: Positive | None = field("largest step size, after the softplus", None)
    dt_min: Positive = field("smallest initial step size (sizes are drawn log-uniformly)", 0.001)
    dt_max: Positive = field("largest initial step size", 0.1)
    a_min: Positive = field("smallest initial decay rate (rates are drawn uniformly)", 1.0)
    a_max: Positive = field("largest initial decay rate", 16.0)

    def check(self) -> None:
        """Refuse heads and groups that do not divide, and empty ranges."""
        if self.n_heads * self.head_dim != self.d_inner:
            raise ValueError(
                f"n_heads = {self.n_heads} times head_dim = {self.head_dim} must be d_inner = {self.d_inner}"
            )
        if self.n_heads % self.n_groups:
            raise ValueError(f"n_heads = {self.n_heads} must be a multiple of n_groups = {self.n_groups}")
        if self.norm_place != "none" and self.d_inner % self.norm_group_size:
            raise ValueError(f"d_inner = {self.d_inner} must be a multiple of norm_group_size = {self.norm_group_size}")
        for low, high in (("dt_min", "dt_max"), ("a_min", "a_max"), ("dt_limit_min", "dt_limit_max")):
            least, most = getattr(self, low), getattr(self, high)
            if most is not None and least > most:
                raise ValueError(f"{low} = {least} must not be greater than {high} = {most}")

    @property
    def arguments(self) -> tuple[str, ...]:
        """The decoding state, and which tokens are padding."""
        return ("state", "mask")

    @property
    def title(self) -> str:
        """The name as its authors write it."""
        return "Mamba-2"

    @property
    def conv_dim(self) -> int:
        """Channels of the short convolution: x, B and C."""
        return self.d_inner + 2 * self.n_groups * self.d_state

    @property
    def limits_dt(self) -> bool:
        """Whether step sizes are clamped."""
        return self.dt_limit_min > 0 or self.dt_limit_max is not None

    def ops(self) -> tuple[Op, ...]:
        """Projection, short convolution, step size, scan, gate and norm, projection."""
        gated = self._gated()
        shared = self.n_groups * self.d_state
        parts = (("z", self.d_inner), ("x", self.d_inner), ("B", shared), ("C", shared), ("dt", self.n_heads))
        return (
            self._own(),
            linear("in_proj", self.d_model, sum(w for _, w in parts), self.bias, outputs=parts),
            self._conv(),
            elementwise("silu", ("B", "T", self.conv_dim), ("conv1d",), within="conv1d"),
            self._step(),
            self._scan(),
            *gated,
            linear("out_proj", self.d_inner, self.d_model, self.bias, inputs=(gated[-1].name,), residual=True),
        )

    def _step(self) -> Op:
        fn = "softplus, clamp" if self.limits_dt else "softplus"
        return StepSize(
            name="dt", fn=fn, shape=("B", "T", self.n_heads), inputs=("in_proj", "A"), takes=("dt",), dtype="float32",
            limited=self.limits_dt,
        )  # fmt: skip

    def _own(self) -> Op:
        names = (("A_log", ""), ("D", "skip of the scan"), ("dt_bias", "bias of the step size"))
        return Elementwise(
            name="A",
            fn="-exp(A_log)",
            dtype="float32",
            shape=(self.n_heads,),
            inputs=(),
            params=tuple(Param(name, (self.n_heads,), note=note) for name, note in names),
        )

    def _conv(self) -> Op:
        bias = (Param("conv1d.bias", (self.conv_dim,)),) if self.conv_bias else ()
        return Conv(
            name="conv1d",
            shape=("B", "T", self.conv_dim),
            inputs=("in_proj",),
            takes=("x", "B", "C"),
            params=(Param("conv1d.weight", (self.conv_dim, 1, self.d_conv)), *bias),
            kernel="short_conv",
            kept=(Kept("conv", ("B", self.d_conv - 1, self.conv_dim)),),
            channels=self.conv_dim,
            taps=self.d_conv,
        )

    def _scan(self) -> Op:
        """Of a chunk of L tokens: C B^T and its product with x, the states written, and the states read."""
        return Scan(
            name="scan",
            shape=("B", "T", self.n_heads, self.head_dim),
            inputs=("silu", "dt", "A"),
            label="Mamba-2 scan",
            note="FLOPs of whole chunks; a decoded token costs 2 d_inner d_state",
            kernel="ssd",
            kept=(Kept("ssm", ("B", self.n_heads, self.head_dim, self.d_state), dtype="float32"),),
            chunk=self.chunk,
            width=self.d_inner,
            d_state=self.d_state,
            shared=self.n_groups * self.d_state,
        )

    def _gated(self) -> tuple[Op, ...]:
        inner = ("B", "T", self.d_inner)
        if self.norm_place == "none":
            return (gate("gate", inner, ("scan", "in_proj"), "silu", takes=("z",)),)
        before = self.norm_place == "before_gate"
        norm = GatedNorm(
            name="norm",
            shape=inner,
            inputs=("scan",) if before else ("gate",),
            params=(Param("norm.weight", (self.d_inner,)),),
            label="RMSNorm",
            kernel="gated_rms_norm",
            dim=self.norm_group_size,
            kind="rmsnorm",
            gate_first=not before,
        )
        gated = gate("gate", inner, ("norm" if before else "scan", "in_proj"), "silu", within="norm", takes=("z",))
        return (norm, gated) if before else (gated, norm)
