"""Token shift against its definition: alone, in pieces, and in padded rows."""

import pytest
import torch
from kernel_checks import check, normal, pieces
from plain_cases import plain

from archspec.kernels.convolutions.token_shift import EXAMPLES, example, reference, token_shift


def continued(x, last):
    state = {"shift": last}
    return token_shift(x, state), state["shift"]


@pytest.mark.parametrize("sizes", [s for s in EXAMPLES if s.get("B") != 0], ids=str)
def test_outputs_state_and_gradients(sizes):
    x = example(**sizes)["x"]
    if x.shape[1] > 1:  # else nothing is read
        check(token_shift, reference, [x])
    check(continued, lambda x, last: (reference(x, last), x[:, -1]), [x, normal(x.shape[0], x.shape[2])])


def test_whole_is_in_pieces():
    x = example()["x"]
    for cuts in pieces(x.shape[1]):
        state = {}
        assert torch.equal(torch.cat([token_shift(x[:, now], state) for now in cuts], dim=1), token_shift(x))


MASKS = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0], [0, 0, 0, 0, 1]], dtype=torch.bool)


@pytest.mark.parametrize("shift", [token_shift, plain("token_shift").token_shift], ids=["package", "plain"])
def test_a_padded_row_goes_on_where_it_was(shift):
    x, state = normal(4, 13, 3), {}
    masks = [MASKS, MASKS.flip(0), None, MASKS[:, :2]]
    found, at = [[] for _ in x], 0
    for mask in masks:
        n = 1 if mask is None else mask.shape[1]
        y = shift(x[:, at : at + n], state, mask)
        for row, own, real in zip(found, y, torch.ones(4, n, dtype=torch.bool) if mask is None else mask, strict=True):
            row.append(own[real])
        at += n
    real = torch.cat([torch.ones(4, 1, dtype=torch.bool) if mask is None else mask for mask in masks], dim=1)
    for i, row in enumerate(found):
        alone = x[i : i + 1, real[i]]
        assert torch.equal(torch.cat(row), token_shift(alone)[0])
        assert torch.equal(state["shift"][i], alone[0, -1])


def test_refuses_a_state_of_another_width():
    with pytest.raises(ValueError, match=r"token_shift: shift has shape \(2, 4\), expected \(B D\) with B = 2, D = 6"):
        token_shift(example()["x"], {"shift": torch.zeros(2, 4)})


def test_keeps_the_last_token_and_not_all_of_them():
    state = {}
    token_shift(example()["x"], state)
    assert state["shift"].untyped_storage().nbytes() == 2 * 6 * 8
