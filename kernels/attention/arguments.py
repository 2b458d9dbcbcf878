"""What softmax attention demands of its arguments; each broken demand is one clear error."""

import torch
from torch import Tensor

from archspec.kernels.contract import require, require_choice, require_integers


def check_shapes(
    q: Tensor, k: Tensor, v: Tensor, causal: bool, sinks: Tensor | None, bias: Tensor | None, alibi: Tensor | None
) -> None:
    """Shapes that fit, heads that share, and keys for every causal query."""
    sizes = require(
        "attention",
        q=(q, "B H T D"),
        k=(k, "B Hkv S D"),
        v=(v, "B Hkv S Dv"),
        sinks=(sinks, "H"),
        alibi=(alibi, "H"),
        bias=(bias, "..."),
    )
    H, shared, T, S = (sizes[axis] for axis in ("H", "Hkv", "T", "S"))
    if shared == 0 or H % shared:
        raise ValueError(f"attention: q has {H} heads, expected a multiple of the {shared} of k and v")
    if causal and T > S:
        raise ValueError(f"attention: causal with {T} queries and {S} keys, expected no fewer keys than queries")
    if bias is not None:
        whole = (sizes["B"], H, T, S)
        axes = zip(reversed(bias.shape), reversed(whole), strict=False)
        if bias.dim() > 4 or any(size not in (1, right) for size, right in axes):
            raise ValueError(f"attention: bias has shape {tuple(bias.shape)}, expected one that broadcasts to {whole}")


def check_pattern(
    causal: bool, window: int | None, dilation: int, pattern: str | None, stride: int | None, summary: int | None
) -> None:
    """Settings in their ranges, and a pattern with what it needs and nothing else."""
    if window is not None and window < 1:
        raise ValueError(f"attention: window is {window}, expected at least 1 key")
    if dilation < 1:
        raise ValueError(f"attention: dilation is {dilation}, expected at least 1")
    require_choice("attention", "pattern", pattern, (None, "strided", "fixed"))
    if pattern is None:
        return
    if not causal or window is not None or dilation > 1:
        raise ValueError(f"attention: pattern {pattern!r} is causal and has no window or dilation")
    if stride is None or stride < 1:
        raise ValueError(f"attention: stride is {stride}, expected at least 1 with pattern {pattern!r}")
    if pattern == "fixed" and (summary is None or not 1 <= summary <= stride):
        raise ValueError(f"attention: summary is {summary}, expected 1 to stride = {stride} with pattern 'fixed'")


def check_tokens(q: Tensor, k: Tensor, prefix_len: int | Tensor | None, **tokens: Tensor | None) -> None:
    """Documents, global tokens and real keys are one a token of the sequence, the last two as booleans."""
    B, T, S = q.shape[0], q.shape[2], k.shape[2]
    for name, tensor in tokens.items():
        if tensor is None:
            continue
        if tensor.shape != (B, S):
            raise ValueError(f"attention: {name} has shape {tuple(tensor.shape)}, expected (B S) with B = {B}, S = {S}")
        if name != "documents" and tensor.dtype != torch.bool:
            raise TypeError(f"attention: {name} is {tensor.dtype}, expected torch.bool")
        if name != "key_mask" and T > S:
            raise ValueError(f"attention: {name} with {T} queries and {S} keys, expected no fewer keys than queries")
    lengths = prefix_len if isinstance(prefix_len, Tensor) else None
    require_integers("attention", documents=tokens["documents"], prefix_len=lengths)
    if lengths is not None and lengths.numel() not in (1, B):
        raise ValueError(f"attention: prefix_len has shape {tuple(lengths.shape)}, expected (B) with B = {B}")
