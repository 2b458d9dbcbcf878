"""RWKV-4's time mixing: a moving average of values whose weights are exponentials of keys, which decay with time.

    k, v, r = k_proj, v_proj, r_proj of  mu x_t + (1 - mu) x_{t-1}                 mu = time_mix_k, _v, _r
    y_t = (sum_{s<t} exp(k_s + (t-1-s) w) v_s + exp(u + k_t) v_t) / (the same sum without v)
    out_proj(sigmoid(r) * y)                                       w = -exp(time_decay), u = time_first

State while decoding: the last token, and of each channel the sums above and below the line and the exponent of both,
however long the sequence. Cost O(T d_inner) to train beside the projections, all of it element-wise; O(d_inner) a
decoded token.

Channels start with decays from slow to fast, in deeper layers more of them slow; and with shares of the token itself
from none to nearly all, in deeper layers more of them large.

Sources: Peng et al. 2023 (arXiv 2305.13048); initial values as in BlinkDL/RWKV-LM (RWKV-v4).
"""

from typing import Any, ClassVar, Literal

from archspec.layers.base import MixerComponent
from archspec.layers.fields import Size, Width, derived, inherited
from archspec.layers.ops import WKV, Elementwise, Kept, Op, Param, gate, linear, split, token_shift


class RWKV4(MixerComponent):
    """Time mixing with token shift, a decay for each channel and a bonus for the current token."""

    examples: ClassVar[tuple[dict[str, Any], ...]] = ({}, {"d_inner": 24})

    kind: Literal["rwkv4"] = "rwkv4"
    d_model: Width = inherited("width of the residual stream")
    d_inner: Width = derived("channels of the average", "d_model")
    n_layers: Size = inherited("layers of the stack")

    @property
    def numbered(self) -> bool:
        """Its initial values depend on how deep it stands."""
        return True

    @property
    def arguments(self) -> tuple[str, ...]:
        """The decoding state, and which tokens are padding."""
        return ("state", "mask")

    @property
    def title(self) -> str:
        """The name as its authors write it."""
        return "RWKV-4"

    @property
    def shards(self) -> dict[str, tuple[str, ...]]:
        """Channels of the average."""
        return {"channels": ("d_inner",)}

    def ops(self) -> tuple[Op, ...]:
        """Decay, token shift, three projections, average, gate, projection."""
        inner = ("B", "T", self.d_inner)
        keys, values, gates = (
            split(linear(f"{x}_proj", self.d_model, self.d_inner, inputs=(f"mix_{x}",)), "channels") for x in "kvr"
        )
        out = linear("out_proj", self.d_inner, self.d_model, inputs=("gate",), residual=True)
        return (
            self._decay(),
            *token_shift(self.d_model, "kvr"),
            keys,
            values,
            gates,
            self._average(),
            gate("gate", inner, ("wkv", "r_proj"), "sigmoid"),
            split(out, "channels", 1),
        )

    def _decay(self) -> Op:
        own = {"time_decay": "log of the decay rate", "time_first": "bonus of the current token"}
        return Elementwise(
            name="decay",
            fn="-exp(time_decay)",
            dtype="float32",
            shape=(self.d_inner,),
            inputs=(),
            params=tuple(Param(n, (self.d_inner,), note=note, split=("channels", 0)) for n, note in own.items()),
        )

    def _average(self) -> Op:
        kept = tuple(Kept(name, ("B", self.d_inner), dtype="float32") for name in ("num", "den", "max"))
        return WKV(
            name="wkv",
            shape=("B", "T", self.d_inner),
            inputs=("k_proj", "v_proj", "decay"),
            label="WKV",
            note="sums, decays and exponentials are element-wise, without matrix products",
            kernel="wkv",
            kept=kept,
            width=self.d_inner,
            d_state=len(kept),
        )
