import math

import pytest
import torch
from kernel_checks import assert_close, compiles

from archspec.kernels.pointwise.positions import sinusoidal, sinusoidal_half


@pytest.mark.parametrize("dim", [1, 8, 63])
def test_sinusoidal(dim):
    table = sinusoidal(torch.arange(20), dim)
    for p, c in ((0, 0), (7, dim - 1), (19, dim // 2)):
        angle = p * 10000.0 ** (-(c - c % 2) / dim)
        assert table[p, c].item() == pytest.approx(math.cos(angle) if c % 2 else math.sin(angle), abs=1e-5)


def test_sinusoidal_half_is_that_of_whisper():
    whisper = pytest.importorskip("transformers.models.whisper.modeling_whisper")
    assert_close("table", sinusoidal_half(torch.arange(50), 16), whisper.sinusoids(50, 16), 1e-5)


def test_sinusoidal_half_without_spacing_is_a_permutation_of_the_interleaved_table():
    table = sinusoidal(torch.arange(50).view(5, 10), 16)
    halves = torch.cat((table[..., ::2], table[..., 1::2]), -1)
    assert_close("table", sinusoidal_half(torch.arange(50).view(5, 10), 16, spacing=0), halves, 1e-5)
    assert (sinusoidal_half(torch.arange(5), 7)[:, -1] == 0).all()


def test_meta_and_compile():
    assert sinusoidal(torch.arange(9, device="meta"), 6).shape == (9, 6)
    compiles(lambda p: sinusoidal(p, 8) + sinusoidal_half(p, 8), torch.arange(5), gradients=False)
