"""Frequencies of rotary position embeddings: the published ways to stretch them to longer contexts.

Each `*_frequencies` is one published scaling of inv_freq[i] = theta^(-2i / dim) and returns inv_freq (dim / 2,) in
float32. Two scalings also have an attention factor, a number that multiplies cos and sin.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def default_frequencies(dim: int, theta: float, device: torch.device | None = None) -> Tensor:
    """theta^(-2i / dim) (Su et al. 2021)."""
    return 1.0 / theta ** (torch.arange(0, dim, 2, dtype=torch.float32, device=device) / dim)


def linear_frequencies(dim: int, theta: float, factor: float, device: torch.device | None = None) -> Tensor:
    """Position interpolation: every position divided by factor (Chen et al. 2023)."""
    return default_frequencies(dim, theta, device) / factor


def proportional_frequencies(
    dim: int, theta: float, fraction: float, factor: float = 1.0, device: torch.device | None = None
) -> Tensor:
    """Only the first fraction of the pairs turn, at the frequencies of a full rotation; the others have angle 0."""
    n = int(fraction * dim // 2)
    frequencies = default_frequencies(dim, theta, device) / factor
    return torch.cat((frequencies[:n], torch.zeros(dim // 2 - n, device=device)))


def ntk_frequencies(dim: int, theta: float, factor: float, device: torch.device | None = None) -> Tensor:
    """NTK-aware scaling: the base grows by factor^(dim / (dim - 2)), the fastest pair stays as it was (bloc97)."""
    return default_frequencies(dim, theta * factor ** (dim / (dim - 2)), device)


def dynamic_frequencies(
    dim: int, theta: float, factor: float, max_seq_len: int, seq_len: int, device: torch.device | None = None
) -> Tensor:
    """NTK-aware scaling that sets in beyond max_seq_len and follows the current length seq_len (emozilla)."""
    stretch = factor * max(seq_len, max_seq_len) / max_seq_len - (factor - 1)
    return ntk_frequencies(dim, theta, stretch, device)


def dynamic_frequencies_of_rows(dim: int, theta: float, factor: float, max_seq_len: int, seq_len: Tensor) -> Tensor:
    """The same for rows of different lengths seq_len (B, 1), as (B, 1, dim / 2)."""
    stretch = factor * seq_len.clamp(min=max_seq_len).double() / max_seq_len - (factor - 1)
    base = (theta * stretch ** (dim / (dim - 2))).float()
    exponents = torch.arange(0, dim, 2, dtype=torch.float32, device=seq_len.device) / dim
    return 1.0 / base.unsqueeze(-1) ** exponents


def yarn_frequencies(
    dim: int,
    theta: float,
    factor: float,
    original_max_seq_len: int,
    beta_fast: float = 32.0,
    beta_slow: float = 1.0,
    truncate: bool = True,
    device: torch.device | None = None,
) -> Tensor:
    """YaRN (Peng et al. 2023): slow pairs are interpolated by factor, fast ones kept, with a linear ramp between."""
    low = dim * math.log(original_max_seq_len / (beta_fast * 2 * math.pi)) / (2 * math.log(theta))
    high = dim * math.log(original_max_seq_len / (beta_slow * 2 * math.pi)) / (2 * math.log(theta))
    if truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    width = high - low if high != low else 0.001
    ramp = (torch.arange(dim // 2, dtype=torch.float32, device=device) - low) / width
    kept = 1.0 - ramp.clamp(0.0, 1.0)
    frequencies = default_frequencies(dim, theta, device)
    return frequencies / factor * (1.0 - kept) + frequencies * kept


def yarn_attention_factor(factor: float, mscale: float | None = None, mscale_all_dim: float | None = None) -> float:
    """YaRN's temperature 0.1 ln(factor) + 1; with both mscales their ratio, as DeepSeek-V2 has it."""
    log = 0.1 * math.log(factor) if factor > 1 else 0.0
    if mscale and mscale_all_dim:
        return (mscale * log + 1.0) / (mscale_all_dim * log + 1.0)
    return log + 1.0


def llama3_frequencies(
    dim: int,
    theta: float,
    factor: float,
    low_freq_factor: float,
    high_freq_factor: float,
    original_max_seq_len: int,
    device: torch.device | None = None,
) -> Tensor:
    """Llama 3.1: pairs of long wavelength are slowed by factor, short ones kept, the ones between blended smoothly."""
    frequencies = default_frequencies(dim, theta, device)
    turns = original_max_seq_len * frequencies / (2 * math.pi)
    kept = ((turns - low_freq_factor) / (high_freq_factor - low_freq_factor)).clamp(0.0, 1.0)
    return (1.0 - kept) * frequencies / factor + kept * frequencies


def longrope_frequencies(
    dim: int,
    theta: float,
    short_factor: Sequence[float],
    long_factor: Sequence[float],
    original_max_seq_len: int,
    seq_len: int,
    device: torch.device | None = None,
) -> Tensor:
    """LongRoPE (Ding et al. 2024): a divisor per pair, another set once seq_len exceeds original_max_seq_len."""
    factors = long_factor if seq_len > original_max_seq_len else short_factor
    return default_frequencies(dim, theta, device) / torch.tensor(factors, dtype=torch.float32, device=device)


def longrope_attention_factor(factor: float, original_max_seq_len: int) -> float:
    """sqrt(1 + ln(factor) / ln(original_max_seq_len)), and 1 where nothing is stretched (LongRoPE, Phi-3)."""
    return math.sqrt(1.0 + math.log(factor) / math.log(original_max_seq_len)) if factor > 1 else 1.0
