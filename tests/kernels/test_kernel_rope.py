import pytest
import torch
from kernel_checks import Face, assert_close, check, compiles, is_an_operator, normal

from archspec.kernels import backend
from archspec.kernels.pointwise import rope
from archspec.kernels.pointwise.rope_frequencies import default_frequencies


@pytest.fixture(params=["formulas", "operator", "triton"])
def face(request, monkeypatch):
    """What runs: the formulas, the operator without Triton, and its kernel."""
    face = Face("triton" if request.param == "triton" else "torch")
    if face.name == "triton":
        pytest.importorskip("triton")
    monkeypatch.setattr(backend, "on_gpu", lambda x: face.name == "triton")
    monkeypatch.setattr(rope, "NUMBERS_TURNED", 2**40 if request.param == "formulas" else 0)
    return face


def tables(positions, inv_freq):
    angle = positions.double().unsqueeze(-1) * inv_freq.double()
    return angle.cos(), angle.sin()


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize(("T", "R"), [(1, 4), (63, 3), (100, 1), (257, 4)])
def test_rotate(face, T, R, interleaved):
    positions, inv_freq = torch.arange(5, 5 + T), default_frequencies(2 * R, 10000.0)
    cos, sin = tables(positions, inv_freq)
    if face.name == "triton":
        cos, sin = cos.float(), sin.float()

    def naive(x):
        return rope.reference(x, positions, inv_freq, interleaved)

    check(lambda x: rope.rotate(x, cos.to(x.device), sin.to(x.device), interleaved), naive, [normal(2, 3, T, 8)], face)


@pytest.mark.parametrize("interleaved", [False, True])
def test_queries_and_keys_at_once(face, interleaved):
    positions, inv_freq = torch.arange(9), default_frequencies(6, 100.0)
    cos, sin = tables(positions, inv_freq)
    if face.name == "triton":
        cos, sin = cos.float(), sin.float()

    def naive(q, k):
        return tuple(rope.reference(x, positions, inv_freq, interleaved) for x in (q, k))

    given = [normal(2, 4, 9, 8), normal(2, 1, 9, 13)]
    check(lambda q, k: rope.rotate_pair(q, k, cos, sin, interleaved), naive, given, face)


def test_only_one_of_the_pair_is_used(face):
    q, k = torch.randn(1, 2, 5, 4, requires_grad=True), torch.randn(1, 1, 5, 4, requires_grad=True)
    cos, sin = rope.rope_tables(torch.arange(5), default_frequencies(4, 100.0))
    for index, (x, other) in enumerate(((q, k), (k, q))):
        y = rope.rotate_pair(q, k, cos, sin)[index]
        dx, none = torch.autograd.grad(y.square().sum(), (x, other), allow_unused=True)
        assert_close("gradient", dx, 2 * x, 1e-6)
        assert none is None or not none.any()


def test_the_tables_have_no_gradient(face):
    x = torch.randn(1, 2, 5, 4, requires_grad=True)
    cos, sin = (t.requires_grad_() for t in rope.rope_tables(torch.arange(5), default_frequencies(4, 100.0)))
    rope.rotate(x, cos, sin).square().sum().backward()
    assert x.grad is not None
    assert all(t.grad is None or not t.grad.any() for t in (cos, sin))


def test_positions_may_differ_between_sequences(face):
    x, inv_freq = normal(2, 3, 7, 8).float(), default_frequencies(8, 100.0)
    positions = torch.stack((torch.arange(7), torch.arange(4, 11)))
    cos, sin = rope.rope_tables(positions, inv_freq)
    y = rope.rotate(x, cos, sin)
    for b in range(2):
        assert torch.equal(y[b : b + 1], rope.rotate(x[b : b + 1], *rope.rope_tables(positions[b], inv_freq)))
    assert torch.equal(rope.rotate(x[:, 1], cos, sin), y[:, 1])
    assert torch.equal(rope.rotate(x.unsqueeze(2), cos, sin), y.unsqueeze(2))


@pytest.mark.parametrize("interleaved", [False, True])
def test_views_and_leading_axes(face, interleaved):
    cos, sin = rope.rope_tables(torch.arange(7), default_frequencies(6, 100.0))
    x = torch.randn(2, 7, 3, 16)
    for view in (
        x.transpose(1, 2),
        x.transpose(1, 2)[..., ::2],
        x.permute(3, 0, 2, 1)[..., None].expand(-1, -1, -1, -1, 6),
    ):
        exact = rope.reference(view.flatten(0, -4), torch.arange(7), default_frequencies(6, 100.0), interleaved)
        leaf = view.detach().requires_grad_()
        y = rope.rotate(leaf, cos, sin, interleaved)
        assert_close("view", y, exact.view(view.shape), 2e-6)
        assert_close("gradient", torch.autograd.grad(y.square().sum(), leaf)[0], 2 * view, 1e-6)
    assert torch.equal(rope.rotate(x[0, :, 0], cos, sin), rope.rotate(x[:1, :, :1].transpose(1, 2), cos, sin)[0, 0])
    assert rope.rotate(x[:0].transpose(1, 2), cos, sin).shape == (0, 3, 7, 16)


def test_layouts_are_permutations_of_each_other(face):
    x = normal(1, 1, 9, 8).float()
    cos, sin = rope.rope_tables(torch.arange(9), default_frequencies(8, 100.0))
    order = torch.tensor([0, 2, 4, 6, 1, 3, 5, 7])
    assert_close("order", rope.rotate(x, cos, sin, True)[..., order], rope.rotate(x[..., order], cos, sin), 3e-7)


def test_missing_numbers_stay_in_their_pair(face):
    x = torch.randn(1, 1, 3, 6)
    x[0, 0, 1, 0] = torch.nan
    y = rope.rotate(x, *rope.rope_tables(torch.arange(3), default_frequencies(4, 100.0)))
    assert y.isnan().nonzero().tolist() == [[0, 0, 1, 0], [0, 0, 1, 2]]


def test_rotate_is_that_of_llama_to_the_bit(monkeypatch):
    llama = pytest.importorskip("transformers.models.llama.modeling_llama")
    x = torch.randn(2, 3, 11, 16)
    cos, sin = rope.rope_tables(torch.arange(11), default_frequencies(16, 10000.0))
    wanted, _ = llama.apply_rotary_pos_emb(x, x, torch.cat((cos, cos), -1)[None], torch.cat((sin, sin), -1)[None])
    for small in (0, 2**40):
        monkeypatch.setattr(rope, "NUMBERS_TURNED", small)
        assert torch.equal(rope.rotate(x, cos, sin), wanted)


def test_rotate_interleaved_is_that_of_gptj(face):
    gptj = pytest.importorskip("transformers.models.gptj.modeling_gptj")
    x = torch.randn(2, 3, 11, 16)
    cos, sin = rope.rope_tables(torch.arange(11), default_frequencies(16, 10000.0))
    wanted = gptj.apply_rotary_pos_emb(x.transpose(1, 2), sin[None], cos[None]).transpose(1, 2)
    assert_close("gptj", rope.rotate(x, cos, sin, interleaved=True), wanted, 3e-7)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((1, 1, 5, 8), (4, 2), (4, 2)), "rotate: cos has shape (4, 2), expected (T R) with T = 5"),
        (((1, 1, 5, 8), (5, 2), (5, 3)), "rotate: sin has shape (5, 3), expected (T R) with T = 5, R = 2"),
        (((2, 1, 5, 8), (1, 5, 2), (1, 5, 2)), "rotate: cos has shape (1, 5, 2), expected (B T R) with B = 2, T = 5"),
        (((1, 1, 5, 8), (5, 5), (5, 5)), "rotate: cos must turn at most D = 8 channels of x, found 10"),
    ],
)
def test_a_broken_contract_is_one_clear_error(shapes, message):
    with pytest.raises(ValueError) as error:
        rope.rotate(*(torch.zeros(s) for s in shapes))
    assert str(error.value) == message


def test_the_operator_is_one():
    q, k = torch.randn(2, 3, 5, 6, requires_grad=True), torch.randn(2, 1, 5, 6, requires_grad=True)
    cos, sin = rope.rope_tables(torch.arange(5), default_frequencies(4, 100.0))
    is_an_operator(rope.turn, q, k, cos, sin, False)
    is_an_operator(rope.turn, q.detach().half().requires_grad_(), None, cos, sin, True)


def test_meta_and_16_bits():
    positions, inv_freq = torch.arange(9, device="meta"), default_frequencies(8, 1e4).to("meta")
    cos, sin = rope.rope_tables(positions, inv_freq)
    assert cos.dtype == torch.float32
    y = rope.rotate(torch.empty(2, 3, 9, 12, device="meta", dtype=torch.bfloat16), cos, sin)
    assert (y.shape, y.dtype) == ((2, 3, 9, 12), torch.bfloat16)


@pytest.mark.parametrize("small", [0, 2**40])
def test_compile(monkeypatch, small):
    monkeypatch.setattr(rope, "NUMBERS_TURNED", small)

    def f(x):
        cos, sin = rope.rope_tables(torch.arange(9), default_frequencies(8, 1e4))
        return rope.rotate(x, cos, sin, interleaved=True) + rope.rotate_pair(x, x + 1, cos, sin)[1]

    compiles(f, torch.randn(2, 3, 9, 12))


def test_keys_of_another_batch_are_refused():
    q, k, (cos, sin) = torch.zeros(2, 1, 5, 4), torch.zeros(1, 1, 5, 4), tables(torch.arange(5), torch.ones(2))
    for other in (k, k[0]):
        with pytest.raises(ValueError) as error:
            rope.rotate_pair(q, other, cos, sin)
        message = f"rotate_pair: k has shape {tuple(other.shape)}, expected a batch like q, (2, 1, 5, 4)"
        assert str(error.value) == message


def test_a_graph_of_any_length():
    class Turn(torch.nn.Module):
        def forward(self, x, cos, sin):
            return rope.rotate(x, cos, sin)

    T = torch.export.Dim("T", min=2, max=1 << 30)
    given = [(torch.randn(2, n, 8), torch.randn(n, 4), torch.randn(n, 4)) for n in (5, rope.NUMBERS_TURNED // 16 + 3)]
    exported = torch.export.export(Turn(), given[0], dynamic_shapes=({1: T}, {0: T}, {0: T})).module()
    assert_close("rotate", exported(*given[1]), rope.rotate(*given[1]), 1e-6)
