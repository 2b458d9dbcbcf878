"""The comparison itself: it refuses a table that leaves anything out, and sees one wrong number."""

import pytest
import torch
from parity_checks import assert_same, copy_weights, part, randomise
from torch import nn


def test_a_tensor_of_ours_without_a_rule() -> None:
    with pytest.raises(AssertionError, match="no rule for bias"):
        copy_weights(nn.Linear(2, 3), nn.Linear(2, 3), {"weight": "weight"})


def test_a_tensor_of_theirs_that_is_left_out() -> None:
    with pytest.raises(AssertionError, match=r"otherwise than once: \['bias'\]"):
        copy_weights(nn.Linear(2, 3, bias=False), nn.Linear(2, 3), {"*": "*"})


def test_half_a_tensor_of_theirs() -> None:
    with pytest.raises(AssertionError, match=r"otherwise than once: \['weight'\]"):
        copy_weights(nn.Linear(2, 3, bias=False), nn.Linear(2, 6, bias=False), {"*": part("*", 0, 2)})


def test_another_shape() -> None:
    with pytest.raises(AssertionError, match=r"weight is \(3, 2\)"):
        copy_weights(nn.Linear(2, 3, bias=False), nn.Linear(3, 2, bias=False), {"*": "*"})


def test_nothing_stays_where_it_starts() -> None:
    model = nn.Sequential(nn.Embedding(5, 4), nn.LayerNorm(4), nn.Linear(4, 4))
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    assert all((p != before[n]).all() for n, p in randomise(model).named_parameters())


def test_one_wrong_number() -> None:
    expected = torch.randn(2, 7, 5, dtype=torch.float64)
    actual = expected.clone()
    assert_same(actual, expected)
    actual[1, 3, 2] += 1e-4
    with pytest.raises(AssertionError, match="differs by"):
        assert_same(actual, expected)
