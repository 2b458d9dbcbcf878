"""Plain forms against the families whose names they bear: outputs, gradients and states, whole and in pieces."""

import ast
import importlib
import inspect
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from kernel_checks import assert_close, normal, pieces
from torch import Tensor

from archspec.kernels import backend

FILES = [path for path in sorted(Path("kernels/plain").glob("*.py")) if path.stem != "__init__"]
OTHERS = ("gpu", "cpu", "plain")
MODULES = {
    p.stem: p for p in (*Path("kernels").glob("*.py"), *Path("kernels").glob("*/*.py")) if p.parts[1] not in OTHERS
}
HELPERS = {"decay"}  # files of plain forms without a family of their own
WITHOUT = {"atomic"}  # a file that is made to be read puts no state back
LIBRARIES = {"math", "typing", "collections.abc", "torch", "torch.nn.functional", "torch.utils.checkpoint"}


@pytest.fixture(autouse=True)
def nothing_is_compiled_first(monkeypatch):
    """The families run in their PyTorch, which is what a plain form replaces."""
    monkeypatch.setattr(backend, "CPU_DEVICES", ())


def public(family):
    return importlib.import_module("archspec." + ".".join(MODULES[family].with_suffix("").parts))


def plain(family):
    return importlib.import_module(f"archspec.kernels.plain.{family}")


def functions(module):
    return {name: f for name, f in inspect.getmembers(module, inspect.isfunction) if f.__module__ == module.__name__}


# What each file is


def imported_by_modules():
    """(family, name) of all that the modules of archspec import from kernels."""
    found = set()
    for path in Path("archspec/modules").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("archspec.kernels."):
                found |= {(str(node.module).rpartition(".")[2], alias.name) for alias in node.names}
    return sorted((family, name) for family, name in found if name not in WITHOUT)


@pytest.mark.parametrize(("family", "name"), imported_by_modules())
def test_what_modules_use_has_a_plain_form(family, name):
    original, twin = getattr(public(family), name), getattr(plain(family), name)
    if inspect.isfunction(original):
        assert inspect.signature(twin) == inspect.signature(original)
    else:
        assert twin == original


@pytest.mark.parametrize("family", [path.stem for path in FILES if path.stem not in HELPERS])
def test_functions_of_the_same_name_have_the_same_signature(family):
    ours, theirs = functions(plain(family)), functions(public(family))
    shared = ours.keys() & theirs.keys()
    assert shared
    for name in shared:
        assert inspect.signature(ours[name]) == inspect.signature(theirs[name]), name


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_needs_torch_alone_and_registers_nothing(path):
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.module in LIBRARIES or str(node.module).startswith("archspec.kernels.plain."), node.module
        elif isinstance(node, ast.Import):
            assert {alias.name for alias in node.names} <= LIBRARIES
        elif isinstance(node, ast.FunctionDef):
            assert not node.decorator_list
    assert not any(isinstance(node, ast.ClassDef | ast.Try | ast.Raise) for node in ast.walk(tree))


# What each function gives: calls with their arguments, and the axis of time of those that have one


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


def agree(ours, theirs, tolerance=1e-10):
    assert len(ours[0]) == len(theirs[0])
    for got, wanted in zip([*ours[0], *ours[1]], [*theirs[0], *theirs[1]], strict=True):
        torch.testing.assert_close(got, wanted, rtol=tolerance, atol=tolerance, equal_nan=True)


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
    Case("matrix_memory", given=positive, along=tokens("q k v"), sizes=PLAIN_DECAYS, scale=0.5),
    Case("matrix_memory", given=per_token, along=tokens("q k v decay"), sizes=DECAYS),
    Case("matrix_memory", given=per_token, along=tokens("q k v decay"), sizes=[{**s, "bonus": 1} for s in DECAYS[1:4]]),
    Case("matrix_memory", given=positive, along=tokens("q k v decay"), sizes=DECAYS[2:4], normalise=True),
    Case("mlstm", along=tokens("q k v input_gate forget_gate"), scale=0.7, eps=1e-6),
    Case("delta_rule", along=tokens("q k v beta decay")),
    Case("delta_rule", given=without_decay, along=tokens("q k v beta"), sizes=[{"T": 37}], scale=0.3),
    Case("delta_rule", given=other_read_key, along=tokens("q k v beta decay read_key"), sizes=[{"T": 37}], chunk=16),
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


@pytest.mark.parametrize("case", SEQUENCES, ids=repr)
def test_sequences_whole_and_in_pieces(case):
    for sizes in case.every_size():
        given = case.arguments(sizes)
        agree(case.run(plain(case.family), given), case.run(public(case.family), given))
        T = length(case, given)
        ways = [[slice(0, T)], *pieces(T)]
        for cuts in ways[: 1 if 0 in sizes.values() else 2 if T > 63 else 3]:
            agree(case.run(plain(case.family), given, cuts), case.run(public(case.family), given, cuts))


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
    Case("rope", "rope_tables", given=lambda f: {"positions": torch.arange(9), "inv_freq": torch.rand(4).double(),
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
    Case("router", "router_z_loss", given=logits, sizes=[{}]),
    Case("router", "load_balancing_loss", given=lambda: {"probs": torch.rand(9, 4).double(), "n_experts": 4,
                                                         "experts": torch.randint(-1, 4, (9, 2))}, sizes=[{}]),
]  # fmt: skip


@pytest.mark.parametrize("case", WHOLES, ids=repr)
def test_calls_without_a_state(case):
    for sizes in case.every_size():
        given = case.arguments(sizes)
        agree(case.run(plain(case.family), given), case.run(public(case.family), given))


def network(gates, depth=1, ways=1, bias=True, B=2, T=9, D_in=5, D=4):
    def layer(width):
        shapes = [(gates * D, width), (gates * D, D), *([(gates * D,)] * 2 if bias else [])]
        return [normal(*shape) / 2 for shape in shapes]

    weights = [w for i in range(depth) for _ in range(ways) for w in layer(ways * D if i else D_in)]
    return normal(B, T, D_in), weights


@pytest.mark.parametrize("cuts", [None, [slice(0, 4), slice(4, 5), slice(5, 9)]])
@pytest.mark.parametrize(
    ("name", "gates", "settings"), [("lstm", 4, {}), ("gru", 3, {}), ("rnn", 1, {}), ("rnn", 1, {"relu": True})]
)
@pytest.mark.parametrize("bias", [True, False])
def test_recurrent(name, gates, settings, bias, cuts):
    for depth, ways in ((1, 1), (2, 1), *(() if cuts else ((2, 2),))):
        x, weights = network(gates, depth, ways, bias)
        results = []
        for module in (plain("recurrent"), public("recurrent")):
            leaves = [w.clone().requires_grad_() for w in (x, *weights)]
            state, options = {}, {**settings, "depth": depth, "bidirectional": ways == 2}
            run = [
                getattr(module, name)(leaves[0][:, now], leaves[1:], state if cuts else None, **options)
                for now in cuts or [slice(0, 9)]
            ]
            outputs = [torch.cat(run, dim=1), *(state[k] for k in sorted(state))]
            gradients = torch.autograd.grad(sum(y.square().sum() for y in outputs), leaves)
            results.append(([y.detach() for y in outputs], list(gradients)))
        agree(*results)


@pytest.mark.parametrize("settings", [{}, {"first_choices": True}, {"priority": torch.rand(2, 12)},
                                      {"priority": torch.rand(2, 12), "first_choices": True}], ids=str)  # fmt: skip
def test_admitted(settings):
    experts = torch.randint(-1, 4, (2, 12, 2))
    ours, theirs = (m.admitted(experts, 4, 3, **settings) for m in (plain("router"), public("router")))
    assert torch.equal(ours, theirs)
    assert (ours != experts).any()
    if not settings:
        states = {}, {}
        for now in (slice(0, 5), slice(5, 6), slice(6, 12)):
            ours, theirs = (
                m.admitted(experts[:, now], 4, 3, state)
                for m, state in zip((plain("router"), public("router")), states, strict=True)
            )
            assert torch.equal(ours, theirs)
        assert torch.equal(states[0]["asked"], states[1]["asked"])


@pytest.mark.parametrize("tokens", [0.2, 1.0, 2.5, 3.0000000001])
def test_places(tokens):
    assert plain("router").places(tokens) == public("router").places(tokens)


TABLES = [
    ("rope_frequencies", "default_frequencies", (16, 1e4)),
    ("rope_frequencies", "linear_frequencies", (16, 1e4, 4.0)),
    ("rope_frequencies", "proportional_frequencies", (16, 1e4, 0.3, 2.0)),
    ("rope_frequencies", "ntk_frequencies", (16, 1e4, 4.0)),
    ("rope_frequencies", "dynamic_frequencies", (16, 1e4, 4.0, 64, 100)),
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
    ("precision", "wide", (torch.ones(2, dtype=torch.bfloat16),)),
    ("precision", "wide", (torch.ones(2, dtype=torch.float64),)),
    ("lsh", "hash_buckets", (torch.rand(1, 2, 9, 4), torch.rand(2, 4, 3, 2) - 0.5)),
]  # fmt: skip


@pytest.mark.parametrize(("family", "name", "arguments"), TABLES, ids=lambda x: x if isinstance(x, str) else "")
def test_tables_are_the_same_to_the_bit(family, name, arguments):
    ours, theirs = (getattr(module, name)(*arguments) for module in (plain(family), public(family)))
    if isinstance(ours, Tensor):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    else:
        assert ours == theirs


def test_wide_type():
    x, y, z = (torch.ones(1, dtype=d) for d in (torch.bfloat16, torch.float64, torch.complex64))
    for tensors in ((x,), (x, y), (x, z), (y, z)):
        assert plain("precision").wide_type(*tensors) == public("precision").wide_type(*tensors)


def every_function():
    return {(path.stem, name) for path in FILES if path.stem not in HELPERS for name in functions(plain(path.stem))}


def test_every_twin_is_compared():
    compared = {(case.family, case.name) for case in (*SEQUENCES, *WHOLES)} | {(f, name) for f, name, _ in TABLES}
    compared |= {("recurrent", name) for name in ("lstm", "gru", "rnn")} | {
        ("router", "admitted"),
        ("router", "places"),
    }
    twins = {(f, name) for f, name in every_function() if name in functions(public(f))}
    seen_inside = {("precision", "wide_type"), ("lsh", "random_rotations"), ("lsh", "keys_of")}
    assert {(f, name) for f, name in twins - compared - seen_inside if f != "state"} == set()


# The state


@pytest.mark.parametrize("keep", [None, 0, 1, 5])
def test_append_is_that_of_the_package(keep):
    states, seen = ({}, {}), normal(2, 3, 9, 4)
    for now in (slice(0, 4), slice(4, 5), slice(5, 9)):
        new = {"k": seen[:, :, now], "v": -seen[:, :, now]}
        results = [
            m.append(state, keep, **new) for m, state in zip((plain("state"), public("state")), states, strict=True)
        ]
        for ours, theirs in zip(*results, strict=True):
            assert torch.equal(ours, theirs)
    start, end = states[1]["k_span"]
    assert torch.equal(states[0]["k"], states[1]["k"][:, :, start:end])
    assert plain("state").append(None, keep, k=seen) == (seen,)


def test_the_rest_of_the_state_is_that_of_the_package():
    for module in (plain("state"), public("state")):
        state = {}
        assert [module.advance(state, n) for n in (3, 1)] == [0, 3]
        assert module.advance(None, 3) == 0
        assert [module.once(state, "memory", lambda n=n: n) for n in (7, 8)] == [7, 7]
        assert module.once(None, "memory", lambda: 9) == 9
        child = module.substate(state, 3)
        child["x"] = 1
        assert module.substate(state, "3") is child
        assert module.substate(None, 3) is None
        assert state["seen"] == 4


# Types and compilation


ONCE = list(
    {(case.family, case.name): case for case in reversed((*SEQUENCES, *WHOLES)) if case.family != "router"}.values()
)


def usual(case):
    """Arguments of the first example that is neither empty nor of one token."""
    return case.arguments(next(s for s in case.every_size() if not {0, 1} & set(s.values())))


@pytest.mark.parametrize("case", ONCE, ids=repr)
def test_16_bit_types_are_those_of_the_family(case):
    given = {
        k: v.to(v.dtype if v.is_complex() else torch.bfloat16) if trained(v) else v for k, v in usual(case).items()
    }
    cuts = [slice(0, length(case, given))] if case.along else None
    ours, theirs = (case.run(module(case.family), given, cuts) for module in (plain, public))
    exact = case.run(
        plain(case.family), {k: v.double() if trained(v) and not v.is_complex() else v for k, v in given.items()}, cuts
    )
    for i, (got, wanted, right) in enumerate(zip(ours[0], theirs[0], exact[0], strict=True)):
        if i == 0 or case.name != "short_conv":  # which keeps gated inputs in their own type
            assert got.dtype == wanted.dtype
        assert_close("output", got, right, 6e-2)


@pytest.mark.parametrize("case", ONCE, ids=repr)
def test_compiles_as_one_graph(case):
    torch.compiler.reset()
    given, function = usual(case), getattr(plain(case.family), case.name)
    compiled = torch.compile(lambda **given: function(**given, **case.settings), fullgraph=True, backend="eager")
    for ours, theirs in zip(tensors(compiled(**given)), tensors(function(**given, **case.settings)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
