"""PyTorch's own counter, mended where it is known to be silently wrong, as what FLOPs are proved against."""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import (
    FlopCounterMode,
    conv_flop_count,
    sdpa_backward_flop_count,
    sdpa_flop_count,
)

ATEN = torch.ops.aten


def _attention(q: Any, k: Any, v: Any, *rest: Any, **_: Any) -> int:
    return sdpa_flop_count(q, k, v)


def _attention_backward(g: Any, q: Any, k: Any, v: Any, *rest: Any, **_: Any) -> int:
    return sdpa_backward_flop_count(g, q, k, v)


def _grouped(a: Any, b: Any, *rest: Any, **_: Any) -> int:
    return 2 * a[0] * a[1] * (b[2] if len(b) == 3 else b[1])


def _convolution_backward(
    g: Any,
    x: Any,
    w: Any,
    bias: Any,
    s: Any,
    p: Any,
    d: Any,
    transposed: bool,
    out: Any,
    groups: int,
    mask: Any,
    **_: Any,
) -> int:
    return conv_flop_count(x, w, g, transposed) * (int(mask[0]) + int(mask[1]))


MENDED = {
    ATEN._scaled_dot_product_flash_attention_for_cpu: _attention,
    ATEN._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    ATEN._grouped_mm: _grouped,
    ATEN.convolution_backward: _convolution_backward,
}


def counted(run: Callable[[], Any]) -> tuple[int, Any]:
    """FLOPs that the counter sees in a call, and what the call gave."""
    with FlopCounterMode(display=False, custom_mapping=MENDED) as counter:
        result = run()
    return counter.get_total_flops(), result
