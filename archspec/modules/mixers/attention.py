"""Softmax attention, as a module. What it computes is said in `archspec.layers.mixers.attention`."""

import torch
from torch import Tensor, nn

from archspec.kernels.attention.softmax import attention
from archspec.kernels.state import State, advance, append, once
from archspec.layers.mixers.attention import Attention as Config
from archspec.modules import submodule
from archspec.modules.projection import linear


class Attention(nn.Module):
    """y = o_proj(softmax(scale q k^T) v), in n_heads heads."""

    def __init__(self, c: Config):
        super().__init__()
        self.c = c
        self.q_proj = linear(c, "q_proj", c.d_model, c.n_heads * c.head_dim, bias=c.qkv_bias)
        if c.mask == "cross":
            self.k_proj = linear(c, "k_proj", c.d_memory, c.n_kv_heads * c.head_dim, bias=c.qkv_bias)
            self.v_proj = linear(c, "v_proj", c.d_memory, c.n_kv_heads * c.v_head_dim, bias=c.qkv_bias)
        else:
            self.k_proj = linear(c, "k_proj", c.d_model, c.n_kv_heads * c.head_dim, bias=c.qkv_bias)
            self.v_proj = linear(c, "v_proj", c.d_model, c.n_kv_heads * c.v_head_dim, bias=c.qkv_bias)
        # Normalised queries and keys bound the scores (Henry et al., 2020).
        if c.qk_norm == "head":
            self.q_norm = submodule(c.norm, c.head_dim)
            self.k_norm = submodule(c.norm, c.head_dim)
        elif c.qk_norm == "whole":
            self.q_norm = submodule(c.norm, c.n_heads * c.head_dim)
            self.k_norm = submodule(c.norm, c.n_kv_heads * c.head_dim)
        if c.position is not None and c.shared_bias is None:
            self.position = submodule(c.position)
        if c.sinks:
            self.sinks = nn.Parameter(torch.zeros(c.n_heads))
        if c.gate == "head":
            self.gate_proj = linear(c, "gate_proj", c.d_model, c.n_heads, bias=False)
        elif c.gate == "elementwise":
            self.gate_proj = linear(c, "gate_proj", c.d_model, c.n_heads * c.v_head_dim, bias=False)
        self.o_proj = linear(c, "o_proj", c.n_heads * c.v_head_dim, c.d_model, bias=c.out_bias)

    def forward(
        self,
        x: Tensor,
        state: State | None = None,
        mask: Tensor | None = None,
        memory: Tensor | None = None,
        memory_mask: Tensor | None = None,
        bias: Tensor | None = None,
        prefix_len: int | Tensor | None = None,
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
        else:
            k, v = self.keys_and_values(x)
        if c.rotates:
            q, k = self.position(q, k, advance(state, T))
        if c.mask == "causal" or c.mask == "prefix":
            k, v = append(state, k=k, v=v, keep=c.keep)  # (B, n_kv_heads, S, head_dim)
        if c.shared_bias is not None and c.window is not None and bias is not None:
            bias = bias[..., -k.shape[2] :]  # on the keys that are still kept
        y = attention(
            q,
            k,
            v,
            causal=c.mask == "causal" or c.mask == "prefix",
            window=c.window,
            prefix_len=prefix_len if c.mask == "prefix" else None,
            scale=c.score_scale,
            softcap=c.softcap,
            sinks=self.sinks if c.sinks else None,
            alibi=self.position() if c.slopes else None,
            bias=self.position(x, total=k.shape[2]) if c.own_bias else bias if c.shared_bias is not None else None,
            key_mask=mask if c.mask == "bidirectional" else memory_mask if c.mask == "cross" else None,
            dropout=c.dropout if c.dropout and self.training else 0.0,
        )
        if c.gate == "head":
            y = y * torch.sigmoid(self.gate_proj(x)).transpose(1, 2).unsqueeze(-1)  # (B, n_heads, T, v_head_dim)
        y = y.transpose(1, 2).reshape(B, T, c.n_heads * c.v_head_dim)  # (B, T, n_heads * v_head_dim)
        if c.gate == "elementwise":
            y = y * torch.sigmoid(self.gate_proj(x))
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
