"""Calls of the families and of their plain forms: arguments, settings, and which of them run with the tokens."""

import importlib
from pathlib import Path

import torch
import torch.nn.functional as F
from kernel_checks import normal
from torch import Tensor

OTHERS = ("gpu", "cpu", "plain")
MODULES = {
    p.stem: p for p in (*Path("kernels").glob("*.py"), *Path("kernels").glob("*/*.py")) if p.parts[1] not in OTHERS
}


def public(family):
    return importlib.import_module("archspec." + ".".join(MODULES[family].with_suffix("").parts))


def plain(family):
    return importlib.import_module(f"archspec.kernels.plain.{family}")


class Case:
    """A function of a family, example arguments, and along which axis arguments and result run with the tokens."""

    def __init__(self, family, name=None, *, given=None, along=None, sizes=None, result=1, **settings):
        self.family, self.name = family, name or family
        self.given, self.along, self.result, self.settings = given, along or {}, result, settings
        self.sizes = sizes

    def __repr__(self):
        return " ".join([self.name, *(f"{k}={v}" for k, v in self.settings.items())])

    def every_size(self):
        """The examples of the family, with the lengths that no chunk divides among them."""
        sizes = [*(getattr(public(self.family), "EXAMPLES", ()) if self.sizes is None else self.sizes)]
        if self.along and self.sizes is None:
            sizes += [{"T": T} for T in (1, 63, 100) if {"T": T} not in sizes]
        return sizes

    def arguments(self, sizes):
        return (self.given or public(self.family).example)(**sizes)

    def run(self, module, given, cuts=None):
        """Outputs, last state and gradients of both, in pieces with a state where there are cuts."""
        function = getattr(module, self.name)
        fixed = ("cos", "sin")  # tables, which are not trained
        leaves = {k: v.detach().clone().requires_grad_(k not in fixed) if trained(v) else v for k, v in given.items()}
        state, parts = {}, []
        for now in cuts or [None]:
            piece = {
                k: v if now is None or k not in self.along else cut(v, self.along[k], now) for k, v in leaves.items()
            }
            parts.append(function(**piece, **self.settings, **({"state": state} if cuts else {})))
        found = parts if cuts else tensors(parts[0])
        outputs = [torch.cat(found, dim=self.result)] if cuts else found
        outputs += [state[k] for k in sorted(state) if isinstance(state[k], Tensor)]
        generator = torch.Generator().manual_seed(1)
        losses = [
            (y * torch.randn(y.shape, generator=generator).to(y.dtype)).sum().real for y in outputs if y.requires_grad
        ]
        wanted = [leaf for leaf in leaves.values() if isinstance(leaf, Tensor) and leaf.requires_grad]
        gradients = torch.autograd.grad(sum(losses), wanted, allow_unused=True, materialize_grads=True)
        return [y.detach() for y in outputs], list(gradients)


def trained(x):
    return isinstance(x, Tensor) and (x.is_floating_point() or x.is_complex())


def tensors(y):
    return [y] if isinstance(y, Tensor) else list(y)


def cut(x, axis, now):
    return x.narrow(axis, now.start, min(now.stop, x.shape[axis]) - now.start)


def tokens(names, axis=1):
    return dict.fromkeys(names.split(), axis)


def complex_scan(B=2, T=63, D=5):
    decay = torch.polar(torch.rand(B, T, D, dtype=torch.float64), normal(B, T, D))
    return {"decay": decay, "x": normal(B, T, D)}


def log_scan(B=2, T=63, D=5):
    log_decay = -normal(B, T, D).exp()
    return {
        "decay": None,
        "x": normal(B, T, D),
        "log_decay": log_decay.index_fill(1, torch.tensor([T // 2]), -torch.inf),
    }


def without_decay(**sizes):
    return {k: v for k, v in public("delta_rule").example(**sizes).items() if k != "decay"}


def other_read_key(**sizes):
    given = public("delta_rule").example(**sizes)
    return {**given, "read_key": F.normalize(torch.randn_like(given["k"]), dim=-1)}


def several_steps(B=2, T=9, n=3, G=1, H=2, K=4, V=3, channels=False):
    given = public("delta_rule").example(B, T * n, G, H, K, V, channels)
    steps = {k: given[k].unflatten(1, (T, n)) for k in ("k", "v", "beta")}
    return {**steps, "q": given["q"][:, ::n], "decay": given["decay"][:, ::n]}


def positive(**sizes):
    given = public("matrix_memory").example(**sizes)
    return {**given, "q": given["q"].exp(), "k": given["k"].exp()}


def per_token(**sizes):
    """Arguments of `matrix_memory` whose decay, where there is one, runs with the tokens."""
    return public("matrix_memory").example(**sizes)


PLAIN_DECAYS = [{"T": T, "decay": decay} for T in (1, 37) for decay in (0, 1, 2)]
DECAYS = [{"T": T, "decay": decay} for T in (1, 63, 100) for decay in (3, 4)]
SEQUENCES = [
    Case("selective_scan", along=tokens("x dt B C z")),
    Case("ssd", along=tokens("x dt B C")),
    Case("ssd", along=tokens("x dt B C"), chunk=16),
    Case("short_conv", along=tokens("x gate_in gate_out")),
    Case("short_conv", along=tokens("x gate_in gate_out"), activation="silu"),
    Case("long_conv", along=tokens("u pre_gate post_gate"), sizes=[{}, {"T": 1}, {"B": 1, "T": 100, "D": 3}]),
    Case("linear_scan", along=tokens("decay x")),
    Case("linear_scan", given=complex_scan, along=tokens("decay x"), sizes=[{}]),
    Case("linear_scan", given=log_scan, along=tokens("log_decay x"), sizes=[{}]),
    Case("wkv", along=tokens("k v")),
    Case("token_shift", along=tokens("x")),
    Case("matrix_memory", given=positive, along=tokens("q k v"), sizes=PLAIN_DECAYS, scale=0.5),
    Case("matrix_memory", given=per_token, along=tokens("q k v decay"), sizes=DECAYS),
    Case("matrix_memory", given=per_token, along=tokens("q k v decay"), sizes=[{**s, "bonus": 1} for s in DECAYS[1:4]]),
    Case("matrix_memory", given=positive, along=tokens("q k v decay"), sizes=DECAYS[2:4], normalise=True),
    Case("mlstm", along=tokens("q k v input_gate forget_gate"), scale=0.7, eps=1e-6),
    Case("delta_rule", along=tokens("q k v beta decay")),
    Case("delta_rule", given=without_decay, along=tokens("q k v beta"), sizes=[{"T": 37}], scale=0.3),
    Case("delta_rule", given=other_read_key, along=tokens("q k v beta decay read_key"), sizes=[{"T": 37}], chunk=16),
    Case("dplr", along=tokens("q k v a b decay"), scale=0.5),
    Case("slstm", along=tokens("x")),
    Case("delta_rule", "delta_product", given=several_steps, along=tokens("q k v beta decay"), sizes=[{}, {"T": 21}]),
    Case(
        "lsh",
        "lsh_attention",
        along={"qk": 2, "v": 2, "buckets": 3},
        sizes=[{}, {"T": 1}, {"B": 1, "T": 20, "R": 3}, {"B": 0, "T": 7}],
        result=2,
        chunk=8,
        look_back=1,
    ),
    Case("lsh", "lsh_attention", along={"qk": 2, "v": 2, "buckets": 3}, sizes=[{"T": 20}], result=2,
         chunk=4, look_back=1, causal=True, wrap=True, unit_keys=True),
]  # fmt: skip
LENGTH = {"lsh_attention": "v", "long_conv": "u", "matrix_memory": "v", "linear_scan": "x"}


def length(case, given):
    name = LENGTH.get(case.name, next(iter(case.along)))
    return given[name].shape[case.along[name]]


def heads(B=2, H=4, Hkv=2, T=9, S=9, D=8, Dv=8, **others):
    """Arguments of `attention`, with some of its tensors by name."""
    made = {"q": normal(B, H, T, D), "k": normal(B, Hkv, S, D), "v": normal(B, Hkv, S, Dv)}
    possible = {
        "bias": normal(1, H, T, S),
        "alibi": torch.rand(H, dtype=torch.float64),
        "sinks": normal(H),
        "key_mask": torch.arange(S).expand(B, S) >= torch.arange(B).unsqueeze(1),
        "documents": torch.arange(S).expand(B, S) // 4,
        "global_tokens": torch.arange(S).expand(B, S) % 5 == 1,
        "prefix_len": torch.arange(1, B + 1),
    }
    return made | {name: possible[name] for name in others}


LENGTHS = [{"T": 1, "S": 1}, {"T": 9, "S": 9}, {"T": 1, "S": 9}, {"T": 4, "S": 9, "Dv": 5}, {"T": 7, "S": 7, "Hkv": 1}]


def attends(*names, **settings):
    """`attention` at several lengths, with these tensors and settings."""
    return Case(
        "softmax", "attention", given=heads, sizes=[{**s, **dict.fromkeys(names, True)} for s in LENGTHS], **settings
    )


def slots(**sizes):
    given = public("experts").example(**sizes)
    return {k: v for k, v in given.items() if k != "w_gate"}


def slots_with_biases(E=8, d_model=24, d_ff=20, **sizes):
    return {**slots(E=E, d_model=d_model, d_ff=d_ff, **sizes), "b_up": normal(E, d_ff), "b_down": normal(E, d_model)}


def gated(B=2, T=5, D=12):
    return {"x": normal(B, T, D), "z": normal(B, T, D), "weight": normal(D)}


def added(**sizes):
    given = public("norm").example(**sizes)
    return {**given, "residual": torch.randn_like(given["x"])}


def layer(bias=True, **sizes):
    given = public("norm").example(**sizes)
    return {**given, "bias": torch.randn_like(given["weight"]) if bias else None}


def pair(**sizes):
    given = public("rope").example(**sizes)
    return {"q": given["x"], "k": given["x"][:, :1].clone(), "cos": given["cos"].float(), "sin": given["sin"].float()}


def one_gate(**sizes):
    given = public("activation").example(**sizes)
    return {"gate": torch.cat((given["gate"], given["up"]), dim=-1)}


def numbers(B=2, T=5, F=7):
    return {"x": normal(B, T, F)}


def real(T=9):
    return torch.arange(T) >= torch.tensor([[0], [4]])


def logits(N=11, E=8, bias=False):
    return {"logits": normal(N, E)} | ({"bias": normal(E)} if bias else {})


WHOLES = [
    attends(),
    attends(causal=True),
    attends(causal=True, scale=0.3),
    attends("key_mask"),
    attends("bias"),
    attends("alibi"),
    attends("alibi", "bias", "key_mask", causal=True),
    attends("bias", causal=True),
    attends("key_mask", causal=True),
    attends(causal=True, window=3),
    attends("key_mask", window=3),
    attends("global_tokens", causal=True, window=2, dilation=2),
    attends(dilation=2),
    attends("prefix_len", causal=True),
    attends(causal=True, prefix_len=3),
    attends("documents", causal=True),
    attends("documents", "key_mask"),
    attends("global_tokens", window=2),
    attends(causal=True, pattern="strided", stride=3),
    attends("global_tokens", causal=True, pattern="fixed", stride=4, summary=1),
    attends(causal=True, softcap=5.0),
    attends("key_mask", softcap=5.0),
    attends("sinks", causal=True, window=4),
    attends("sinks", "bias", "alibi", softcap=5.0),
    Case("softmax", "attention", sizes=[s for s in public("softmax").EXAMPLES if s.get("T", 0) < 200]),
    Case("latent", "latent_attention"),
    Case("latent", "latent_attention", sizes=[{"T": 4, "S": 9}], scale=0.2),
    Case("linear_cross_entropy", chunk=16),
    *(
        Case("linear_cross_entropy", sizes=[{"T": 9}], reduction=r, softcap=5, scale=2, z_loss=0.1, label_smoothing=0.2)
        for r in ("mean", "sum", "none")
    ),
    Case("experts", "experts_gated"),
    Case("experts", "experts_plain", given=slots, sizes=[{}, {"N": 0}]),
    Case("experts", "experts_plain", given=slots_with_biases, sizes=[{}]),
    Case("norm", "rms_norm"),
    Case("norm", "rms_norm", sizes=[{"D": 7}], one_plus=True),
    Case("norm", "rms_norm", given=lambda: {"x": normal(3, 7), "weight": None}, sizes=[{}], eps=1e-5),
    Case("norm", "add_rms_norm", given=added),
    Case("norm", "layer_norm", given=layer),
    Case("norm", "layer_norm", given=layer, sizes=[{"bias": False}]),
    Case("norm", "add_layer_norm", given=lambda: {**added(), "bias": normal(48)}, sizes=[{}]),
    *(
        Case("norm", "gated_rms_norm", given=gated, sizes=[{}], eps=1e-5, group_size=size, norm_before_gate=first)
        for size in (None, 4)
        for first in (False, True)
    ),
    Case("rope", "rotate"),
    Case("rope", "rotate", interleaved=True),
    Case("rope", "rotate_pair", given=pair),
    Case("rope", "rotate_pair", given=pair, interleaved=True),
    Case("rope", "rope_tables", given=lambda f: {"positions": torch.arange(9), "inv_freq": torch.rand(4),
                                                 "attention_factor": f}, sizes=[{"f": 1.0}, {"f": 1.3}]),
    *(Case("activation", name) for name in ("swiglu", "geglu", "reglu", "glu", "clamped_swiglu")),
    *(Case("activation", name, given=one_gate) for name in ("swiglu", "geglu", "reglu", "glu", "clamped_swiglu")),
    Case("activation", "geglu", tanh=True),
    *(Case("activation", name, given=numbers, sizes=[{}]) for name in ("relu2", "quick_gelu", "laplace")),
    Case("activation", "softcap", given=numbers, sizes=[{}], cap=3.0),
    *(
        Case("router", "top_k_routing", given=logits, sizes=[{}, {"bias": True}], k=3, score=score, **settings)
        for score in ("softmax", "sigmoid")
        for settings in (
            {},
            {"order": "top_k_then_score", "renormalise": False},
            {"scale": 2.5, "n_groups": 4, "top_k_groups": 2, "group_score": "top2_sum"},
            {"n_groups": 4, "top_k_groups": 2},
        )
    ),
    Case("router", "tokens_by_expert", given=lambda: {"scores": torch.rand(2, 9, 4).double()}, sizes=[{}], n_places=3),
    Case("router", "tokens_by_expert", given=lambda: {"scores": torch.rand(2, 9, 4).double(),
                                                      "by": torch.rand(2, 9, 4).double(), "mask": real(),
                                                      "taken": torch.tensor([3, 2]).view(2, 1, 1)},
         sizes=[{}], n_places=3),
    Case("router", "router_logits", given=lambda: {"x": normal(2, 9, 5), "weight": normal(4, 5), "bias": normal(4)},
         sizes=[{}]),
    Case("balance", "router_z_loss", given=lambda T=11: logits(T), sizes=[{}]),
    Case("balance", "router_z_loss", given=lambda T=9: {"logits": normal(2, T, 4), "mask": real(T)}, sizes=[{}]),
    *(Case("balance", "balance_terms", sizes=[{}], **parts,
           given=lambda T=9: {"probs": torch.rand(2, T, 4).double(), "mask": real(T),
                              "experts": torch.randint(-1, 4, (2, T, 2))})
      for parts in ({}, {"share": True}, {"per_sequence": True})),
    Case("balance", "balance_terms", given=lambda T=9: {"probs": torch.rand(2, T, 4).double(),
                                                        "experts": torch.randint(-1, 4, (2, T, 2))}, sizes=[{}]),
]  # fmt: skip


TABLES = [
    ("rope_frequencies", "default_frequencies", (16, 1e4)),
    ("rope_frequencies", "linear_frequencies", (16, 1e4, 4.0)),
    ("rope_frequencies", "proportional_frequencies", (16, 1e4, 0.3, 2.0)),
    ("rope_frequencies", "ntk_frequencies", (16, 1e4, 4.0)),
    ("rope_frequencies", "dynamic_frequencies", (16, 1e4, 4.0, 64, 100)),
    ("rope_frequencies", "dynamic_frequencies_of_rows", (16, 1e4, 4.0, 64, torch.tensor([[3], [100], [64]]))),
    ("rope_frequencies", "yarn_frequencies", (16, 1e4, 4.0, 64)),
    ("rope_frequencies", "yarn_frequencies", (16, 1e4, 4.0, 64, 16.0, 2.0, False)),
    ("rope_frequencies", "yarn_attention_factor", (4.0,)),
    ("rope_frequencies", "yarn_attention_factor", (4.0, 0.7, 1.3)),
    ("rope_frequencies", "llama3_frequencies", (16, 1e4, 8.0, 1.0, 4.0, 64)),
    ("rope_frequencies", "longrope_frequencies", (4, 1e4, [1.0, 2.0], [3.0, 4.0], 64, 65)),
    ("rope_frequencies", "longrope_attention_factor", (4.0, 64)),
    ("positions", "sinusoidal", (torch.arange(9), 7)),
    ("positions", "sinusoidal_half", (torch.arange(9), 7)),
    ("positions", "sinusoidal_half", (torch.arange(9), 8, 1e3, 0)),
    *(("position_bias", "alibi_slopes", (n,)) for n in (1, 8, 12)),
    *(("position_bias", "t5_buckets", (T, S, 32, 128, both)) for T, S in ((5, 300), (1, 1)) for both in (True, False)),
    ("router", "places_by_length", (real(), 0.4)),
    ("precision", "wide", (torch.ones(2, dtype=torch.bfloat16),)),
    ("precision", "wide", (torch.ones(2, dtype=torch.float64),)),
    ("lsh", "hash_buckets", (torch.rand(1, 2, 9, 4), torch.rand(2, 4, 3, 2) - 0.5)),
]  # fmt: skip
