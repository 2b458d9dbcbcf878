"""Published mixers as the matrix memory computes them, against their own recurrences and against transformers."""

import pytest
import torch
from definitions import matrix_memory as papers
from kernel_checks import assert_close, check, normal, pieces

from archspec.kernels.memory import feature_maps, mlstm
from archspec.kernels.memory import matrix_memory as mm
from archspec.kernels.memory.fixed_decays import lightning_decays, linear_lightning_decays, retention_decays

B, T, H, K, V = 2, 70, 4, 6, 5


@pytest.fixture
def qkv():
    return normal(B, T, H, K), normal(B, T, H, K), normal(B, T, H, V)


def remembered(*tensors, **options):
    state = {}
    return mm.matrix_memory(*tensors, **options, state=state, chunk=16), state["memory"]


def both(ours, theirs):
    assert_close("y", ours[0], theirs[0])
    assert_close("state", ours[1], theirs[1])


def test_linear_attention(qkv):
    q, k, v = (feature_maps.elu_plus_one(qkv[0]), feature_maps.elu_plus_one(qkv[1]), qkv[2])
    state = {}
    y = mm.matrix_memory(q, k, v, normalise=True, state=state, chunk=16)
    wanted, (S, n) = papers.linear_attention(q, k, v)
    both((y, state["memory"]), (wanted, S))
    assert_close("normaliser", state["normaliser"], n)


@pytest.mark.parametrize("decays", [retention_decays(H), lightning_decays(H, 1, 3)], ids=["RetNet", "lightning"])
def test_a_constant_a_head(qkv, decays):
    both(remembered(*qkv, decays.double()), papers.retention(*qkv, decays.double()))


def test_gated_linear_attention(qkv):
    for shape in ((B, T, H), (B, T, H, K)):
        g = torch.nn.functional.logsigmoid(normal(*shape))
        both(remembered(*qkv, g), papers.gla(*qkv, g))


def test_hgrn2(qkv):
    q, f, i = qkv[0], torch.sigmoid(qkv[1]), qkv[2]
    both(remembered(q, 1 - f, i, f.log()), papers.hgrn2(q, f, i))


@pytest.mark.parametrize("shape", [(H, K), (B, T, H, K)], ids=["RWKV-5", "RWKV-6"])
def test_rwkv(qkv, shape):
    w, u = -normal(*shape).exp(), normal(H, K)
    both(remembered(*qkv, w, bonus=u), papers.rwkv56(*qkv, w, u))


def test_mamba2():
    x, dt, A = normal(B, T, H, V), torch.rand(B, T, H).double(), -normal(H).exp()
    k, q = normal(B, T, 2, K), normal(B, T, 2, K)
    both(remembered(q, k, x * dt.unsqueeze(-1), dt * A), papers.mamba2_ssd(x, dt, A, k, q))


def test_lightning_attention_of_transformers():
    from transformers import MiniMaxConfig
    from transformers.models.minimax.modeling_minimax import MiniMaxLightningAttention

    heads, width, block = 4, 8, 16
    config = MiniMaxConfig(
        hidden_size=heads * width, num_attention_heads=heads, head_dim=width, num_hidden_layers=3, block_size=block,
        layer_types=["linear_attention"] * 3,
    )  # fmt: skip
    layer = MiniMaxLightningAttention(config, 1).eval()
    x = torch.randn(2, 50, heads * width)
    with torch.no_grad():
        theirs, memory = layer(x, (None, None), None)
        q, k, v = layer.act_fn(layer.qkv_proj(x)).unflatten(-1, (heads, 3 * width)).split(width, -1)
        y, state = remembered(q, k, v, lightning_decays(heads, 1, 3))
        ours = layer.out_proj(torch.sigmoid(layer.output_gate(x)) * layer.norm(y.flatten(2)))
    assert_close("y", ours, theirs, 1e-5)
    assert_close("state", state, memory, 1e-5)


def test_decays_of_each_name():
    assert_close("retention", retention_decays(8), papers.retnet_decay(8), 1e-7)
    assert retention_decays(2).exp().tolist() == pytest.approx([1 - 1 / 32, 1 - 1 / 64], abs=1e-7)
    for layer in range(3):
        assert_close("lightning", lightning_decays(8, layer, 3), papers.lightning_decay(8, layer, 3), 1e-7)
    assert lightning_decays(4, 0, 2).tolist() == pytest.approx([-1 / 4, -1 / 16, -1 / 64, -1 / 256], rel=2e-5)
    assert linear_lightning_decays(4, 0, 2).tolist() == [0.0, -2.0, -4.0, -6.0]
    assert linear_lightning_decays(4, 1, 2).tolist() == [0.0, -1.0, -2.0, -3.0]


def gates(T=63, H=4, **sizes):
    return list(mlstm.example(T=T, H=H, **sizes).values())


@pytest.mark.parametrize("sizes", [s for s in mlstm.EXAMPLES if s.get("B") != 0], ids=str)
def test_mlstm_is_its_definition(sizes):
    def definition(*x):
        return mlstm.reference(*x, scale=0.4)

    check(lambda *x: mlstm.mlstm(*x, scale=0.4, chunk=16), definition, gates(**sizes), tolerance={torch.bfloat16: 6e-2})


def test_mlstm_with_its_state_is_the_stabilised_recurrence():
    q, k, v, i, f = gates(T=37)
    wanted, (C, n, m) = papers.mlstm(q, k, v, i, f)
    for cuts in [[slice(0, 37)], *pieces(37)]:
        state = {}
        parts = [mlstm.mlstm(*(x[:, c] for x in (q, k, v, i, f)), state=state, chunk=8) for c in cuts]
        assert_close("y", torch.cat(parts, 1), wanted)
        for name, theirs in (("memory", C), ("normaliser", n), ("maximum", m)):
            assert_close(name, state[name], theirs)


@pytest.mark.parametrize("shift", [-200.0, 0.0, 200.0])
def test_mlstm_with_gates_that_overflow(shift):
    q, k, v, i, f = (x.float() for x in gates(T=50))
    leaves = [x.requires_grad_() for x in (q, k, v, 30 * i + shift, 10 * f)]
    y = mlstm.mlstm(*leaves, chunk=16)
    wanted, _ = papers.mlstm(*leaves)
    assert_close("y", y, wanted, 1e-4)
    for grad in torch.autograd.grad(y.sum(), leaves):
        assert grad.isfinite().all()


def test_mlstm_with_gates_that_forget_everything():
    q, k, v, i, f = gates(T=50)
    f[:, [7, 20, 21]], f[:, 30] = -torch.inf, -1e30
    leaves = [x.requires_grad_() for x in (q, k, v, i, f)]
    y, wanted = mlstm.mlstm(*leaves, chunk=16), mlstm.reference(*leaves)
    assert_close("y", y, wanted)
    for a, b in zip(*(torch.autograd.grad(x.sin().sum(), leaves) for x in (y, wanted)), strict=True):
        assert_close("gradient", a, b)


def test_mlstm_sums_may_be_larger_than_float16_holds():
    q, k, v, i, f = (x.half() for x in gates(T=257, K=64))
    q, k, v, f = 8 * q.abs(), 8 * k.abs(), 8 * v.abs(), f + 10
    wanted = mlstm.reference(q, k, v, i, f)
    assert_close("y", mlstm.mlstm(q, k, v, i, f), wanted, 2e-3)


@pytest.mark.parametrize(("i", "f"), [(0.0, 30.0), (0.0, -69.0), (-69.0, 30.0), (0.0, -torch.inf)])
def test_mlstm_over_long_sequences(i, f):
    """Forget gates of 1, 1e-30 and 0, and input gates of 1 and 1e-30."""
    T = 65_536
    q, k, v = torch.rand(1, T, 1, 2), torch.rand(1, T, 1, 2), torch.rand(1, T, 1, 2)
    leaves = [x.requires_grad_() for x in (q, k, v, torch.full((1, T, 1), i), torch.full((1, T, 1), f))]
    y = mlstm.mlstm(*leaves)
    keep, write = torch.sigmoid(torch.tensor(f).double()), torch.tensor(i).double().exp()
    written = torch.einsum("bthk,bthv->bthkv", k.double(), torch.cat((v, torch.ones_like(v[..., :1])), -1).double())
    seen = write * (written.cumsum(1) if f == 30.0 else written)
    read = torch.einsum("bthk,bthkv->bthv", q.double(), seen)
    wanted = read[..., :-1] / read[..., -1:].clamp(min=1.0)
    assert keep > 1 - 1e-12 or keep < 1e-29
    assert_close("y", y, wanted, 1e-4)
    assert all(g.isfinite().all() for g in torch.autograd.grad(y.sum(), leaves))


def test_mlstm_of_no_token_and_of_any_number():
    q, k, v, i, f = gates(T=20)
    state = {}
    mlstm.mlstm(q, k, v, i, f, state)
    before = dict(state)
    assert mlstm.mlstm(*(x[:, :0] for x in (q, k, v, i, f)), state).shape == (2, 0, 4, 5)
    for name, x in before.items():
        assert torch.equal(state[name], x)

    class Module(torch.nn.Module):
        def forward(self, *x):
            return mlstm.mlstm(*x)

    T = torch.export.Dim("T", min=2, max=4096)
    given = [x.float() for x in gates(T=100)]
    exported = torch.export.export(Module(), tuple(given), dynamic_shapes=(({1: T},) * 5,)).module()
    given = [x.float() for x in gates(T=71)]
    assert_close("y", exported(*given), mlstm.mlstm(*given), 1e-5)


def test_mlstm_of_transformers():
    xlstm = pytest.importorskip("transformers.models.xlstm.modeling_xlstm")
    q, k, v, i, f = gates(T=64)
    moved = [x.transpose(1, 2) for x in (q, k, v)]
    theirs, (C, n, _) = xlstm.mlstm_recurrent_sequence_native(
        *moved, i.mT, f.mT, return_last_states=True, dtype_state=torch.float64, eps=1e-6
    )
    state = {}
    y = mlstm.mlstm(q, k, v, i, f, state=state, scale=K**-0.5, eps=1e-6, chunk=16)
    assert_close("y", y, theirs.transpose(1, 2), 1e-8)
    assert_close("normaliser", state["normaliser"], n, 1e-8)
    assert_close("memory", state["memory"], C, 1e-8)


def test_mlstm_says_what_is_wrong():
    q, k, v, i, f = gates()
    with pytest.raises(ValueError, match=r"mlstm: forget_gate has shape \(2, 63, 3\), expected \(B T H\) with"):
        mlstm.mlstm(q, k, v, i, f[..., :3])
    with pytest.raises(ValueError, match="mlstm: v has 4 heads, expected a multiple of the 3 of q"):
        mlstm.mlstm(q[:, :, :3], k[:, :, :3], v, i, f)


def test_feature_maps_are_their_definitions():
    x = normal(2, 3, 6)
    w = normal(10, 6)
    assert_close("elu_plus_one", feature_maps.elu_plus_one(x), papers.phi_elu(x))
    assert_close("relu", feature_maps.relu(x), x.clamp(min=0))
    assert_close("squared", feature_maps.squared(x), papers.phi_quadratic(x))
    assert_close("taylor", feature_maps.taylor(x), papers.phi_taylor(x, 6**-0.5))
    assert_close("taylor", feature_maps.taylor(x, 0.3), papers.phi_taylor(x, 0.3))
    assert_close("dpfp", feature_maps.dpfp(x, 3), papers.phi_dpfp(x, 3))
    assert_close("positive_random", feature_maps.positive_random(x, w), papers.phi_positive_random(x, w))
    positive, negative = x.exp(), (-x).exp()
    sides = torch.cat((positive, negative), -1)
    assert_close("hedgehog", feature_maps.hedgehog(x), sides / sides.sum(-1, keepdim=True))


def test_feature_maps_are_kernels():
    q, k = normal(50, 4), normal(50, 4)
    s = (q * k).sum(-1)
    products = {
        "squared": (feature_maps.squared, s**2),
        "taylor": (feature_maps.taylor, 1 + s / 2 + (s / 2) ** 2 / 2),
    }
    for name, (phi, wanted) in products.items():
        assert_close(name, (phi(q) * phi(k)).sum(-1), wanted)
    w = normal(200_000, 4)
    q, k = q[:5] / 4, k[:5] / 4
    product = (feature_maps.positive_random(q, w) * feature_maps.positive_random(k, w)).sum(-1)
    assert_close("positive_random", product, (q * k).sum(-1).exp(), 0.05)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_feature_maps_keep_the_type(dtype):
    x = torch.randn(3, 6).to(dtype)
    maps = ("elu_plus_one", "relu", "squared", "taylor", "hedgehog", "dpfp")
    assert {getattr(feature_maps, name)(x).dtype for name in maps} == {dtype}
    assert feature_maps.positive_random(x, torch.randn(4, 6)).dtype == dtype
