"""RWKV-4's channel mixing: an MLP with a gate, both of which read a token mixed with the one before it.

    k, r = k_proj, r_proj of  mu x_t + (1 - mu) x_{t-1}                            mu = time_mix_k, _r
    y = sigmoid(r) * v_proj(relu(k)^2)

State while decoding: the last token. Cost O(d_model (d_ff + d_model)) a token.

Sources: Peng et al. 2023 (arXiv 2305.13048); initial values as in BlinkDL/RWKV-LM (RWKV-v4).
"""

from typing import Any, ClassVar, Literal

from archspec.layers.base import FFNComponent
from archspec.layers.fields import Size, Width, derived, inherited
from archspec.layers.ops import Op, elementwise, gate, linear, split, token_shift


class RWKV4ChannelMix(FFNComponent):
    """Token shift, squared ReLU, and a gate over d_model channels."""

    examples: ClassVar[tuple[dict[str, Any], ...]] = ({}, {"d_ff": 24})

    kind: Literal["rwkv4_channel_mix"] = "rwkv4_channel_mix"
    d_model: Width = inherited("width of the residual stream")
    d_ff: Width = derived("hidden units", "4 * d_model")
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
        return "RWKV-4 channel mixing"

    @property
    def short(self) -> str:
        """Of which model it is, the mixer says."""
        return "channel mixing"

    @property
    def mixes(self) -> bool:
        """It reads the token before."""
        return True

    @property
    def tells_order(self) -> bool:
        """It knows which token is the one before."""
        return True

    @property
    def aligned(self) -> bool:
        """The token before is the last real one."""
        return True

    @property
    def shards(self) -> dict[str, tuple[str, ...]]:
        """Hidden units."""
        return {"channels": ("d_ff",)}

    def ops(self) -> tuple[Op, ...]:
        """Token shift, projection and activation, gate, projection back."""
        back = linear("v_proj", self.d_ff, self.d_model, inputs=("act",), residual=True)
        return (
            *token_shift(self.d_model, "kr"),
            split(linear("k_proj", self.d_model, self.d_ff, inputs=("mix_k",)), "channels"),
            elementwise("relu2", ("B", "T", self.d_ff), ("k_proj",), "act"),
            split(back, "channels", 1),
            linear("r_proj", self.d_model, self.d_model, inputs=("mix_r",)),
            gate("gate", ("B", "T", self.d_model), ("v_proj", "r_proj"), "sigmoid"),
        )
