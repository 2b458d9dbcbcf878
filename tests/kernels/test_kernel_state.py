import pytest
import torch

from archspec.kernels.state import append, substate


def test_substate_makes_children_once_and_passes_none_through():
    state = {}
    child = substate(state, 3)
    child["x"] = 1
    assert substate(state, "3") == {"x": 1}
    assert substate(None, 3) is None


def test_append_without_state_returns_the_tokens():
    k, v = torch.randn(2, 1, 4, 3), torch.randn(2, 1, 4, 5)
    assert append(None, k=k, v=v) == (k, v)


@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("keep", [None, 0, 1, 5])
@pytest.mark.parametrize("cuts", [[1] * 40, [20, 1, 1, 7, 1, 1, 1, 8], [40]])
def test_append_returns_what_was_kept_and_the_new_tokens(gradients, keep, cuts):
    tokens = torch.arange(40.0).view(1, 1, 40, 1).expand(2, 3, 40, 4)
    state, seen = {}, 0
    with torch.set_grad_enabled(gradients):
        for n in cuts:
            new = tokens[:, :, seen : seen + n]
            k, v = append(state, keep=keep, k=new, v=-new)
            first = 0 if keep is None else max(seen - keep, 0)
            seen += n
            assert torch.equal(k, tokens[:, :, first:seen])
            assert torch.equal(v, -k)


def test_append_copies_a_token_a_bounded_number_of_times():
    state, moves, address = {}, 0, None
    with torch.no_grad():
        for _ in range(1000):
            append(state, k=torch.zeros(1, 1, 1, 1))
            moves += state["k"].data_ptr() != address
            address = state["k"].data_ptr()
    assert moves <= 8
    assert state["k_span"] == (0, 1000)


def test_a_window_keeps_a_bounded_buffer():
    state = {}
    with torch.no_grad():
        append(state, keep=8, k=torch.zeros(1, 1, 5000, 1))
        for _ in range(100):
            append(state, keep=8, k=torch.zeros(1, 1, 1, 1))
            assert state["k"].shape[2] <= 32


def test_gradients_flow_through_append_and_switching_modes_keeps_the_tokens():
    state = {}
    with torch.no_grad():
        append(state, k=torch.ones(1, 1, 3, 1))
    new = torch.ones(1, 1, 2, 1, requires_grad=True)
    (k,) = append(state, k=new)
    (k * torch.arange(5.0).view(1, 1, 5, 1)).sum().backward()
    assert new.grad.flatten().tolist() == [3.0, 4.0]
    with torch.no_grad():
        (k,) = append(state, k=torch.zeros(1, 1, 1, 1))
    assert k.shape[2] == 6


def test_decoding_may_leave_inference_mode():
    state = {}
    with torch.inference_mode():
        append(state, k=torch.zeros(1, 1, 3, 1))
        append(state, k=torch.ones(1, 1, 1, 1))
    with torch.no_grad():
        (k,) = append(state, k=2 * torch.ones(1, 1, 1, 1))
    assert k.flatten().tolist() == [0, 0, 0, 1, 2]
