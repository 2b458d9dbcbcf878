"""Softmax attention, as a module. What it computes is said in `archspec.layers.mixers.attention`."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archspec.kernels.attention.position_bias import place_distances
from archspec.kernels.attention.softmax import attention
from archspec.kernels.padding import of_one_document
from archspec.kernels.state import State, advance, append, once
from archspec.layers.mixers.attention import Attention as Config
from archspec.modules import submodule
from archspec.modules.projection import linear


def check_prefix(
    prefix_len: int | Tensor | None, T: int, S: int, state: State | None, key_mask: Tensor | None = None
) -> None:
    """Refuse a prefix that is no length, or that the first of several calls does not hold whole.

    prefix_len: one length or (B,) of them; T: tokens of this call, the last of S so far; key_mask (B, S): real ones.
    """
    first = S == T
    if prefix_len is not None and not torch.compiler.is_compiling():
        lengths = torch.as_tensor(prefix_len if isinstance(prefix_len, int | Tensor) else 0.0)
        if lengths.is_floating_point() or lengths.is_complex() or lengths.dtype == torch.bool:
            raise TypeError(f"prefix_len is {prefix_len}, expected a whole number of tokens, or one a row")
        least, most = (int(lengths.min()), int(lengths.max())) if lengths.numel() else (0, 0)
        if least < 0:
            raise ValueError(f"prefix_len is {least}, expected 0 or more tokens")
        begun = T if state is None or first else int(state.get("prefix_len", 0))
        short = most > begun
        if state is not None and first and key_mask is not None:
            held = key_mask.sum(1)
            short = bool((lengths.to(held.device) > held).any())
            begun = int(held.min()) if held.numel() else T
        if state is not None and short:
            raise ValueError(
                f"prefix_len is {most}, but the first call of this state held {begun} of its tokens; it must hold all"
            )
        if state is not None and first:
            state["prefix_len"] = most


class Attention(nn.Module):
    """y = o_proj(softmax(scale q k^T) v), in n_heads heads."""

    def __init__(self, c: Config):
        super().__init__()
        self.c = c
        self.q_proj = linear(c, "q_proj", c.d_model, c.n_heads * c.head_dim, bias=c.qkv_bias)
        if c.mask == "cross":
            self.k_proj = linear(c, "k_proj", c.d_memory, c.n_kv_heads * c.head_dim, bias=c.qkv_bias)
            self.v_proj = linear(c, "v_proj", c.d_memory, c.n_kv_heads * c.v_head_dim, bias=c.qkv_bias)
        elif not c.reads:
            self.k_proj = linear(c, "k_proj", c.d_model, c.n_kv_heads * c.head_dim, bias=c.qkv_bias)
            self.v_proj = linear(c, "v_proj", c.d_model, c.n_kv_heads * c.v_head_dim, bias=c.qkv_bias)
        # Normalised queries and keys bound the scores (Henry et al., 2020).
        if c.qk_norm == "head":
            self.q_norm = submodule(c.norm, c.head_dim)
            if not c.reads:
                self.k_norm = submodule(c.norm, c.head_dim)
        elif c.qk_norm == "whole":
            self.q_norm = submodule(c.norm, c.n_heads * c.head_dim)
            if not c.reads:
                self.k_norm = submodule(c.norm, c.n_kv_heads * c.head_dim)
        if c.position is not None and c.shared_bias is None:
            self.position = submodule(c.position)
        if c.sinks:
            self.sinks = nn.Parameter(torch.empty(c.n_heads))
        if c.gate == "head":
            self.gate_proj = linear(c, "gate_proj", c.d_model, c.n_heads, bias=False)
        elif c.gate == "elementwise":
            self.gate_proj = linear(c, "gate_proj", c.d_model, c.n_heads * c.v_head_dim, bias=False)
        self.o_proj = linear(c, "o_proj", c.n_heads * c.v_head_dim, c.d_model, bias=c.out_bias)
        if c.sinks:
            self.reset_parameters()

    def reset_parameters(self) -> None:
        """Sinks start at a score of 0."""
        if self.c.sinks:
            nn.init.zeros_(self.sinks)

    def forward(
        self,
        x: Tensor,
        state: State | None = None,
        mask: Tensor | None = None,
        key_mask: Tensor | None = None,
        positions: Tensor | None = None,
        places: Tensor | None = None,
        documents: Tensor | None = None,
        document_ids: Tensor | None = None,
        memory_documents: Tensor | None = None,
        memory: Tensor | None = None,
        memory_mask: Tensor | None = None,
        keys: Tensor | None = None,
        values: Tensor | None = None,
        bias: Tensor | None = None,
        prefix_len: int | Tensor | None = None,
        global_mask: Tensor | None = None,
    ) -> Tensor:
        """x (B, T, d_model) -> (B, T, d_model)."""
        c = self.c
        if c.shared_bias is not None:
            assert bias is not None
        B, T, _ = x.shape
        if c.qk_norm == "whole":
            q = self.q_norm(self.q_proj(x)).view(B, T, c.n_heads, c.head_dim).transpose(1, 2)
        else:
            q = self.q_proj(x).view(B, T, c.n_heads, c.head_dim).transpose(1, 2)  # (B, n_heads, T, head_dim)
        if c.qk_norm == "head":
            q = self.q_norm(q)
        if c.mask == "cross":
            assert memory is not None
            k, v = once(state, "memory", lambda: self.keys_and_values(memory))  # the memory does not change
        elif c.reads:
            assert keys is not None
            assert values is not None
            k, v = keys, values  # of all tokens so far, ready as they are
        else:
            k, v = self.keys_and_values(x)
        if c.rotates and c.reads:
            # The keys are turned already: there are no others.
            q, _ = self.position(q, q[:, :0], advance(state, T), positions=positions if c.counted else None)
        elif c.rotates:
            q, k = self.position(q, k, advance(state, T), positions=positions if c.counted else None)
        if (c.mask == "causal" or c.mask == "prefix") and not c.reads:
            k, v = append(
                state, k=k, v=v, keep=None if c.window is None else c.window - 1, mask=mask if c.padded else None
            )  # (B, n_kv_heads, S, head_dim)
        if (c.mask == "causal" or c.mask == "prefix") and c.padded and key_mask is not None:
            key_mask = key_mask[:, -k.shape[2] :]  # of the keys that are still kept
        if c.mask == "prefix" and not c.plain:
            check_prefix(prefix_len, T, k.shape[2], state, key_mask=key_mask if c.padded else None)
        if c.mask == "prefix" and c.padded and prefix_len is not None and key_mask is not None:
            prefix_len = prefix_len + (~key_mask).sum(1)  # padding comes before it
        if c.placed and (c.slopes or c.own_bias) and places is not None:
            distances = place_distances(
                places, state, None if c.window is None else c.window - 1, mask if c.padded else None
            )  # (B, T, S)
            if c.slopes:
                bias = self.position(distances, device=q.device)  # (B, n_heads, T, S)
            else:
                bias = self.position(x, distances=distances)  # (B, n_heads, T, S)
        elif c.placed and c.own_bias:
            bias = self.position(x, total=k.shape[2])  # (1, n_heads, T, S)
        if c.mask == "cross" and c.packed:
            bias = of_one_document(document_ids, memory_documents, q.dtype)  # (B, 1, T, M)
        if c.shared_bias is not None and c.window is not None and bias is not None:
            bias = bias[..., -k.shape[2] :]  # on the keys that are still kept
        if c.plain and c.v_head_dim < c.head_dim:
            # PyTorch's operator is fused where values are as wide as keys.
            v = F.pad(v, (0, c.head_dim - c.v_head_dim))
        y = attention(
            q,
            k,
            v,
            causal=c.mask == "causal" or c.mask == "prefix",
            window=c.window,
            prefix_len=prefix_len if c.mask == "prefix" else None,
            global_tokens=global_mask if c.global_tokens else None,
            scale=c.score_scale,
            softcap=c.softcap,
            sinks=self.sinks if c.sinks else None,
            alibi=self.position(device=q.device) if c.slopes and (not c.placed or places is None) else None,
            bias=bias
            if c.shared_bias is not None or (c.placed and (c.slopes or c.own_bias)) or (c.packed and c.mask == "cross")
            else self.position(x, total=k.shape[2])
            if c.own_bias
            else None,
            documents=documents if c.packed and c.mask != "cross" else None,
            key_mask=None
            if not c.padded
            else mask
            if c.mask == "bidirectional"
            else memory_mask
            if c.mask == "cross"
            else key_mask,
            dropout=c.dropout if c.dropout and self.training else 0.0,
        )
        if c.plain and c.v_head_dim < c.head_dim:
            y = y[..., : c.v_head_dim]
        if c.gate == "head":
            y = y * torch.sigmoid(self.gate_proj(x)).transpose(1, 2).unsqueeze(-1)  # (B, n_heads, T, v_head_dim)
        y = y.transpose(1, 2).reshape(B, T, c.n_heads * c.v_head_dim)  # (B, T, n_heads * v_head_dim)
        if c.gate == "elementwise":
            y = y * torch.sigmoid(self.gate_proj(x))
        if c.gives and c.plain and c.v_head_dim < c.head_dim:
            v = v[..., : c.v_head_dim]
        if c.gives:
            return self.o_proj(y), k, v  # type: ignore[return-value]
        return self.o_proj(y)

    def keys_and_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, S, .) -> keys (B, n_kv_heads, S, head_dim), values (B, n_kv_heads, S, v_head_dim)."""
        c = self.c
        B, S, _ = x.shape
        if c.qk_norm == "whole":
            k = self.k_norm(self.k_proj(x)).view(B, S, c.n_kv_heads, c.head_dim).transpose(1, 2)
        else:
            k = self.k_proj(x).view(B, S, c.n_kv_heads, c.head_dim).transpose(1, 2)
        if c.qk_norm == "head":
            k = self.k_norm(k)
        v = self.v_proj(x).view(B, S, c.n_kv_heads, c.v_head_dim).transpose(1, 2)
        return k, v
