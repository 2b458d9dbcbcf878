import pytest
import torch

from archspec.kernels.state import advance, append, capacity, once, substate


def test_substate_makes_children_once_and_passes_none_through():
    state = {}
    child = substate(state, 3)
    child["x"] = 1
    assert substate(state, "3") is child
    assert child["x"] == 1
    assert substate(None, 3) is None


@pytest.mark.parametrize(
    "use",
    [
        lambda s: append(s, k=torch.zeros(1, 1, 1, 1)),
        lambda s: advance(s, 1),
        lambda s: once(s, "memory", lambda: 0),
        lambda s: substate(s, "memory"),
    ],
)
def test_a_second_use_of_a_key_in_one_call_is_an_error(use):
    model = {}
    for _ in range(3):  # calls of one layer
        layer = substate(model, "layer")
        use(layer)
        with pytest.raises(ValueError, match=r'key "(k|seen|memory)" is used twice.*substate\(state, "name"\)'):
            use(layer)


def test_a_dict_of_the_users_own_goes_on_from_call_to_call():
    state = {}
    assert [advance(state, 2) for _ in range(3)] == [0, 2, 4]
    assert state == {"seen": 6}


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


@pytest.mark.parametrize("keep", [None, 0, 1, 8, 64, 255])
@pytest.mark.parametrize("first", [1, 7, 63, 64, 65, 300, 5000])
def test_a_buffer_holds_its_capacity_whatever_the_calls(keep, first):
    state, seen = {}, 0
    with torch.no_grad():
        for n in [first, *[1] * 130, 64, 3, 200, 1, 1]:
            (k,) = append(state, keep=keep, k=torch.arange(seen, seen + n).double().view(1, 1, n, 1).expand(2, 3, n, 4))
            assert k[0, 0, -1, 0] == seen + n - 1
            seen += n
            held = state["k"].untyped_storage().nbytes() // (2 * 3 * 4 * 8)
            assert held == capacity(seen, keep)


def test_a_buffer_is_at_most_a_block_larger_than_what_is_kept():
    assert [capacity(n) for n in (0, 1, 64, 65, 2000)] == [0, 64, 64, 128, 2048]
    assert [capacity(n, keep=255) for n in (1, 255, 300, 10**6)] == [64, 256, 320, 320]
    assert all(capacity(n, keep) <= -(-(keep + 64) // 64) * 64 for n in (1, 100, 5000) for keep in range(300))


def test_a_full_buffer_moves_once_in_64_steps():
    state, moves, address = {}, 0, None
    with torch.no_grad():
        for _ in range(1000):
            append(state, k=torch.zeros(1, 1, 1, 1))
            moves += state["k"] is not address
            address = state["k"]
    assert moves == 16
    assert state["k_span"] == (0, 1000)


def test_what_a_window_returned_stays_as_it_was():
    state, given = {}, []
    with torch.no_grad():
        for i in range(200):
            (k,) = append(state, keep=5, k=torch.full((1, 1, 1, 1), float(i)))
            given.append((k, k.clone()))
    assert all(torch.equal(k, then) for k, then in given)


def test_with_gradients_a_state_holds_exactly_what_it_keeps():
    for keep, kept in ((None, 109), (7, 7)):
        state = {}
        for n in (100, 1, 8):
            append(state, keep=keep, k=torch.zeros(1, 1, n, 1, requires_grad=True))
        assert state["k"].shape[2] == kept


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
