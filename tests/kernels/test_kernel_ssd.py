"""State-space duality against its recurrence, and against transformers' chunked scan."""

import pytest
import torch
from kernel_checks import assert_close, check, compiles, faces, normal, pieces
from torch.utils.flop_counter import FlopCounterMode

from archspec.kernels.memory import ssd as family
from archspec.kernels.memory.ssd import ssd


def arguments(**sizes):
    return list(family.example(**sizes).values())


def definition(*tensors):
    return family.reference(*tensors)[0]


@pytest.mark.parametrize("sizes", [s for s in family.EXAMPLES if s.get("B") != 0], ids=str)
@pytest.mark.parametrize("chunk", [16, 64])
def test_is_its_definition(sizes, chunk):
    check(lambda *x: ssd(*x, chunk=chunk), definition, arguments(**sizes), tolerance={torch.bfloat16: 6e-2})


@faces("triton")
def test_kernels(face):
    check(lambda *x: ssd(*x, chunk=16), definition, arguments(T=20, B=1, H=2, G=1), face)


@pytest.mark.parametrize("T", [1, 33])
def test_gradients_pass_through_the_state(T):
    x, dt, A, B, C, D = arguments(T=T)

    def ours(*tensors):
        state = {"ssm": tensors[-1]}
        return ssd(*tensors[:-1], state=state, chunk=8), state["ssm"]

    check(ours, family.reference, [x, dt, A, B, C, D, normal(2, 6, 5, 4)], tolerance={torch.bfloat16: 6e-2})


def test_decays_that_overflow_when_factored():
    inputs = arguments(T=200)
    inputs[2] = inputs[2] - 50.0
    x = inputs[0].float().requires_grad_()
    y = ssd(x, *(t.float() for t in inputs[1:]))
    y.sum().backward()
    assert_close("y", y, definition(*inputs), 1e-5)
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("gradients", [False, True])
def test_whole_is_in_pieces_is_token_by_token(gradients):
    x, dt, A, B, C, D = arguments(T=37)
    with torch.set_grad_enabled(gradients):
        whole = ssd(x, dt, A, B, C, D)
        for cuts in pieces(37):
            state = {}
            parts = [ssd(x[:, c], dt[:, c], A, B[:, c], C[:, c], D, state, chunk=8) for c in cuts]
            assert_close("ssd", torch.cat(parts, 1), whole)
    assert state["ssm"].shape == (2, 6, 5, 4)


def test_states_of_16_bit_inputs_are_float32():
    state = {}
    ssd(*(t.bfloat16() for t in arguments(T=5)), state=state)
    assert state["ssm"].dtype == torch.float32


def test_meta():
    meta = [t.to("meta", torch.float32) for t in arguments(T=100)]
    assert ssd(*meta).shape == meta[0].shape


def test_compiles():
    compiles(ssd, *(t.float() for t in arguments(T=100)))


def test_flops_are_those_of_whole_chunks():
    B, T, H, P, G, N, chunk = 2, 32, 6, 5, 2, 4, 16
    with FlopCounterMode(display=False) as counter:
        ssd(*arguments(B=B, T=T, H=H, P=P, G=G, N=N), chunk=chunk)
    assert counter.get_total_flops() == B * T * (2 * chunk * (G * N + H * P) + 4 * H * P * N)


def test_transformers_scan():
    from transformers.models.mamba2.modeling_mamba2 import mamba2_chunk_scan

    scan = getattr(mamba2_chunk_scan, "__wrapped__", mamba2_chunk_scan)
    x, dt, A, B, C, D = (t.float() for t in arguments(T=50, H=8, G=2, P=6, N=10))
    theirs, last = scan(x, dt, A, B, C, chunk_size=16, D=D, return_final_states=True)
    state = {}
    assert_close("y", ssd(x, dt, A, B, C, D, state, chunk=32), theirs, 1e-5)
    assert_close("state", state["ssm"], last, 1e-5)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("dt", (2, 63, 5), "ssd: dt has shape (2, 63, 5), expected (b T H) with b = 2, T = 63, H = 6"),
        ("B", (2, 63, 2, 3), "ssd: C has shape (2, 63, 2, 4), expected (b T G N) with b = 2, T = 63, G = 2, N = 3"),
        ("A", (6, 4), "ssd: A has shape (6, 4), expected 1 axes (H)"),
    ],
)
def test_a_broken_contract_is_one_clear_error(name, shape, message):
    with pytest.raises(ValueError) as error:
        ssd(**{**family.example(), name: torch.zeros(shape)})
    assert str(error.value) == message


def test_groups_that_do_not_divide_the_heads_are_refused():
    with pytest.raises(ValueError, match="ssd: x has 6 heads, expected a multiple of the 4 groups of B"):
        ssd(*arguments(G=4))


def test_a_state_of_another_shape_is_refused():
    with pytest.raises(ValueError) as error:
        ssd(**family.example(), state={"ssm": torch.zeros(2, 6, 4, 5)})
    assert str(error.value) == ("ssd: state has shape (2, 6, 4, 5), expected (b H P N) with b = 2, H = 6, P = 5, N = 4")
