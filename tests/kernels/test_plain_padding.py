"""Padding, packing and what is kept of both: plain forms against the functions whose names they bear, to the bit."""

import pytest
import torch
from plain_cases import plain, public

MASK = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 0, 0], [0, 1, 0, 1, 1], [1, 1, 1, 1, 1], [0] * 5], dtype=torch.bool)
DOCUMENTS = torch.tensor([[4, 4, 4, 7, 7], [1, 1, 2, 2, 1], [3] * 5, [1, 2, 3, 4, 5], [2, 2, 2, 2, 8]])
ORDER = MASK.byte().argsort(dim=1, stable=True)
ALIGNED = MASK.gather(1, ORDER)
X = torch.randn(5, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
PLACES = torch.arange(25).view(5, 5) * 2
CALLS = [
    ("padding", "align", (MASK, X)),
    ("padding", "align", (None, X)),
    ("padding", "of_one_document", (DOCUMENTS, DOCUMENTS.flip(1), torch.float64)),
    ("padding", "of_one_document", (None, None, torch.float64)),
    ("position_bias", "t5_buckets", (5, 5, 8, 16, True, None, PLACES.unsqueeze(2) - PLACES.unsqueeze(1))),
    ("position_bias", "t5_buckets", (5, 5, 8, 16, False, None, PLACES.unsqueeze(2) - PLACES.unsqueeze(1))),
    ("position_bias", "place_distances", (PLACES,)),
]


def same(ours, theirs):
    if isinstance(theirs, tuple):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    return torch.equal(ours, theirs) if isinstance(theirs, torch.Tensor) else ours is theirs is None


@pytest.mark.parametrize(("family", "name", "given"), CALLS, ids=lambda x: x if isinstance(x, str) else "")
def test_a_call(family, name, given):
    ours, theirs = (getattr(module, name)(*given) for module in (plain(family), public(family)))
    assert same(ours, theirs)


def test_calls_that_follow_one_another_remember_padding():
    states = {}, {}
    for now in (slice(0, 2), slice(2, 3), slice(3, 5)):
        mask = torch.tensor([[0, 1], [1, 1], [0, 0], [1, 1], [0, 1]], dtype=torch.bool)[:, : now.stop - now.start]
        found = [
            m.align(mask if now.start < 3 else None, X[:, now], state)
            for m, state in zip((plain("padding"), public("padding")), states, strict=True)
        ]
        assert same(*found)
    assert torch.equal(states[0]["padding"], states[1]["padding"])
    assert states[0]["seen"] == states[1]["seen"] == 5


def test_places_are_kept_beside_keys():
    states = {}, {}
    for now, mask in ((slice(0, 2), None), (slice(2, 5), ALIGNED[:, :3]), (slice(4, 5), None)):
        found = [
            m.place_distances(PLACES[:, now], state, 4, mask)
            for m, state in zip((plain("position_bias"), public("position_bias")), states, strict=True)
        ]
        assert same(*found)


def test_documents_run_in_rows_of_their_own():
    rows = [module.rows_of(DOCUMENTS, MASK) for module in (plain("padding"), public("padding"))]

    def layer(x, mask=None, positions=None):
        return (x * mask.unsqueeze(-1)).cumsum(1) + positions.unsqueeze(-1)

    given = {"mask": MASK, "positions": PLACES}
    ours, theirs = (
        m.by_document(layer, X, r, **given) for m, r in zip((plain("padding"), public("padding")), rows, strict=True)
    )
    assert torch.equal(ours, theirs)
    assert theirs[0, 2:].any()
    assert not theirs[4].any()
    assert torch.equal(plain("padding").by_document(layer, X, None, **given), layer(X, **given))


@pytest.mark.parametrize("run", [torch.lstm, torch.gru, torch.rnn_tanh])
@pytest.mark.parametrize("both", [False, True])
def test_recurrences_over_real_tokens(run, both):
    gates = {torch.lstm: 4, torch.gru: 3, torch.rnn_tanh: 1}[run]
    ways = 2 if both else 1
    weights = [
        torch.randn(*shape, dtype=torch.float64)
        for _ in range(ways)
        for shape in ((gates * 2, 3), (gates * 2, 2), (gates * 2,), (gates * 2,))
    ]
    start = [torch.randn(ways, 5, 2, dtype=torch.float64) for _ in range(2 if run is torch.lstm else 1)]
    y, *ends = plain("packed").over_real(run, X, ALIGNED, start, weights, True, 1, 0.0, both)
    assert torch.equal(ends[0][:, 4], start[0][:, 4])  # a row without a token keeps what it carried
    assert not y[~ALIGNED].any()
    for i in range(4):
        alone = [carried[:, i : i + 1] for carried in start]
        given = tuple(alone) if len(alone) > 1 else alone[0]
        wanted = run(X[i : i + 1, ALIGNED[i]], given, weights, True, 1, 0.0, False, both, True)
        found = (y[i : i + 1, ALIGNED[i]], *(end[:, i : i + 1] for end in ends))
        torch.testing.assert_close(found, tuple(wanted), rtol=1e-12, atol=1e-12)


def test_convolutions_over_real_tokens():
    weight, bias = torch.randn(3, 1, 4, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    taps = torch.randn(9, 3, dtype=torch.float64)
    for family, given in (("short_conv", (weight, bias, "silu")), ("long_conv", (taps, bias))):
        states = {}, {}
        for mask in (ALIGNED, ALIGNED[:, :3], None):
            x = X if mask is None else X[:, : mask.shape[1]]
            x = x[:, :1] if mask is None else x
            ours, theirs = (
                getattr(m, family)(x, *given, state=state, mask=mask)
                for m, state in zip((plain(family), public(family)), states, strict=True)
            )
            real = torch.ones(x.shape[:2], dtype=torch.bool) if mask is None else mask
            torch.testing.assert_close(ours[real], theirs[real], rtol=1e-12, atol=1e-12)
