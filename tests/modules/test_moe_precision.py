"""Routing keeps float32 where a model is cast, by whatever means, and the correction bias keeps all of its values."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import archspec
from archspec.kernels.collect import collect
from archspec.language.resolve import make
from archspec.modules import submodule

CASTS: dict[str, Callable[[Any], Any]] = {
    "bfloat16": lambda m: m.bfloat16(),
    "half": lambda m: m.half(),
    "to": lambda m: m.to(torch.bfloat16),
    "to and device": lambda m: m.to("cpu", torch.float16),
    "there and back": lambda m: m.bfloat16().float(),
    "double": lambda m: m.double(),
    "through meta": lambda m: m.bfloat16().to("meta").to_empty(device="cpu"),
}


def layer(**fields: Any) -> Any:
    common = {"kind": "moe", "n_experts": 2, "top_k": 1, "d_ff": 4}
    torch.manual_seed(0)
    return submodule(make("ffn", common | fields, d_model=2, max_seq_len=8))


def chosen(m: Any, x: Tensor) -> list[int]:
    """How many tokens each expert gets."""
    aux: dict[str, Tensor] = {}
    m(x, aux=collect(aux))
    return aux["load"].tolist()


@pytest.mark.parametrize("cast", [lambda m: m.bfloat16(), lambda m: m.to(torch.bfloat16)])
def test_logits_that_differ_by_a_512th_are_not_equal(cast: Callable[[Any], Any]) -> None:
    """In bfloat16 both experts have the logit 1, and the first is chosen."""
    x = torch.tensor([[[1.0, 1 / 512]]]).bfloat16()
    for dtype, wanted in (("float32", [0, 1]), ("model", [1, 0])):
        m = layer(router_dtype=dtype)
        with torch.no_grad():
            m.router.weight.copy_(torch.tensor([[1.0, 0.0], [1.0, 1.0]]))
        assert chosen(cast(m), x) == wanted


def test_autocast_does_not_round_logits() -> None:
    x = torch.tensor([[[1.0, 1 / 512]]])
    for dtype, wanted in (("float32", [0, 1]), ("model", [1, 0])):
        m = layer(router_dtype=dtype)
        with torch.no_grad():
            m.router.weight.copy_(torch.tensor([[1.0, 0.0], [1.0, 1.0]]))
        with torch.autocast("cpu", torch.bfloat16):
            assert chosen(m, x) == wanted


BIASED = {"kind": "moe", "n_experts": 256, "top_k": 2, "d_ff": 4, "score": "sigmoid", "correction_bias": True,
          "bias_update_rate": 0.0001}  # fmt: skip


def biased(form: str) -> tuple[Any, Any]:
    """A model with 256 experts, and its router."""
    sizes = {"d_model": 8, "vocab_size": 11, "max_seq_len": 16, "head": {"kind": "lm"}}
    spec = archspec.load({**sizes, "blocks": [{"mixer": {"kind": "attention", "n_heads": 2}, "ffn": BIASED}]})
    namespace: dict[str, Any] = {}
    exec(archspec.generate(spec, standalone=form == "plain"), namespace)
    m = namespace["Model"]()
    return m, m.blocks[0].ffn


@pytest.mark.parametrize("form", ["package", "plain"])
@pytest.mark.parametrize("cast", CASTS)
def test_casts_leave_the_correction_bias(cast: str, form: str) -> None:
    m, router = biased(form)
    values = 0.5 + 1e-4 * torch.arange(256)
    assert len(values.bfloat16().unique()) < 16
    key = "blocks.0.ffn.correction_bias"
    m.load_state_dict(m.state_dict() | {key: values})
    if cast == "through meta":
        state = m.state_dict()
        m = CASTS[cast](m)
        m.load_state_dict(state)
    else:
        m = CASTS[cast](m)
    assert m.state_dict()[key].dtype == torch.float32
    assert torch.equal(m.state_dict()[key], values)
    assert dict(m.named_buffers())[key] is router.correction_bias
    aux: dict[str, Tensor] = {}
    m(torch.randint(11, (2, 5)), aux=aux)
    m.update_bias(aux)
    moved = router.correction_bias - values
    torch.testing.assert_close(moved.abs(), torch.full((256,), 1e-4), rtol=1e-3, atol=0)
    assert router.router.weight.dtype == {"there and back": torch.float32, "double": torch.float64}.get(
        cast, torch.float16 if cast in ("half", "to and device") else torch.bfloat16
    )


def test_losses_of_a_cast_model_are_float32() -> None:
    m = layer(balance_loss=0.1, z_loss=0.1, n_experts=4, top_k=2).bfloat16()
    aux: dict[str, Tensor] = {}
    m(torch.randn(2, 5, 2).bfloat16(), aux=collect(aux))
    assert {name: value.dtype for name, value in aux.items()} == {
        "load": torch.int64,
        "balance_fraction": torch.float32,
        "balance_weight": torch.float32,
        "z_loss": torch.float32,
    }


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("mixtral_8x7b", "model"), ("qwen1_5_moe_a2_7b", "model"), ("jamba_v0_1", "model"),
     ("deepseek_v2_lite", "float32"), ("deepseek_v3", "float32"), ("switch_base_8", "float32")],
)  # fmt: skip
def test_published_models_route_in_the_type_of_transformers(name: str, dtype: str) -> None:
    """A router of transformers gives logits in its own type, or in float32 where it widens what it multiplies."""
    spec = archspec.load(f"specs/{name}.yaml")
    found = {getattr(p, "router_dtype", None) for stack in spec.stacks for p in stack.parts} - {None}
    assert found == {dtype}
    router, d_model = THEIRS[name]()
    for p in router.parameters():
        nn.init.normal_(p)
    if name == "switch_base_8":
        logits = router.bfloat16()(torch.randn(1, 3, d_model).bfloat16())[2]
    else:
        logits = router.bfloat16()(torch.randn(3, d_model).bfloat16())[0]
    assert logits.dtype == (torch.bfloat16 if dtype == "model" else torch.float32)


def theirs(module: str, router: str, config: str, **sizes: Any) -> Callable[[], tuple[nn.Module, int]]:
    """A small router of transformers, made when it is asked for, and its width."""

    def made() -> tuple[nn.Module, int]:
        import transformers

        code = __import__(f"transformers.models.{module}.modeling_{module}", fromlist=[router])
        return getattr(code, router)(getattr(transformers, config)(**sizes)), 8

    return made


SMALL = {"hidden_size": 8, "num_experts_per_tok": 2}
LATENT = SMALL | {"n_routed_experts": 8, "num_attention_heads": 2, "n_group": 1, "topk_group": 1}
THEIRS = {
    "mixtral_8x7b": theirs("mixtral", "MixtralTopKRouter", "MixtralConfig", num_local_experts=4, **SMALL),
    "qwen1_5_moe_a2_7b": theirs("qwen2_moe", "Qwen2MoeTopKRouter", "Qwen2MoeConfig", num_experts=4, **SMALL),
    "jamba_v0_1": theirs("jamba", "JambaTopKRouter", "JambaConfig", num_experts=4, **SMALL),
    "deepseek_v2_lite": theirs("deepseek_v2", "DeepseekV2TopkRouter", "DeepseekV2Config", **LATENT),
    "deepseek_v3": theirs("deepseek_v3", "DeepseekV3TopkRouter", "DeepseekV3Config", **LATENT),
    "switch_base_8": theirs(
        "switch_transformers", "SwitchTransformersTop1Router", "SwitchTransformersConfig", d_model=8, num_experts=4
    ),
}
