import math
from importlib import import_module

import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2Model, T5Config, T5ForConditionalGeneration

from archspec import init_weights, load, loads
from archspec.codegen import generate
from archspec.language.resolve import make
from archspec.layers.recurrent import RecurrentMixer
from archspec.layers.registry import find, kinds
from archspec.layers.starting import InitNames
from archspec.modules import submodule
from archspec.modules.model import eager

SIZES = {
    "d_model": 64,
    "n_layers": 8,
    "n_branches": 16,
    "vocab_size": 400,
    "max_seq_len": 100,
    "n_heads": 4,
    "head_dim": 16,
}


NAMES = InitNames(
    residual="o_proj",
    queries="q_proj",
    head_dims=(("", 16),),
    output="head.proj",
    biases="position.table",
    stacked=("experts.gate_proj", "experts.up_proj", "experts.down_proj"),
    stacked_residual="experts.down_proj",
)


class Layer(nn.Module):
    """Everything that an init meets: projections, a norm, a convolution of its own, stacked experts."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = submodule(make("norm", "rmsnorm"), 64)
        self.position = submodule(
            make("position", {"kind": "t5", "n_buckets": 256, "max_distance": 300}, **(SIZES | {"n_heads": 64}))
        )
        self.q_proj, self.k_proj = nn.Linear(64, 128), nn.Linear(64, 128)
        self.o_proj = nn.Linear(128, 64)
        self.experts = nn.ParameterDict(
            {name: nn.Parameter(torch.full((3, *shape), math.nan))
             for name, shape in (("gate_proj", (128, 64)), ("up_proj", (128, 64)), ("down_proj", (64, 128)))}
        )  # fmt: skip
        self.decay = nn.Parameter(torch.empty(5))

    def reset_parameters(self) -> None:
        """What no init may overwrite."""
        nn.init.constant_(self.decay, 7.0)


class Model(nn.Module):
    """An embedding, one layer and a head."""

    def __init__(self, tied: bool) -> None:
        super().__init__()
        self.embedding = submodule(make("embedding", {"kind": "token", "position": "learned"}, **SIZES))
        self.layer = Layer()
        self.head = submodule(make("head", {"kind": "lm", "tied": tied, "bias": True}, d_embedding=64, **SIZES))
        if tied:
            self.head.proj.weight = self.embedding.token.weight


def started(kind: str, tied: bool = False, **fields: object) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    model = Model(tied)
    for p in model.parameters():
        nn.init.constant_(p, math.nan)
    c = make("init", {"kind": kind, **fields}, **SIZES).of_model(NAMES)
    import_module(f"archspec.modules.inits.{kind}").init_weights(model, c)
    return {name: p.detach() for name, p in model.named_parameters()}


def close(tensor: torch.Tensor, std: float) -> bool:
    """Whether mean and standard deviation are within five standard errors of 0 and std."""
    error = 5 * std / math.sqrt(tensor.numel())
    return abs(tensor.mean().item()) < error and abs(tensor.std().item() - std) < error


@pytest.mark.parametrize(("kind", "fields"), [(k, f) for k in kinds("init") for f in find("init", k).examples])
@pytest.mark.parametrize("tied", [False, True])
def test_everything_starts(kind, fields, tied):
    p = started(kind, tied, **fields)
    assert all(t.isfinite().all() for t in p.values() if t.dtype.is_floating_point) or kind == "pytorch"
    assert torch.equal(p["layer.norm.weight"], torch.ones(64))
    assert torch.equal(p["layer.decay"], torch.full((5,), 7.0))
    assert p["embedding.token.weight"].std() > 0
    if kind != "pytorch":
        assert not any(t.any() for name, t in p.items() if name.endswith("bias"))


def test_normal():
    p = started("normal", std=0.1)
    for name in ("layer.q_proj", "layer.o_proj", "head.proj", "embedding.token", "embedding.position.table"):
        assert close(p[f"{name}.weight"], 0.1), name
    for name in ("gate_proj", "up_proj", "down_proj"):
        assert close(p[f"layer.experts.{name}"], 0.1), name


def test_normal_by_depth_as_gpt2():
    p = started("normal", residual_scale="depth", std=0.1, embedding_std=0.5)
    assert close(p["layer.o_proj.weight"], 0.1 / 4)
    assert close(p["layer.experts.down_proj"], 0.1 / 4)
    assert close(p["layer.q_proj.weight"], 0.1)
    assert close(p["layer.experts.up_proj"], 0.1)
    assert close(p["embedding.token.weight"], 0.5)
    theirs = GPT2Model(
        GPT2Config(vocab_size=400, n_positions=100, n_embd=64, n_layer=8, n_head=4, initializer_range=0.1)
    )
    assert close(theirs.h[0].attn.c_proj.weight.detach(), 0.1 / 4)


def test_truncated():
    p = started("normal", truncated=True, std=0.1)
    weight = p["layer.q_proj.weight"]
    assert weight.abs().max() <= 0.2
    assert close(weight, 0.1 * 0.8796)  # the standard deviation of a normal truncated at two of its own


def test_a_tied_head_starts_as_its_table():
    assert close(started("t5", tied=True, head_dim=16)["embedding.token.weight"], 1.0)
    assert close(started("normal", tied=True, embedding_std=0.5)["embedding.token.weight"], 0.5)


def test_xavier():
    p, gain = started("xavier", gain=2.0), 2.0
    bound = gain * math.sqrt(6 / (64 + 128))
    for weight in (p["layer.q_proj.weight"], *p["layer.experts.up_proj"]):
        assert 0.98 * bound < weight.abs().max() <= bound
        assert close(weight, bound / math.sqrt(3))
    assert close(p["embedding.token.weight"], 1 / 8)
    normal = started("xavier", distribution="normal")["layer.q_proj.weight"]
    assert close(normal, math.sqrt(2 / (64 + 128)))
    assert normal.abs().max() > math.sqrt(6 / (64 + 128))


@pytest.mark.parametrize("factor", [1.0, 0.5])
def test_t5_is_hugging_faces(factor):
    p = started("t5", head_dim=16, factor=factor)
    config = T5Config(
        vocab_size=400, d_model=64, d_kv=16, d_ff=128, num_heads=8, num_layers=1, initializer_factor=factor,
        relative_attention_num_buckets=256, feed_forward_proj="gated-gelu",
    )  # fmt: skip
    config.tie_word_embeddings = False  # the config's own constructor ignores it
    theirs = dict(T5ForConditionalGeneration(config).named_parameters())
    block = "encoder.block.0.layer"
    pairs = {
        "embedding.token.weight": ("shared.weight", factor),
        "layer.q_proj.weight": (f"{block}.0.SelfAttention.q.weight", factor * (64 * 16) ** -0.5),
        "layer.k_proj.weight": (f"{block}.0.SelfAttention.k.weight", factor * 64**-0.5),
        "layer.o_proj.weight": (f"{block}.0.SelfAttention.o.weight", factor * 128**-0.5),
        "layer.position.table.weight": (f"{block}.0.SelfAttention.relative_attention_bias.weight", factor * 64**-0.5),
        "layer.experts.gate_proj": (f"{block}.1.DenseReluDense.wi_0.weight", factor * 64**-0.5),
        "layer.experts.down_proj": (f"{block}.1.DenseReluDense.wo.weight", factor * 128**-0.5),
        "head.proj.weight": ("lm_head.weight", factor),
    }
    for ours, (name, std) in pairs.items():
        assert close(p[ours], std), ours
        assert close(theirs[name].detach(), std), name


def test_fan_in():
    p = started("fan_in", scale=0.1, embedding_std=0.5)
    for name, fan_in in (("layer.q_proj.weight", 64), ("layer.o_proj.weight", 128), ("layer.experts.down_proj", 128)):
        std = math.sqrt(0.1 / fan_in)
        assert close(p[name], 0.8796 * std)
        assert p[name].abs().max() <= 2 * std + 1e-7
    assert close(p["embedding.token.weight"], 0.5)
    assert close(started("fan_in", truncated=False)["layer.q_proj.weight"], 1 / 8)


def test_pytorch():
    p = started("pytorch")
    for name, bound in (("layer.q_proj", 1 / 8), ("layer.o_proj", 128**-0.5)):
        for tensor in (p[f"{name}.weight"], p[f"{name}.bias"]):
            assert 0.9 * bound < tensor.abs().max() <= bound
    assert close(p["embedding.token.weight"], 1.0)


def test_pytorch_as_mamba_changes_it():
    p = started("pytorch", embedding_std=0.02, residual_scale="depth", zero_bias=True)
    assert not p["layer.q_proj.bias"].any()
    assert close(p["embedding.token.weight"], 0.02)
    bound = 128**-0.5 / 4  # 16 residual branches
    assert 0.9 * bound < p["layer.o_proj.weight"].abs().max() <= bound


@pytest.mark.parametrize("kind", ["pytorch", "normal"])
def test_experts_that_end_a_branch_start_smaller_by_depth(kind):
    torch.manual_seed(0)
    moe = {"kind": "moe", "n_experts": 4, "top_k": 2, "d_ff": 64, "n_shared": 1}
    block = {"repeat": 8, "mixer": {"kind": "attention", "n_heads": 2}, "ffn": moe}
    sizes = {"d_model": 64, "vocab_size": 11, "max_seq_len": 8, "head": {"kind": "lm"}}
    model = eager(load({**sizes, "blocks": [block], "init": {"kind": kind, "residual_scale": "depth"}}))
    usual = 64**-0.5 / 3**0.5 if kind == "pytorch" else 0.02
    p = dict(model.named_parameters())
    for name in ("mixer.o_proj.weight", "ffn.experts.down_proj", "ffn.shared_down_proj.weight"):
        assert close(p[f"blocks.3.{name}"].detach(), usual / 4), name  # 16 branches
    for name in ("mixer.q_proj.weight", "ffn.experts.up_proj", "ffn.router.weight"):
        assert close(p[f"blocks.3.{name}"].detach(), usual), name


def test_patches_start_as_linear_layers():
    embedding = submodule(make("embedding", {"kind": "patch", "image_size": 32, "patch_size": 8}, **SIZES))
    for kind, std in (("normal", 0.02), ("fan_in", 0.8796 * (3 * 64) ** -0.5)):
        import_module(f"archspec.modules.inits.{kind}").init_weights(embedding, make("init", kind, **SIZES))
        assert close(embedding.project.weight.detach(), std)
        assert not embedding.project.bias.any()


@pytest.mark.parametrize("mixer", [k for k in kinds("mixer") if issubclass(find("mixer", k), RecurrentMixer)])
def test_recurrent_weights_follow_the_init(mixer):
    m = submodule(make("mixer", {"kind": mixer, "d_hidden": 32}, **SIZES))
    stds = {"normal": 0.02, "fan_in": 0.8796 / 8, "t5": 1 / 8, "xavier": math.nan}
    for kind, std in stds.items():
        import_module(f"archspec.modules.inits.{kind}").init_weights(
            m, make("init", kind, **SIZES).of_model(InitNames(cells=mixer))
        )
        p = {name.rpartition(".")[2]: t.detach() for name, t in m.named_parameters()}
        std = math.sqrt(2 / (64 + p["weight_ih_l0"].shape[0])) if kind == "xavier" else std
        assert close(p["weight_ih_l0"], std), kind
        assert not p["bias_ih_l0"].any()
        assert not p["bias_hh_l0"].any()


def test_uniform_as_the_lstm_language_model():
    m = submodule(make("mixer", {"kind": "lstm"}, **SIZES))
    c = make("init", {"kind": "normal", "std": "0.04 / sqrt(3)", "distribution": "uniform"}, **SIZES)
    import_module("archspec.modules.inits.normal").init_weights(m, c.of_model(InitNames(cells="lstm")))
    for name in ("weight_ih_l0", "weight_hh_l0"):
        assert 0.0399 < m.lstm[name].abs().max() <= 0.0400001
        assert close(m.lstm[name].detach(), 0.04 / math.sqrt(3))


def test_generated_init_mentions_only_what_the_model_has():
    text = (
        "name: m\nd_model: 16\nvocab_size: 11\nmax_seq_len: 8\nblocks: [{{mixer: {}, ffn: {}}}]\nhead: {{kind: lm}}\n"
    )
    mlp, attention = "{kind: mlp, d_ff: 8}", "{kind: attention, n_heads: 2}"
    moe = "{kind: moe, n_experts: 4, top_k: 2, d_ff: 8}"
    for mixer, ffn in ((attention, mlp), (attention, moe), ("lstm", mlp)):
        source = generate(loads(text.format(mixer, ffn)))
        start = source[source.index("def init_weights") :]
        assert ("experts.down_proj" in start) == (ffn == moe)
        assert (".lstm" in start) == (mixer == "lstm")


MLP = {"kind": "mlp", "d_ff": 64}


def two_stacks(first: str, heads: tuple[int, int] = (32, 16), **init: object) -> dict[str, torch.Tensor]:
    """The weights of two stacks of other widths, heads and depths, joined by cross-attention."""
    bias = {"kind": "t5", "n_buckets": 256, "max_distance": 300, "bidirectional": True}
    mixers = [{"kind": "attention", "n_heads": 64, "head_dim": dim, "scale": 1.0, "position": bias} for dim in heads]
    mixers[1]["position"] = {**bias, "bidirectional": False}
    cross = {**mixers[1], "position": None}
    wide = {"mask": "bidirectional", "d_model": 96, "blocks": [{"repeat": 8, "mixer": mixers[0], "ffn": MLP}]}
    narrow = {"memory": first, "d_model": 32, "blocks": [{"repeat": 3, "mixer": mixers[1], "cross": cross, "ffn": MLP}]}
    sizes = {"name": "two", "vocab_size": 400, "max_seq_len": 100, "head": {"kind": "lm"}}
    spec = load({**sizes, "stacks": {first: wide, "decoder": narrow}, "init": init})
    torch.manual_seed(0)
    scope: dict[str, object] = {}
    exec(compile(generate(spec), "two", "exec"), scope)
    model, read = scope["Model"](), eager(spec)  # type: ignore[operator]
    for m in (model, read):
        init_weights(m, seed=0)
    found = {name: p.detach() for name, p in model.named_parameters()}
    assert all(torch.equal(p, found[name]) for name, p in read.named_parameters())
    return found


@pytest.mark.parametrize("first", ["encoder", "text_embedding", "position_bias_", "mixer"])
def test_t5_knows_the_width_and_the_heads_of_each_stack(first):
    p = two_stacks(first, kind="t5")
    assert close(p[f"{first}.position_bias.table.weight"], 96**-0.5)
    assert close(p["decoder.position_bias.table.weight"], 32**-0.5)
    for stack, d_model, dim in ((first, 96, 32), ("decoder", 32, 16)):
        assert close(p[f"{stack}.blocks.1.mixer.q_proj.weight"], (d_model * dim) ** -0.5)
        assert close(p[f"{stack}.blocks.1.mixer.k_proj.weight"], d_model**-0.5)
        assert close(p[f"{stack}.embedding.token.weight"], 1.0)
    assert close(p["decoder.blocks.2.cross.q_proj.weight"], (32 * 16) ** -0.5)
    assert close(p["decoder.blocks.2.cross.k_proj.weight"], 96**-0.5)
    given = two_stacks(first, kind="t5", head_dim=64)
    assert close(given["decoder.blocks.1.mixer.q_proj.weight"], (32 * 64) ** -0.5)


def test_t5_knows_heads_that_differ_within_a_stack():
    mixers = [{"kind": "attention", "n_heads": 64, "head_dim": dim} for dim in (8, 32)]
    sizes = {"d_model": 64, "vocab_size": 11, "max_seq_len": 8, "head": {"kind": "lm"}, "init": {"kind": "t5"}}
    model = eager(load({**sizes, "blocks": [{"mixer": mixer, "ffn": MLP} for mixer in (*mixers, mixers[0])]}))
    for i, dim in enumerate((8, 32, 8)):
        assert close(model.get_parameter(f"blocks.{i}.mixer.q_proj.weight").detach(), (64 * dim) ** -0.5)


def test_t5_tells_its_biases_from_learned_positions():
    position = {"kind": "t5", "n_buckets": 256, "max_distance": 300, "shared": False}
    block = {"mixer": {"kind": "attention", "n_heads": 64, "position": position}, "ffn": MLP}
    embedding = {"kind": "token", "position": "learned"}
    sizes = {"d_model": 64, "vocab_size": 11, "max_seq_len": 100, "head": {"kind": "lm"}, "init": {"kind": "t5"}}
    p = dict(eager(load({**sizes, "embedding": embedding, "blocks": [block]})).named_parameters())
    assert close(p["embedding.position.table.weight"].detach(), 1.0)
    assert close(p["blocks.0.mixer.position.table.weight"].detach(), 64**-0.5)


@pytest.mark.parametrize("kind", ["normal", "pytorch"])
def test_each_stack_counts_its_own_branches(kind):
    p = two_stacks("encoder", kind=kind, residual_scale="depth")
    for stack, n in (("encoder", 16), ("decoder", 9)):
        weight = p[f"{stack}.blocks.1.ffn.down_proj.weight"]
        usual = 64**-0.5 / 3**0.5 if kind == "pytorch" else 0.02
        assert close(weight, usual * n**-0.5), stack


@pytest.mark.parametrize(
    ("kind", "std"), [("normal", 0.02), ("fan_in", 0.8796 * 96**-0.5), ("t5", 96**-0.5), ("xavier", (2 / 160) ** 0.5)]
)
def test_experts_start_as_linear_layers_under_every_init(kind, std):
    torch.manual_seed(0)
    moe = {"kind": "moe", "n_experts": 4, "top_k": 2, "d_ff": 96, "gated": False, "bias": True}
    sizes = {"d_model": 64, "vocab_size": 11, "max_seq_len": 8, "head": {"kind": "lm"}, "init": {"kind": kind}}
    model = eager(load({**sizes, "blocks": [{"mixer": {"kind": "attention", "n_heads": 2}, "ffn": moe}]}))
    p = {name: t.detach() for name, t in model.named_parameters()}
    assert close(p["blocks.0.ffn.experts.down_proj"], std)
    assert not p["blocks.0.ffn.experts.down_bias"].any()
