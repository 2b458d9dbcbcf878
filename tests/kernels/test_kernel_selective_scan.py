import pytest
import torch
import torch.nn.functional as F
from definitions.scans import mamba_s6
from kernel_checks import Face, assert_close, check, compiles, faces, is_an_operator, normal, pieces
from torch.utils.flop_counter import FlopCounterMode

from archspec.kernels.scans import selective_scan as s6

both = faces("torch", "compiled")


def with_state(x, dt, A, B, C, D, z, h):
    """y and the last state, continued from h."""
    state = {"ssm": h}
    return s6.selective_scan(x, dt, A, B, C, D, z, state), state["ssm"]


def floats(**sizes):
    return {k: v.float() for k, v in s6.example(**sizes).items()}


@both
@pytest.mark.parametrize("sizes", s6.EXAMPLES, ids=str)
def test_outputs_state_and_gradients(face, sizes):
    given = s6.example(**sizes)
    if given["x"].numel() == 0:
        return
    first = normal(given["x"].shape[0], *given["A"].shape)
    check(with_state, s6.reference, [*given.values(), first], face)


@faces("triton")
@pytest.mark.parametrize("T", [2, 19])
def test_triton(face, T):
    given = s6.example(T=T, D=5, N=3)
    check(with_state, s6.reference, [*given.values(), normal(2, 5, 3)], face)


@faces("torch", "compiled", "triton")
@pytest.mark.parametrize("absent", [("D",), ("z",), ("D", "z")])
@pytest.mark.parametrize("T", [1, 18])
def test_without_skip_or_gate(face, absent, T):
    given = s6.example(B=1, T=T, D=3, N=2)
    names = [name for name in given if name not in absent]
    tensors = [given[name] for name in names]
    check(
        lambda *x: s6.selective_scan(**dict(zip(names, x, strict=True))),
        lambda *x: s6.reference(**dict(zip(names, x, strict=True)))[0],
        tensors,
        face,
    )


@both
@pytest.mark.parametrize("gradients", [False, True])
def test_whole_is_in_pieces_is_token_by_token(face, gradients):
    given = s6.example(T=37)
    A, D = given.pop("A"), given.pop("D")
    with torch.set_grad_enabled(gradients):
        for dtype, limit in ((torch.float64, 1e-11), (torch.float32, 2e-5)):
            moving = {k: v.to(dtype).requires_grad_(gradients) for k, v in given.items()}
            whole = s6.selective_scan(**moving, A=A.to(dtype), D=D.to(dtype))
            for cuts in pieces(37):
                state = {}
                parts = [
                    s6.selective_scan(
                        **{k: v[:, c] for k, v in moving.items()}, A=A.to(dtype), D=D.to(dtype), state=state
                    )
                    for c in cuts
                ]
                assert_close("pieces", torch.cat(parts, 1), whole, limit)
            assert state["ssm"].shape == (2, 7, 4)


@both
def test_gradients_flow_through_the_state(face):
    given = {k: v.requires_grad_() for k, v in s6.example(T=40).items()}
    moving = {k: v for k, v in given.items() if v.dim() == 3}
    state = {}
    rest = {"A": given["A"], "D": given["D"], "state": state}
    parts = [
        s6.selective_scan(**{k: v[:, c] for k, v in moving.items()}, **rest) for c in (slice(0, 17), slice(17, 40))
    ]
    wanted = torch.autograd.grad(s6.selective_scan(**given).sin().sum(), given.values())
    for name, a, b in zip(
        given, torch.autograd.grad(torch.cat(parts, 1).sin().sum(), given.values()), wanted, strict=True
    ):
        assert_close(name, a, b)


@both
def test_earlier_tokens_do_not_depend_on_later_ones_to_the_bit(face):
    given = floats(T=70, D=33)
    whole = s6.selective_scan(**given)
    for length in (2, 16, 17, 49):
        cut = {k: v[:, :length] if v.dim() == 3 else v for k, v in given.items()}
        assert torch.equal(s6.selective_scan(**cut), whole[:, :length])


@faces("torch", "compiled", "triton")
@pytest.mark.parametrize("rate", [0.0, -69.0, -6e4], ids=["decay 1", "decay 1e-30", "decay 0"])
def test_extreme_decays(face, rate):
    given = s6.example(B=1, T=20, D=3, N=2)
    given["A"] = torch.full_like(given["A"], rate)
    given["dt"] = torch.ones_like(given["dt"])
    # gradients of a decay of 1e-30 are too small for float16
    narrow = dict.fromkeys((torch.float16, torch.bfloat16), torch.inf)
    check(lambda *x: s6.selective_scan(*x), lambda *x: s6.reference(*x)[0], list(given.values()), face, narrow)


@pytest.fixture(scope="module")
def long():
    given = floats(B=1, T=65536, D=2, N=1)
    given["dt"], given["A"] = given["dt"] * 1e-3, torch.tensor([[-1.0], [-1e-6]])
    return given, s6.reference(**given)[0]


@both
def test_long_sequences(face, long):
    leaves = {k: v.clone().requires_grad_() for k, v in long[0].items()}
    y = s6.selective_scan(**leaves)
    assert_close("y", y, long[1], 2e-4)  # 65,536 roundings of a state that is all but kept
    assert all(g.isfinite().all() for g in torch.autograd.grad(y.square().mean(), leaves.values()))


@both
def test_nan_reaches_its_channel_and_later_tokens_alone(face):
    given = floats(T=30)
    given["x"][0, 10, 2] = torch.nan
    missing = s6.selective_scan(**given).isnan()
    assert missing[0, 10:, 2].all()
    assert missing.sum() == 20
    given["dt"][1, 5, 1] = torch.nan
    assert s6.selective_scan(**given)[1, 5:, 1].isnan().all()


def test_threads_change_no_bit():
    given = {k: v.requires_grad_() for k, v in floats(B=3, T=40, D=600, N=16).items()}

    def run(threads):
        torch.set_num_threads(threads)
        y = s6.selective_scan(**given)
        return [y, *torch.autograd.grad(y.square().sum(), given.values())]

    for one, many in zip(run(1), run(3), strict=True):
        assert torch.equal(one, many)


@both
def test_against_the_definition_and_transformers(face):
    from transformers.models.mamba.modeling_mamba import mamba_selective_scan

    given = floats(T=50, D=9, N=16)
    y = s6.selective_scan(**given)
    assert_close("definition", y, mamba_s6(**given), 1e-5)
    x, dt, A, B, C, D, z = given.values()
    theirs = mamba_selective_scan(x.mT, dt.mT, A, B.mT, C.mT, D, z.mT).mT
    assert_close("transformers", y, theirs, 1e-5)


def test_states_of_16_bit_inputs_are_float32():
    state = {}
    given = {k: v.bfloat16() for k, v in s6.example(T=5).items()}
    assert s6.selective_scan(**given, state=state).dtype == torch.bfloat16
    assert state["ssm"].dtype == torch.float32
    given = {k: v[:, :1] if v.dim() == 3 else v for k, v in given.items()}
    assert s6.selective_scan(**given, state=state).dtype == torch.bfloat16
    assert state["ssm"].dtype == torch.float32


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"A": torch.zeros(7)}, "selective_scan: A has shape (7,), expected 2 axes (D N)"),
        (
            {"C": torch.zeros(2, 9, 5)},
            "selective_scan: C has shape (2, 9, 5), expected (B T N) with B = 2, T = 9, N = 4",
        ),
        ({"z": torch.zeros(2, 9, 7).long()}, "selective_scan: z is torch.int64, expected a floating type"),
        (
            {"state": {"ssm": torch.zeros(1, 7, 4)}},
            "selective_scan: state has shape (1, 7, 4), expected (B D N) with B = 2, D = 7, N = 4",
        ),
    ],
)
def test_a_broken_contract_is_one_clear_error(wrong, message):
    with pytest.raises((ValueError, TypeError)) as error:
        s6.selective_scan(**{**floats(T=9), **wrong})
    assert str(error.value) == message


def test_operator_compile_and_meta():
    given = floats(T=20, D=3)
    first = torch.zeros(2, 3, 4)
    is_an_operator(s6.scan, *given.values(), first, False)
    is_an_operator(s6.scan, *(v.requires_grad_() for v in given.values()), first, True)
    compiles(lambda *x: s6.selective_scan(*x), *(v.detach() for v in given.values()))
    assert s6.selective_scan(**{k: v.to("meta") for k, v in given.items()}).shape == (2, 20, 3)


@pytest.mark.slow
def test_inductor_leaves_the_inputs_alone():
    # a cumulative sum over dt once made the compiled backward pass write into dt
    compiles(lambda *x: s6.selective_scan(*x), *floats(T=64, B=1, D=8).values(), backend="inductor")


@pytest.mark.parametrize("absent", [(), ("z",), ("D", "z")])
def test_flops_are_those_of_the_vectorised_path(absent):
    given = floats(T=33)
    given.update(dict.fromkeys(absent))
    first = torch.zeros(2, 7, 4)
    with FlopCounterMode(display=False) as counter:
        y, last, entering = s6.vectorised_forward(s6.Inputs(*given.values(), first), True)
        s6.vectorised_backward(y, last, entering, s6.Inputs(*given.values(), first))
    counted = counter.get_total_flops()
    with FlopCounterMode(display=False) as counter:
        s6.selective_scan(**{k: v if v is None else v.requires_grad_() for k, v in given.items()}).sum().backward()
    assert counter.get_total_flops() == counted


def test_silu_of_the_gate_has_the_right_slope_far_out():
    given = floats(T=20)
    given["z"] = torch.linspace(-80, 80, given["z"].numel()).view_as(given["z"]).requires_grad_()
    s6.selective_scan(**given).sum().backward()
    ungated = s6.selective_scan(**{**given, "z": None})
    wanted = torch.autograd.grad((ungated.detach() * F.silu(given["z"])).sum(), given["z"])[0]
    assert_close("dz", given["z"].grad, wanted, 1e-5)


def test_faces_are_what_runs(monkeypatch):
    """The module that each face stands for is the one called."""
    import archspec.kernels.cpu.selective_scan as loops

    called = []
    monkeypatch.setattr(loops, "forward", lambda *x: called.append(1) or s6.vectorised_forward(*x))
    s6.selective_scan(**floats())
    assert called
    assert Face("compiled").dtypes[0] == torch.float32
