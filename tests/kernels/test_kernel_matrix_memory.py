"""The matrix memory against its definition: every kind of decay, gradients, states, extremes, contract."""

import pytest
import torch
import torch.nn.functional as F
from kernel_checks import Face, assert_close, check, compiles, faces, is_an_operator, normal, pieces
from torch.utils.flop_counter import FlopCounterMode

from archspec.kernels.memory import chunked, matrix_scan
from archspec.kernels.memory import matrix_memory as mm
from archspec.kernels.memory.segments import Inputs

KINDS = (0, 1, 2, 3, 4)
# sums of many roundings of the gradient of the output, which end in few numbers: the gradient of a constant decay
TOLERANCE = {torch.bfloat16: 1e-1, torch.float16: 2e-2}


def arguments(**sizes):
    """Inputs by name, with a first state."""
    given = mm.example(**sizes)
    (B, _, H, V), K = given["v"].shape, given["k"].shape[3]
    return {**given, "initial": normal(B, H, K, V)}


def with_state(names, **options):
    """matrix_memory of tensors in the order of `names`, giving its last state too."""

    def op(*tensors):
        given = dict(zip(names, tensors, strict=True))
        state = {"memory": given.pop("initial")} if "initial" in given else {}
        q, k, v = (given.pop(name) for name in "qkv")
        return mm.matrix_memory(q, k, v, given.pop("decay", None), **given, state=state, **options), state["memory"]

    return op


def definition(names, scale=1.0):
    return lambda *tensors: mm.reference(**dict(zip(names, tensors, strict=True)), scale=scale)


def compare(given, face, scale=1.0, **options):
    op = with_state(tuple(given), scale=scale, **options)
    check(op, definition(tuple(given), scale), list(given.values()), face, TOLERANCE)


@pytest.mark.parametrize("sizes", [s for s in mm.EXAMPLES if s.get("B") != 0], ids=str)
@pytest.mark.parametrize("chunk", [16, 64])
def test_is_its_definition(sizes, chunk):
    compare(arguments(**sizes), Face("torch"), scale=0.7, chunk=chunk)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bonus", [0, 1])
def test_every_decay_with_and_without_a_bonus(kind, bonus):
    compare(arguments(T=21, H=3, G=1, decay=kind, bonus=bonus), Face("torch"), chunk=8)


@faces("triton")
@pytest.mark.parametrize(
    "sizes",
    [
        {"T": 20, "B": 1, "H": 2},
        {"T": 20, "B": 1, "H": 2, "G": 1, "decay": 1},
        {"T": 20, "B": 1, "H": 3, "G": 1, "decay": 3, "K": 20, "V": 17},
        {"T": 35, "B": 1, "H": 2, "G": 1, "decay": 4, "K": 5, "V": 3},
        {"T": 9, "B": 1, "H": 2, "decay": 2, "bonus": 1},
        {"T": 20, "B": 2, "H": 1, "G": 1, "decay": 3, "bonus": 1},
    ],
    ids=str,
)
def test_kernels(face, sizes):
    compare(arguments(**sizes), face, scale=0.7, chunk=16)


@faces("triton")
def test_kernels_where_more_heads_share_keys_than_one_program_adds_up(face):
    compare(arguments(T=5, B=1, H=9, G=1, decay=3, K=3, V=2), face, chunk=16)


def test_grids_have_one_axis(monkeypatch):
    """A GPU has 2^31 programs along the first axis of a grid, and 65535 along the others: sequences times heads."""
    kernels = pytest.importorskip("archspec.kernels.gpu.matrix_memory")
    grids = []

    class Kernel:
        def __getitem__(self, grid):
            grids.append(grid)
            return lambda *_, **__: None

    for name in ("_states_kernel", "_outputs_kernel", "_keys_kernel"):
        monkeypatch.setattr(kernels, name, Kernel())
    q, v = torch.empty(1000, 65, 80, 16, device="meta"), torch.empty(1000, 65, 80, 8, device="meta")
    given = Inputs(q, q, v, None, None, 1.0, False, 64)
    _, _, entering = kernels.forward(given, True)
    kernels.backward([v, None], entering, given, False)
    assert grids == [(80_000,), (160_000,), (80_000,), (160_000,), (160_000,)]


@faces("torch", "triton")
def test_only_the_last_state_is_used(face):
    given = {k: v.float().requires_grad_() for k, v in arguments(T=18, decay=3, H=2, B=1).items()}
    names, tensors = tuple(given), list(given.values())
    ours = torch.autograd.grad(with_state(names, chunk=16)(*tensors)[1].square().sum(), tensors, allow_unused=True)
    theirs = torch.autograd.grad(definition(names)(*tensors)[1].square().sum(), tensors, allow_unused=True)
    for name, a, b in zip(names, ours, theirs, strict=True):
        assert_close(name, torch.zeros(1) if a is None else a, torch.zeros_like(a) if b is None else b, 2e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [{}, {"normalise": True}, {"bonus": True}], ids=str)
def test_whole_is_in_pieces_is_token_by_token(kind, options):
    given = mm.example(T=37, decay=kind)
    options = {"bonus": normal(4, 6)} if "bonus" in options else options
    if "normalise" in options:
        given["q"], given["k"] = given["q"].exp(), given["k"].exp()
    q, k, v = (given[name] for name in "qkv")
    g, timed = given.get("decay"), kind in (3, 4)
    states = {"whole": {}}
    whole = mm.matrix_memory(q, k, v, g, **options, chunk=16, state=states["whole"])
    for cuts in pieces(37):
        state = {}
        parts = [
            mm.matrix_memory(q[:, c], k[:, c], v[:, c], g[:, c] if timed else g, **options, chunk=8, state=state)
            for c in cuts
        ]
        assert_close("y", torch.cat(parts, 1), whole)
        assert state.keys() == states["whole"].keys()
        for name in state:
            assert_close(name, state[name], states["whole"][name])
    assert state["memory"].shape == (2, 4, 6, 5)


@pytest.mark.parametrize("kind", [1, 4])
def test_gradients_of_one_token_pass_through_its_state(kind):
    given = arguments(T=1, decay=kind, bonus=1)
    compare(given, Face("torch"), scale=0.5)


def test_normalised_is_divided_by_what_the_value_one_gives():
    given = mm.example(T=40, decay=3)
    q, k, v, g = given["q"].exp(), given["k"].exp(), given["v"], given["decay"]
    y = mm.matrix_memory(q, k, v, g, normalise=True, chunk=16)
    top, below = (mm.reference(q, k, x, g)[0] for x in (v, torch.ones_like(v)))
    assert_close("y", y, top / below)


def parallel(q, k, v, g):
    """(q k^T with decays) v over all pairs of tokens at once, for decays (B, T, H, K)."""
    total = g.double().cumsum(1)
    T = g.shape[1]
    seen = torch.ones(T, T, dtype=torch.bool).tril()[None, :, :, None, None]
    decays = (total.unsqueeze(2) - total.unsqueeze(1)).masked_fill(~seen, -torch.inf).exp()
    weights = torch.einsum("bthk,bshk,btshk->btsh", q.double(), k.double(), decays)
    return torch.einsum("btsh,bshv->bthv", weights, v.double())


@faces("torch", "triton")
@pytest.mark.parametrize("kind", [3, 4])
@pytest.mark.parametrize("mean", [0.0, -1.0, -5.0, -69.0])
def test_extreme_decays_are_finite_and_right(face, kind, mean):
    T, K = (64, 8) if face.name == "torch" else (64, 3)
    q, k, v = torch.randn(1, T, 1, K), torch.randn(1, T, 1, K), torch.randn(1, T, 1, 3)
    g = mean * 2 * torch.rand(1, T, 1, K)
    g = g if kind == 4 else g[..., 0]
    leaves = [x.requires_grad_() for x in (q, k, v, g)]
    y = mm.matrix_memory(*leaves, chunk=64)
    wanted = parallel(q, k, v, g if kind == 4 else g.unsqueeze(-1).expand(q.shape))
    assert_close("y", y, wanted, 1e-5)
    dy = torch.randn_like(y)
    ours, theirs = (torch.autograd.grad((out * dy).sum(), leaves) for out in (y, wanted))
    for name, a, b in zip("qkvg", ours, theirs, strict=True):
        assert a.isfinite().all()
        assert_close(name, a, b, 1e-4 if mean > -69 else 1e-2)


@faces("torch", "triton")
@pytest.mark.parametrize("kind", [3, 4])
@pytest.mark.parametrize("bonus", [0, 1])
def test_a_decay_of_minus_infinity_starts_anew(face, kind, bonus):
    given = {name: x.float() for name, x in mm.example(T=24, B=1, H=2, G=2, K=3, decay=kind, bonus=bonus).items()}
    cut = 11
    given["decay"][:, cut] = -torch.inf
    given["decay"][:, ::5] = -torch.inf
    given["decay"][:, 4] = 0.0
    names, tensors = tuple(given), [x.requires_grad_() for x in given.values()]
    y, last = with_state(names, chunk=16)(*tensors)
    wanted, wanted_last = mm.reference(**given)
    assert_close("y", y, wanted, 2e-5)
    assert_close("last", last, wanted_last, 2e-5)
    grads = torch.autograd.grad((y[:, cut + 1 :] ** 2).sum() + last.sum(), tensors)
    theirs = torch.autograd.grad((wanted[:, cut + 1 :] ** 2).sum() + wanted_last.sum(), tensors)
    for name, a, b in zip(names, grads, theirs, strict=True):
        assert_close(name, a, b, 5e-5)
        if name in ("k", "v"):
            assert not a[:, :cut].any()
        if name == "decay":
            assert not a[given["decay"] == -torch.inf].any()


@pytest.mark.parametrize("kind", [3, 4])
@pytest.mark.parametrize("factor", [0.0, 1e-30, 0.5, 1.0])
def test_long_sequences(kind, factor):
    T = 65_536
    q, k, v = torch.rand(1, T, 1, 2), torch.rand(1, T, 1, 2) / T**0.5, torch.rand(1, T, 1, 1)
    g = torch.full((1, T, 1, 2)[:kind], factor).log().requires_grad_()
    y = mm.matrix_memory(q, k, v, g)
    if factor == 1.0:
        seen = torch.einsum("bthk,bthv->bthkv", k.double(), v.double()).cumsum(1)
    else:
        write = torch.einsum("bthk,bthv->bthkv", k.double(), v.double())
        seen = sum(factor**n * F.pad(write, (0, 0, 0, 0, 0, 0, n, 0))[:, :T] for n in range(60 if factor == 0.5 else 2))
    assert_close("y", y, torch.einsum("bthk,bthkv->bthv", q.double(), seen), 2e-5)
    assert torch.autograd.grad(y.sum(), g)[0].isfinite().all()


def test_nan_stays():
    given = mm.example(T=40, decay=3)
    given["v"][0, 20] = torch.nan
    y = mm.matrix_memory(**given, chunk=16)
    assert y[0, 20:].isnan().all()
    assert y[0, :16].isfinite().all()  # the chunks before
    assert y[1].isfinite().all()


def test_normalised_sums_may_be_larger_than_float16_holds():
    q, k, v = (x.abs().half() for x in mm.example(T=257, K=64, V=8).values())
    q, k = 16 * q, 4 * k
    wanted = mm.reference(q, k, v)[0] / mm.reference(q, k, torch.ones_like(v))[0]
    assert wanted.numel()
    assert (mm.reference(q, k, v)[0] > 65504).any()
    y = mm.matrix_memory(q, k, v, normalise=True)
    assert y.dtype == torch.float16
    assert_close("y", y, wanted, 1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_no_tokens_leave_the_state_as_it_was(kind):
    given = {name: x.requires_grad_() for name, x in arguments(T=1, decay=kind).items()}
    none = {name: x[:, :0] if name in "qkv" or (name == "decay" and kind > 2) else x for name, x in given.items()}
    y, last = with_state(tuple(none))(*none.values())
    assert y.shape == (2, 0, 4, 5)
    assert torch.equal(last, given["initial"])
    grad = torch.autograd.grad(last.square().sum(), given["initial"])[0]
    assert torch.equal(grad, 2 * given["initial"])


def test_mixed_types_give_the_type_of_values():
    given = mm.example(T=20, decay=4)
    state = {}
    q, k, v = given["q"].bfloat16(), given["k"].float(), given["v"].bfloat16()
    y = mm.matrix_memory(q, k, v, given["decay"].float(), state=state)
    assert (y.dtype, state["memory"].dtype) == (torch.bfloat16, torch.float32)
    assert_close("y", y, mm.reference(q, k, v, given["decay"])[0], 1e-2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sizes", [{"T": 40}, {"T": 33, "H": 4, "G": 1}, {"T": 5}], ids=str)
def test_flops_are_those_of_the_vectorised_path(kind, sizes):
    given = mm.example(decay=kind, **sizes)
    q, k, v, g = (given.get(name) for name in ("q", "k", "v", "decay"))
    inputs = Inputs(q, k, v, g, None, 1.0, False, 16)
    with FlopCounterMode(display=False) as plain:
        y, _, entering = chunked.chunked_forward(inputs, True)
        forward = plain.get_total_flops()
        chunked.chunked_backward([y, None], entering, inputs, True)
    leaves = [None if x is None else x.requires_grad_() for x in (q, k, v, g)]
    with FlopCounterMode(display=False) as counted:
        y, _ = matrix_scan.scan(*leaves, None, chunk=16)
        assert counted.get_total_flops() == forward
        y.sum().backward()
    assert counted.get_total_flops() == plain.get_total_flops()


@pytest.mark.parametrize("kind", KINDS)
def test_torch_library(kind):
    given = arguments(T=20, B=1, H=2, G=2, K=3, V=2, decay=kind)
    q, k, v, g, S = (given.get(name) for name in ("q", "k", "v", "decay", "initial"))
    leaves = [None if x is None else x.float().requires_grad_() for x in (q, k, v, g, S)]
    is_an_operator(matrix_scan.memory_of_matrices, *leaves, 0.5, False, 8, True)


@pytest.mark.parametrize("kind", [1, 4])
def test_compiles_with_a_bonus_and_a_state(kind):
    given = {name: x.float() for name, x in mm.example(T=20, decay=kind, bonus=1).items()}
    q, k, v, g, u = given.values()
    compiles(lambda *x: mm.matrix_memory(*x[:4], bonus=x[4], normalise=True), q.exp(), k.exp(), v, g, u.exp())
    state = {"memory": torch.randn(2, 4, 6, 5)}
    compiles(
        lambda *x: mm.matrix_memory(*x[:3], g if kind == 1 else g[:, :1], state=dict(state)),
        q[:, :1],
        k[:, :1],
        v[:, :1],
    )


def test_a_decay_that_is_not_trained_gets_no_gradient_and_costs_none():
    given = mm.example(T=20, decay=3)
    q, k, v = (given[name].requires_grad_() for name in "qkv")
    wanted = torch.autograd.grad(mm.reference(q, k, v, given["decay"])[0].sum(), (q, k, v))
    ours = torch.autograd.grad(mm.matrix_memory(q, k, v, given["decay"], chunk=8).sum(), (q, k, v))
    for a, b in zip(ours, wanted, strict=True):
        assert_close("gradient", a, b)


def test_memory_grows_by_one_state_a_chunk_in_training_alone():
    given = mm.example(T=64, decay=3)
    q, k, v, g = given.values()
    assert matrix_scan.memory_of_matrices(q, k, v, g, None, 1.0, False, 16, False)[2].numel() == 0
    assert matrix_scan.memory_of_matrices(q, k, v, g, None, 1.0, False, 16, True)[2].numel() == 4 * 2 * 4 * 6 * 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"v": (2, 63, 3, 5)}, "matrix_memory: v has 3 heads, expected a multiple of the 2 of q"),
        (
            {"k": (2, 63, 2, 7)},
            "matrix_memory: k has shape (2, 63, 2, 7), expected (B T G K) with B = 2, T = 63, G = 2, K = 6",
        ),
        (
            {"decay": (2, 63, 2)},
            "matrix_memory: decay has shape (2, 63, 2), expected (B T H) with B = 2, T = 63, H = 4",
        ),
        ({"decay": (4, 5)}, "matrix_memory: decay has shape (4, 5), expected (H K) with H = 4, K = 6"),
        ({"decay": ()}, "matrix_memory: decay has shape (), expected 4 axes (B T H K)"),
        ({"bonus": (6,)}, "matrix_memory: bonus has shape (6,), expected 2 axes (H K)"),
        ({"memory": (2, 4, 5, 6)}, "matrix_memory: the state has shape (2, 4, 5, 6), expected (2, 4, 6, 5)"),
    ],
)
def test_a_broken_contract_is_one_clear_error(change, message):
    given = {**mm.example(), **{name: torch.zeros(shape) for name, shape in change.items()}}
    state = {"memory": given.pop("memory")} if "memory" in given else None
    with pytest.raises(ValueError) as error:
        mm.matrix_memory(**given, state=state)
    assert str(error.value) == message


def test_a_chunk_of_nothing_is_refused():
    with pytest.raises(ValueError, match="matrix_memory: chunk is 0, expected at least 1"):
        mm.matrix_memory(**mm.example(), chunk=0)
