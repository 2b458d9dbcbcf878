import pytest
import torch
import torch.nn.functional as F
from kernel_checks import assert_close, check, compiles, is_an_operator, normal, pieces
from torch.utils.flop_counter import FlopCounterMode

from archspec.kernels.convolutions import long_conv as family
from archspec.kernels.convolutions.long_conv import convolve, fft_size, long_conv


def run(u, k, d=None, pre_gate=None, post_gate=None, state=None):
    return long_conv(u, k, d, pre_gate=pre_gate, post_gate=post_gate, state=state)


@pytest.mark.parametrize("sizes", family.EXAMPLES)
def test_every_size(sizes):
    u, k, d, pre, post = family.example(**sizes).values()
    for given in ([u, k, d, pre, post], [u, k], [u, k, d], [u, k, None, pre], [u, k, None, None, post]):
        check(run, family.reference, given)


@pytest.mark.parametrize("points", [1, 100, 700])
def test_in_groups_of_channels_and_sequences(points, monkeypatch):
    monkeypatch.setattr(family, "CACHED", points)
    check(run, family.reference, list(family.example(3, 30, 5).values()))


def test_against_conv1d():
    """The convolution that a sum over all taps is, gradients included."""
    u, k = normal(2, 40, 3).requires_grad_(), normal(40, 3).requires_grad_()
    theirs = F.conv1d(F.pad(u, (0, 0, 39, 0)).mT, k.flip(0).T.unsqueeze(1), groups=3).mT
    assert_close("y", long_conv(u, k), theirs)
    cotangent = torch.randn_like(theirs)
    for name, got, wanted in zip(
        "uk", *(torch.autograd.grad(y, (u, k), cotangent) for y in (long_conv(u, k), theirs)), strict=True
    ):
        assert_close(f"gradient of {name}", got, wanted)


def test_taps_beyond_the_sequence_count_for_nothing():
    u, k = normal(1, 20, 3), normal(50, 3).requires_grad_()
    y = long_conv(u, k)
    assert_close("y", y, family.reference(u, k))
    (dk,) = torch.autograd.grad(y.sum(), k)
    assert dk.shape == k.shape
    assert not dk[20:].any()


@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_in_pieces(gradients, dtype):
    u, _, d, pre, post = (x.to(dtype) for x in family.example(2, 41, 5).values())
    k = normal(60, 5).to(dtype)
    whole = family.reference(u, k, d, pre, post)
    with torch.set_grad_enabled(gradients):
        for cuts in pieces(41):
            state = {}
            parts = [run(u[:, c], k, d, pre[:, c], post[:, c], state) for c in cuts]
            assert_close("pieces", torch.cat(parts, 1), whole, 1e-11 if dtype == torch.float64 else 2e-5)


def test_gradients_flow_through_the_state():
    leaves = [x.requires_grad_() for x in family.example(2, 20, 3).values()]
    u, k, d, pre, post = leaves
    state = {}
    cuts = (slice(0, 7), slice(7, 8), slice(8, 20))
    parts = [run(u[:, c], k, d, pre[:, c], post[:, c], state) for c in cuts]
    cotangent = normal(2, 20, 3)
    got = torch.autograd.grad(torch.cat(parts, 1), leaves, cotangent)
    for ours, theirs in zip(got, torch.autograd.grad(family.reference(*leaves), leaves, cotangent), strict=True):
        assert_close("gradient", ours, theirs)


def test_a_constant_kernel_sums_a_long_sequence():
    """At T = 65,536 the transforms hold the digits that float32 has, and a delta gives back its input."""
    T = 65_536
    u = torch.rand(1, T, 1)
    assert_close("sum", long_conv(u, torch.ones(T, 1)), u.double().cumsum(1), 1e-5)
    delta = F.one_hot(torch.tensor(100), T).float().unsqueeze(-1)
    assert_close("delay", long_conv(u, delta)[:, 100:], u[:, :-100], 1e-5)
    assert long_conv(u, delta)[:, :100].abs().max() < 1e-5


def test_not_a_number_reaches_its_own_channel():
    u, k, *_ = family.example(1, 30, 3).values()
    u[0, 5, 1] = torch.nan
    y = long_conv(u, k)
    assert y[0, 5:, 1].isnan().all()
    assert not y[..., [0, 2]].isnan().any()


def test_fft_size_is_the_least_length_of_small_primes():
    def smooth(n):
        for p in (2, 3, 5):
            while n % p == 0:
                n //= p
        return n == 1

    assert all(fft_size(n) == next(m for m in range(n, 2 * n + 1) if smooth(m)) for n in range(1, 700))


def test_no_spectrum_is_kept_for_the_backward_pass():
    tensors = [x.requires_grad_() for x in family.example(2, 64, 8).values()]
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        run(*tensors)
    assert max(t.numel() for t in kept) == tensors[0].numel()
    assert not any(t.is_complex() for t in kept)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": torch.zeros(8, 5)}, "long_conv: k has 8 taps, expected at least 9, as many as tokens so far"),
        ({"k": torch.zeros(9, 4)}, "long_conv: k has shape (9, 4), expected (L D) with L = 9, D = 5"),
        ({"d": torch.zeros(4)}, "long_conv: d has shape (4,), expected (D) with D = 5"),
        (
            {"post_gate": torch.zeros(2, 3, 5)},
            "long_conv: post_gate has shape (2, 3, 5), expected (B T D) with B = 2, T = 9, D = 5",
        ),
    ],
)
def test_contract(change, message):
    for state in (None, {}):
        with pytest.raises(ValueError) as error:
            long_conv(**{"u": torch.zeros(2, 9, 5), "k": torch.zeros(9, 5), "state": state, **change})
        assert str(error.value) == message


def test_a_kernel_shorter_than_the_tokens_so_far_is_refused():
    state = {}
    long_conv(torch.zeros(1, 5, 2), torch.zeros(6, 2), state=state)
    long_conv(torch.zeros(1, 1, 2), torch.zeros(6, 2), state=state)
    with pytest.raises(ValueError, match="k has 6 taps, expected at least 7"):
        long_conv(torch.zeros(1, 1, 2), torch.zeros(6, 2), state=state)


def test_is_an_operator():
    u, k, d, pre, post = (x.requires_grad_() for x in family.example(2, 9, 3).values())
    is_an_operator(convolve, u, k, d, pre, post, 9)
    is_an_operator(convolve, u, k, None, None, post[:, 5:], 4)


def test_compile_and_meta():
    u, k, d, pre, post = (x.float() for x in family.example(2, 30, 5).values())
    compiles(run, u, k, d, pre, post)
    compiles(lambda u, k: long_conv(u, k, state={}), u, k, gradients=False)
    assert long_conv(*(x.to("meta", torch.bfloat16) for x in (u, k, d))).shape == u.shape


def test_no_matrix_product_is_counted():
    u, k, d, pre, post = (x.requires_grad_() for x in family.example().values())
    with FlopCounterMode(display=False) as counter:
        run(u, k, d, pre, post).sum().backward()
        family._forward(u.detach(), k.detach(), d.detach(), None, None, u.shape[1])
    assert counter.get_total_flops() == 0
