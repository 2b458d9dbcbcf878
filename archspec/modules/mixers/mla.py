"""Multi-head latent attention, as a module. What it computes is said in `archspec.layers.mixers.mla`."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archspec.kernels.attention.latent import latent_attention
from archspec.kernels.attention.softmax import attention
from archspec.kernels.state import State, advance, append
from archspec.layers.mixers.mla import MLA as Config
from archspec.modules import submodule
from archspec.modules.projection import linear


class MLA(nn.Module):
    """Attention whose keys and values are read from a latent of kv_lora_rank channels a token."""

    def __init__(self, c: Config):
        super().__init__()
        self.c = c
        if c.q_lora_rank is None:
            self.q_proj = linear(c, "q_proj", c.d_model, c.n_heads * c.qk_head_dim, bias=False)
        else:
            self.q_a_proj = linear(c, "q_a_proj", c.d_model, c.q_lora_rank, bias=c.bias)
            self.q_a_norm = submodule(c.norm, c.q_lora_rank)
            self.q_b_proj = linear(c, "q_b_proj", c.q_lora_rank, c.n_heads * c.qk_head_dim, bias=False)
        self.kv_a_proj = linear(c, "kv_a_proj", c.d_model, c.kv_lora_rank + c.qk_rope_head_dim, bias=c.bias)
        self.kv_a_norm = submodule(c.norm, c.kv_lora_rank)
        self.kv_b_proj = linear(
            c, "kv_b_proj", c.kv_lora_rank, c.n_heads * (c.qk_nope_head_dim + c.v_head_dim), bias=False
        )
        if c.position is not None:
            self.position = submodule(c.position)
        self.o_proj = linear(c, "o_proj", c.n_heads * c.v_head_dim, c.d_model, bias=c.bias)

    def forward(
        self,
        x: Tensor,
        state: State | None = None,
        mask: Tensor | None = None,
        key_mask: Tensor | None = None,
        positions: Tensor | None = None,
        documents: Tensor | None = None,
    ) -> Tensor:
        """x (B, T, d_model) -> (B, T, d_model)."""
        c = self.c
        B, T, _ = x.shape
        if c.q_lora_rank is None:
            q = self.q_proj(x)
        else:
            q = self.q_b_proj(self.q_a_norm(self.q_a_proj(x)))
        q = q.view(B, T, c.n_heads, c.qk_head_dim).transpose(1, 2)  # (B, n_heads, T, qk_head_dim)
        q_nope, q_rope = q.split([c.qk_nope_head_dim, c.qk_rope_head_dim], dim=-1)
        latent, k_rope = self.kv_a_proj(x).unsqueeze(1).split([c.kv_lora_rank, c.qk_rope_head_dim], dim=-1)
        latent = self.kv_a_norm(latent)  # (B, 1, T, kv_lora_rank)
        seen = advance(state, T)
        if c.position is not None:
            q_rope, k_rope = self.position(q_rope, k_rope, seen, positions=positions if c.counted else None)
        latent, k_rope = append(
            state, latent=latent, k_rope=k_rope, mask=mask if c.padded else None
        )  # (B, 1, S, kv_lora_rank | qk_rope_head_dim)
        if seen:
            y = self.absorbed(q_nope, q_rope, latent, k_rope, key_mask=key_mask if c.padded else None)
        else:
            y = self.expanded(
                q_nope,
                q_rope,
                latent,
                k_rope,
                key_mask=key_mask if c.padded else None,
                documents=documents if c.packed else None,
            )
        y = y.transpose(1, 2).reshape(B, T, c.n_heads * c.v_head_dim)
        return self.o_proj(y)

    def expanded(
        self,
        q_nope: Tensor,
        q_rope: Tensor,
        latent: Tensor,
        k_rope: Tensor,
        key_mask: Tensor | None = None,
        documents: Tensor | None = None,
    ) -> Tensor:
        """Attention over keys and values of each head, (B, n_heads, T, v_head_dim): cheapest for a whole sequence."""
        c = self.c
        B, _, S, _ = latent.shape
        kv = self.kv_b_proj(latent).view(B, S, c.n_heads, c.qk_nope_head_dim + c.v_head_dim)
        k_nope, v = kv.transpose(1, 2).split([c.qk_nope_head_dim, c.v_head_dim], dim=-1)
        if c.plain and c.v_head_dim < c.qk_head_dim:
            # PyTorch's operator is fused where values are as wide as keys.
            v = F.pad(v, (0, c.qk_head_dim - c.v_head_dim))
        y = attention(
            torch.cat((q_nope, q_rope), dim=-1),
            torch.cat((k_nope, k_rope.expand(B, c.n_heads, S, c.qk_rope_head_dim)), dim=-1),
            v,
            causal=True,
            scale=c.softmax_scale,
            documents=documents if c.packed else None,
            key_mask=key_mask if c.padded else None,
            dropout=c.dropout if c.dropout and self.training else 0.0,
        )
        return y[..., : c.v_head_dim] if c.plain and c.v_head_dim < c.qk_head_dim else y

    def absorbed(
        self, q_nope: Tensor, q_rope: Tensor, latent: Tensor, k_rope: Tensor, key_mask: Tensor | None = None
    ) -> Tensor:
        """The same attention over the latents, which all heads share: no key or value of an earlier token is made."""
        c = self.c
        w = self.kv_b_proj.weight.view(c.n_heads, c.qk_nope_head_dim + c.v_head_dim, c.kv_lora_rank)
        w_k, w_v = torch.split(w, [c.qk_nope_head_dim, c.v_head_dim], dim=1)  # (n_heads, ., kv_lora_rank)
        return latent_attention(
            q_nope,
            q_rope,
            latent,
            k_rope,
            w_k,
            w_v,
            scale=c.softmax_scale,
            key_mask=key_mask if c.padded else None,
            dropout=c.dropout if c.dropout and self.training else 0.0,
        )
