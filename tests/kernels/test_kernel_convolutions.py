import pytest
import torch
from kernel_checks import LENGTHS, assert_close, check, compiles, normal, pieces

from archspec.kernels import long_conv, short_conv


@pytest.mark.parametrize("T", LENGTHS)
@pytest.mark.parametrize(("K", "activation"), [(1, None), (4, "silu"), (7, None)])
def test_short_conv(T, K, activation):
    inputs = [normal(2, T, 6), normal(6, 1, K), normal(6)]

    def fast(*tensors):
        return short_conv.short_conv(*tensors, activation=activation)

    def reference(*tensors):
        return short_conv.reference(*tensors, activation=activation)

    check(fast, reference, inputs)
    check(fast, reference, [*inputs[:2], None])


@pytest.mark.parametrize("K", [1, 4])
def test_short_conv_in_pieces(K):
    x, w, b = normal(2, 19, 6), normal(6, 1, K), normal(6)
    whole = short_conv.short_conv(x, w, b, "silu")
    for cuts in pieces(19):
        state = {}
        parts = [short_conv.short_conv(x[:, c], w, b, "silu", state) for c in cuts]
        assert_close("pieces", torch.cat(parts, 1), whole)
        assert state["conv"].shape == (2, K - 1, 6)


@pytest.mark.parametrize("T", LENGTHS)
def test_fft_conv(T):
    check(long_conv.fft_conv, long_conv.reference, [normal(2, T, 5), normal(T, 5), normal(5)])
    check(long_conv.fft_conv, long_conv.reference, [normal(2, T, 5), normal(T, 5), None])


def test_fft_conv_ignores_taps_beyond_the_sequence():
    u, k = normal(1, 20, 3), normal(50, 3)
    assert_close("y", long_conv.fft_conv(u, k), long_conv.reference(u, k))


@pytest.mark.parametrize("gradients", [False, True])
def test_stream_conv_in_pieces(gradients):
    u, k, d = normal(2, 41, 5), normal(60, 5), normal(5)
    whole = long_conv.reference(u, k, d)
    with torch.set_grad_enabled(gradients):
        for cuts in pieces(41):
            state = {}
            parts = [long_conv.stream_conv(u[:, c], k, d, state) for c in cuts]
            assert_close("pieces", torch.cat(parts, 1), whole)


def test_fft_size_is_the_least_length_of_small_primes():
    def smooth(n):
        for p in (2, 3, 5):
            while n % p == 0:
                n //= p
        return n == 1

    assert all(long_conv.fft_size(n) == next(m for m in range(n, 2 * n + 1) if smooth(m)) for n in range(1, 700))


def test_meta():
    u, k, d = (x.to("meta", torch.bfloat16) for x in (normal(2, 9, 5), normal(9, 5), normal(5)))
    assert long_conv.fft_conv(u, k, d).shape == u.shape
    assert short_conv.short_conv(u, torch.empty(5, 1, 4, device="meta", dtype=torch.bfloat16), d).shape == u.shape


def test_compile():
    compiles(long_conv.fft_conv, torch.randn(2, 30, 5), torch.randn(30, 5), torch.randn(5))
    compiles(short_conv.short_conv, torch.randn(2, 30, 5), torch.randn(5, 1, 4), torch.randn(5))
