import pytest
import torch
from definitions.scans import rwkv4_wkv
from kernel_checks import assert_close, check, compiles, faces, is_an_operator, normal, pieces
from plain_cases import plain

from archspec.kernels.scans.wkv import EXAMPLES, average, example, reference, wkv

both = faces("torch", "compiled")
all_faces = faces("torch", "compiled", "triton")


def with_sums(w, u, k, v, num, den):
    """y and the last sums without their exponent, continued from num and den."""
    state = {"num": num, "den": den, "max": torch.zeros_like(num)}
    y = wkv(w, u, k, v, state)
    scale = state["max"].exp()
    return y, state["num"] * scale, state["den"] * scale


def floats(**sizes):
    return {k: v.float() for k, v in example(**sizes).items()}


@both
@pytest.mark.parametrize("sizes", EXAMPLES, ids=str)
def test_outputs_state_and_gradients(face, sizes):
    given = example(**sizes)
    B, _, D = given["k"].shape
    if B == 0:
        return
    check(with_sums, reference, [*given.values(), normal(B, D), 1 + torch.rand(B, D, dtype=torch.float64)], face)


@faces("triton")
@pytest.mark.parametrize("T", [2, 35])
def test_triton(face, T):
    given = example(B=1, T=T, D=3)
    check(with_sums, reference, [*given.values(), normal(1, 3), 1 + torch.rand(1, 3, dtype=torch.float64)], face)


@all_faces
@pytest.mark.parametrize("T", [2, 9])
def test_from_nothing(face, T):
    given = example(B=1, T=T, D=2)
    check(lambda *x: wkv(*x), lambda *x: reference(*x)[0], list(given.values()), face)
    first = {k: v[:, :1].float() if v.dim() == 3 else v.float() for k, v in given.items()}
    assert_close("one token", wkv(**first), first["v"], 1e-6)


@both
@pytest.mark.parametrize("gradients", [False, True])
def test_whole_is_in_pieces_is_token_by_token(face, gradients):
    w, u, k, v = example(T=70).values()
    with torch.set_grad_enabled(gradients):
        for dtype, limit in ((torch.float64, 1e-11), (torch.float32, 2e-5)):
            w, u, k, v = (x.to(dtype).requires_grad_(gradients) for x in (w, u, k, v))
            whole = wkv(w, u, k, v)
            for cuts in pieces(70):
                state = {}
                assert_close("y", torch.cat([wkv(w, u, k[:, c], v[:, c], state) for c in cuts], 1), whole, limit)
            assert {name: x.shape for name, x in state.items()} == dict.fromkeys(("num", "den", "max"), (2, 7))


@both
def test_gradients_flow_through_the_state(face):
    given = [x.requires_grad_() for x in example(T=70).values()]
    w, u, k, v = given
    wanted = torch.autograd.grad(wkv(*given).sin().sum(), given)
    for cuts in ([slice(0, 40), slice(40, 70)], [slice(0, 69), slice(69, 70)]):
        state = {}
        y = torch.cat([wkv(w, u, k[:, c], v[:, c], state) for c in cuts], 1)
        for a, b in zip(torch.autograd.grad(y.sin().sum(), given), wanted, strict=True):
            assert_close("gradient", a, b)


PADDED = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0], [0, 0, 0, 0, 1]], dtype=torch.bool)


@pytest.mark.parametrize("average", [wkv, plain("wkv").wkv], ids=["package", "plain"])
def test_padded_rows_give_what_each_gives_alone(average):
    """In calls that go on from one another, gradients too; padding holds what would outweigh all tokens."""
    masks = [PADDED, PADDED.flip(0), torch.ones(4, 1, dtype=torch.bool), PADDED[:, 3:], PADDED[:, :1]]
    real = torch.cat(masks, dim=1)
    w, u, k, v = (x.requires_grad_() for x in example(B=4, T=real.shape[1]).values())
    state, parts, at = {}, [], 0
    for mask in masks:
        now = slice(at, at := at + mask.shape[1])
        hidden = ~mask.unsqueeze(-1)
        keys, values = k[:, now].masked_fill(hidden, 90.0), v[:, now].masked_fill(hidden, 1e4)
        parts.append(average(w, u, keys, values, state, mask=None if mask.all() else mask))
    y, wanted, sums = torch.cat(parts, dim=1)[real], [], []
    for i in range(4):
        alone = {}
        wanted.append(wkv(w, u, k[i : i + 1, real[i]], v[i : i + 1, real[i]], alone)[0])
        sums.append(torch.stack([alone[name].log() + alone["max"] if name == "den" else alone[name] / alone["den"]
                                 for name in ("num", "den")]))  # fmt: skip
    wanted, sums = torch.cat(wanted), torch.cat(sums, dim=1)
    found = torch.stack([state["num"] / state["den"], state["den"].log() + state["max"]])
    assert_close("y", y, wanted)
    assert_close("sums", found, sums)
    ours, theirs = (torch.autograd.grad(x.sin().sum() + s.sum(), (w, u, k, v)) for x, s in ((y, found), (wanted, sums)))
    for name, a, b in zip("wukv", ours, theirs, strict=True):
        assert_close(name, a, b)


@both
def test_earlier_tokens_do_not_depend_on_later_ones_to_the_bit(face):
    w, u, k, v = floats(T=100, D=33).values()
    whole = wkv(w, u, k, v)
    for length in (2, 31, 32, 33, 71):
        assert torch.equal(wkv(w, u, k[:, :length].contiguous(), v[:, :length].contiguous()), whole[:, :length])


@both
@pytest.mark.parametrize("scale", [1e3, 1e30])
def test_keys_of_any_size(face, scale):
    w, u, k, v = example(T=70).values()
    given = [x.float().requires_grad_() for x in (w, u, k * scale, v)]
    leaves = [x.detach().double().requires_grad_() for x in given]
    y, wanted = wkv(*given), rwkv4_wkv(*leaves)
    assert_close("y", y, wanted, 1e-5)
    dy = normal(*y.shape)
    ours, theirs = torch.autograd.grad((y * dy).sum(), given), torch.autograd.grad((wanted * dy).sum(), leaves)
    for name, a, b in zip(("w", "u", "k", "v"), ours, theirs, strict=True):
        assert a.isfinite().all(), name
        if b.abs().max() > 1e-20:
            assert_close(name, a, b, 2e-3)  # a key of 1000 is known to 6e-5


@both
@pytest.mark.parametrize("log_decay", [0.0, -69.0, -1e30, -torch.inf], ids=["1", "1e-30", "all but 0", "0"])
@pytest.mark.parametrize("bonus", [0.0, 200.0, -200.0])
def test_extreme_decays_and_bonuses(face, log_decay, bonus):
    w, u, k, v = example(T=70).values()
    w, u = torch.full_like(w, log_decay), torch.full_like(u, bonus)
    given = [x.float().requires_grad_() for x in (w, u, k, v)]
    leaves = [x.detach().double().requires_grad_() for x in given]
    y, wanted = wkv(*given), rwkv4_wkv(*leaves)
    assert_close("y", y, wanted, 1e-5)
    dy = normal(*y.shape)
    ours, theirs = torch.autograd.grad((y * dy).sum(), given), torch.autograd.grad((wanted * dy).sum(), leaves)
    for name, a, b in zip(("w", "u", "k", "v"), ours, theirs, strict=True):
        assert a.isfinite().all(), name
        if b.abs().max() > 1e-20:
            assert_close(name, a, b, 1e-4)


@pytest.fixture(scope="module")
def long():
    _, u, k, v = floats(B=1, T=65536, D=3).values()
    given = [torch.tensor([0.0, -1e-5, -69.0]), u, k, v]
    return given, reference(*given)[0]


@both
def test_long_sequences(face, long):
    given = [x.clone().requires_grad_() for x in long[0]]
    y = wkv(*given)
    assert_close("y", y, long[1], 1e-4)
    assert all(g.isfinite().all() for g in torch.autograd.grad(y.square().sum(), given))


@both
def test_nan_reaches_its_channel_and_later_tokens_alone(face):
    for name in ("k", "v"):
        given = floats(T=80)
        given[name][0, 40, 2] = torch.nan
        missing = wkv(**given).isnan()
        assert missing[0, 40:, 2].all()
        assert missing.sum() == 40


def test_threads_change_no_bit():
    given = [x.requires_grad_() for x in floats(B=3, T=40, D=300).values()]

    def run(threads):
        torch.set_num_threads(threads)
        y = wkv(*given)
        return [y, *torch.autograd.grad(y.square().sum(), given)]

    for one, many in zip(run(1), run(3), strict=True):
        assert torch.equal(one, many)


@both
def test_against_the_definition_and_transformers(face):
    from transformers.models.rwkv.modeling_rwkv import rwkv_linear_attention_cpu

    w, u, k, v = floats(T=80).values()
    state = {}
    y = wkv(w, u, k, v, state)
    assert_close("definition", y, rwkv4_wkv(w, u, k, v), 1e-5)
    theirs, sums = rwkv_linear_attention_cpu((-w).log(), u, k, v, return_state=True)
    assert_close("transformers", y, theirs, 1e-5)
    for name, x in zip(("num", "den", "max"), sums, strict=True):
        assert_close(name, state[name], x, 1e-5)


def test_states_of_16_bit_inputs_are_float32():
    state = {}
    w, u, k, v = (x.bfloat16() for x in example(T=5).values())
    for c in (slice(0, 5), slice(0, 1)):
        assert wkv(w, u, k[:, c], v[:, c], state).dtype == torch.bfloat16
        assert {x.dtype for x in state.values()} == {torch.float32}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"w": torch.zeros(6)}, "wkv: u has shape (7,), expected (D) with D = 6"),
        ({"k": torch.zeros(9, 7)}, "wkv: k has shape (9, 7), expected 3 axes (B T D)"),
        ({"v": torch.zeros(2, 9, 7).long()}, "wkv: v is torch.int64, expected a floating type"),
        (
            {"state": {"num": torch.zeros(2, 7), "den": torch.zeros(1, 7), "max": torch.zeros(2, 7)}},
            "wkv: den has shape (1, 7), expected (B D) with B = 2, D = 7",
        ),
    ],
)
def test_a_broken_contract_is_one_clear_error(wrong, message):
    with pytest.raises((ValueError, TypeError)) as error:
        wkv(**{**floats(T=9), **wrong})
    assert str(error.value) == message


def test_operator_compile_and_meta():
    given = [x.requires_grad_() for x in floats(T=40).values()]
    sums = [torch.zeros(2, 7), torch.zeros(2, 7), torch.full((2, 7), -1e38)]
    is_an_operator(average, *given, *sums, True)
    is_an_operator(average, *(x.detach() for x in given), *sums, False)
    compiles(lambda *x: wkv(*x), *(x.detach() for x in given))
    assert wkv(*(x.to("meta") for x in given)).shape == (2, 40, 7)
