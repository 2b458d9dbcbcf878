import pytest
import torch
from torch import nn
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.nemotron.modeling_nemotron import NemotronLayerNorm1P

from archspec.errors import SpecError
from archspec.language.resolve import make
from archspec.layers.base import NormComponent
from archspec.layers.registry import find, kinds
from archspec.modules import submodule

ROW = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])


def norm(kind: str, dim: int = 16, **fields: object) -> tuple[NormComponent, nn.Module]:
    c = make("norm", {"kind": kind, **fields})
    assert isinstance(c, NormComponent)
    module = submodule(c, dim)
    for p in module.parameters():
        nn.init.uniform_(p, -1, 1)
    return c, module


@pytest.mark.parametrize(
    ("kind", "off", "wanted"),
    [
        ("layernorm", {"affine": False}, [-1.414, -0.707, 0.0, 0.707, 1.414]),
        ("rmsnorm", {"weight": False}, [0.301, 0.603, 0.904, 1.206, 1.507]),
    ],
)
def test_check_values(kind, off, wanted):
    y = norm(kind, 5, **off)[1](ROW)
    torch.testing.assert_close(y, torch.tensor(wanted), atol=6e-4, rtol=0)


@pytest.mark.parametrize(("kind", "off"), [("layernorm", {"affine": False}), ("rmsnorm", {"weight": False})])
def test_a_fresh_norm_only_normalises(kind, off):
    for fields in find("norm", kind).examples:
        plain = {"eps": fields.get("eps", find("norm", kind).model_fields["eps"].default)}
        x = torch.randn(3, 16)
        fresh = submodule(make("norm", {"kind": kind, **fields}), 16)
        assert torch.equal(fresh(x), norm(kind, **plain, **off)[1](x))


@pytest.mark.parametrize("kind", kinds("norm"))
def test_parameters_are_those_of_the_op(kind):
    for fields in find("norm", kind).examples:
        with torch.device("meta"):
            c, module = norm(kind, 12, **fields)
        op = c.op("n", 12)
        assert [(p.name, p.shape) for p in op.params] == [
            (f"n.{n}", tuple(p.shape)) for n, p in module.named_parameters()
        ]
        assert (op.dim, op.kind, op.shape) == (12, kind, ("B", "T", 12))


@pytest.mark.parametrize("bias", [True, False])
def test_layernorm_is_torchs(bias):
    _, ours = norm("layernorm", bias=bias, eps=1e-3)
    theirs = nn.LayerNorm(16, eps=1e-3, bias=bias)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 3, 16)
    assert torch.equal(ours(x), theirs(x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("kind", "fields", "theirs"),
    [
        ("rmsnorm", {"eps": 1e-3}, LlamaRMSNorm(16, eps=1e-3)),
        ("rmsnorm", {"eps": 1e-3, "one_plus": True}, GemmaRMSNorm(16, eps=1e-3)),
        ("layernorm", {"eps": 1e-3, "one_plus": True}, NemotronLayerNorm1P(16, eps=1e-3)),
    ],
    ids=["llama", "gemma", "nemotron"],
)
def test_norms_of_published_models(kind, fields, theirs, dtype):
    ours = norm(kind, **fields)[1].to(dtype)
    theirs = theirs.to(dtype)
    theirs.load_state_dict(ours.state_dict())
    x = (3 * torch.randn(2, 3, 16)).to(dtype)
    torch.testing.assert_close(ours(x), theirs(x))


def test_settings_without_effect_are_refused():
    with pytest.raises(SpecError, match="one_plus has no effect when weight is false"):
        make("norm", {"kind": "rmsnorm", "weight": False, "one_plus": True})
    with pytest.raises(SpecError, match="bias has no effect when affine is false; remove it, or set affine to true"):
        make("norm", {"kind": "layernorm", "affine": False, "bias": False})


def test_float64_gradients():
    for kind, fields in (
        ("layernorm", {}),
        ("layernorm", {"one_plus": True}),
        ("rmsnorm", {}),
        ("rmsnorm", {"one_plus": True}),
    ):
        module = norm(kind, 4, **fields)[1].double()
        x = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(module, (x,))
