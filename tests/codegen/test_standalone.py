"""Plain standalone files: the package's model in torch alone, and nothing in them that it does not use."""

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import archspec
from archspec.codegen.load import build, load_text
from archspec.language.model import Spec
from archspec.verify.sample import Sample, unit_gain
from archspec.verify.shrink import shrink

ROOT = Path(__file__).resolve().parents[2]
TOLERANCE = 1e-10  # in float64, in units of the largest number
LONGEST = {  # lines, blank ones, comments and docstrings included
    "gpt2": 230,
    "llama3_8b": 250,
    "bert_base": 240,
    "mamba_130m": 240,
    "mamba2_130m": 270,
    "mixtral_8x7b": 310,
    "t5_small": 410,
    "deepseek_v3": 450,
    "jamba_v0_1": 450,
}
SIZES = {"d_model": 16, "vocab_size": 11, "max_seq_len": 32, "head": {"kind": "lm"}}
MLP = {"kind": "mlp", "d_ff": 24}
LOCAL = {"kind": "attention", "n_heads": 4, "n_kv_heads": 2, "window": 5, "sinks": True, "position": {"kind": "alibi"}}
CAPPED = {"kind": "attention", "n_heads": 2, "softcap": 3.0, "qk_norm": "head", "dropout": 0.1, "gate": "head",
          "position": {"kind": "rope", "fraction": 0.5, "scaling": {"kind": "longrope", "short_factor": [1.0, 1.1],
                       "long_factor": [2.0, 3.0], "factor": 4.0, "original_max_seq_len": 8}}}  # fmt: skip
MOE = {"kind": "moe", "n_experts": 4, "top_k": 2, "d_ff": 8, "activation": "gelu_tanh", "capacity_factor": 0.7}
MIXED: dict[str, dict[str, Any]] = {
    "two_kinds_of_attention": {"blocks": [{"mixer": LOCAL, "ffn": MLP}, {"mixer": CAPPED, "ffn": MLP}]},
    "prefix": {"blocks": [{"mixer": {"kind": "attention", "n_heads": 2, "mask": "prefix"}, "ffn": MOE}]},
    "recurrent": {"blocks": [{"mixer": {"kind": "mamba2", "head_dim": 8, "d_state": 4}, "ffn": {**MOE, "gated": True}},
                             {"mixer": {"kind": "gru"}}, {"mixer": {"kind": "mamba", "d_state": 4}}]},
}  # fmt: skip
GROUPED = ("bytes_hybrid", "deepseek_v2_lite", "deepseek_v3", "jamba_v0_1", "llama3_8b", "mistral_7b",
           "mixtral_8x7b", "striped_hyena")  # fmt: skip
STEMS = [p.stem for p in sorted((ROOT / "specs").glob("*.yaml"))]


@cache
def spec_of(name: str) -> Spec:
    """A small copy of a published spec, or a spec of this file."""
    if name in MIXED:
        return archspec.load({"name": name, **SIZES, **MIXED[name]})
    return shrink(archspec.load(ROOT / "specs" / f"{name}.yaml"), 200_000)


@cache
def text_of(name: str) -> str:
    """Its plain file."""
    return archspec.generate(spec_of(name), standalone="plain")


@pytest.fixture(params=[*STEMS, *MIXED], scope="module")
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


Pair = tuple[nn.Module, nn.Module]


@pytest.fixture(scope="module")
def pair(name: str) -> Pair:
    """The package's model and that of the plain file, with the same weights in float64."""
    torch.set_num_threads(1)
    spec = spec_of(name)
    package = unit_gain(build(spec), torch.Generator().manual_seed(0)).double()
    plain = load_text(text_of(name), f"{name}_plain").Model().double()
    plain.load_state_dict(package.state_dict())
    return package.eval(), plain.eval()


def given(name: str, optional: bool = False) -> dict[str, Any]:
    """What forward takes; with `optional` also masks of real tokens and prefixes."""
    spec, sample = spec_of(name), Sample(spec_of(name))
    found: dict[str, Any] = {a.name: sample.input(a, torch.float64) for a in spec.arguments if not a.optional}
    if optional:
        lengths = {s.name: sample.tokens if s.embedding.n_tokens == "T" else s.embedding.n_tokens for s in spec.stacks}
        masks = {a.name: lengths[a.stack] for a in spec.arguments if a.of == "mask"}
        found |= {mask: torch.arange(T) < T - 2 * torch.arange(2).unsqueeze(1) for mask, T in masks.items()}
        found |= {a.name: 4 for a in spec.arguments if a.of == "prefix_len"}
    return found


def assert_close(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=0, atol=TOLERANCE * max(1.0, float(wanted.detach().abs().max())))


def answers(y: Tensor | dict[str, Tensor]) -> list[Tensor]:
    """What each head gives."""
    return [*y.values()] if isinstance(y, dict) else [y]


def joined(y: Tensor | dict[str, Tensor]) -> Tensor:
    """The answers to tokens, of several heads side by side, or of whole sequences."""
    found = answers(y)
    return found[0] if len(found) == 1 else torch.cat([a for a in found if a.dim() == found[0].dim()], dim=-1)


def step(model: nn.Module, arguments: dict[str, Any]) -> tuple[list[Tensor], dict[str, Tensor | None]]:
    """The outputs at real tokens, and the gradients of one step; what stands at padding means nothing."""
    model.zero_grad()
    torch.manual_seed(3)
    aux: dict[str, Tensor] = {}
    y = model(**arguments, aux=aux) if hasattr(model, "aux_loss") else model(**arguments)
    mask = arguments.get("mask")
    padded = [mask is not None and a.shape[:2] == mask.shape for a in answers(y)]
    found = [a * mask.unsqueeze(-1) if real else a for a, real in zip(answers(y), padded, strict=True)]
    loss: Tensor = sum(a.square().mean() for a in found)  # type: ignore[assignment]
    (loss + (model.aux_loss(aux) if aux else 0)).backward()  # type: ignore[operator]
    return found, {k: p.grad for k, p in model.named_parameters()}


def test_parameters_and_buffers_are_the_packages(pair: Pair) -> None:
    package, plain = pair
    assert [(k, p.shape) for k, p in plain.named_parameters()] == [(k, p.shape) for k, p in package.named_parameters()]
    assert list(plain.state_dict()) == list(package.state_dict())


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("optional", [False, True])
def test_outputs_and_gradients_are_the_packages(
    name: str, pair: Pair, training: bool, optional: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if optional and given(name).keys() == given(name, optional=True).keys():
        pytest.skip("takes no mask")
    # The experts of a plain file see their tokens in another order: they would draw other numbers.
    monkeypatch.setattr(F, "dropout", lambda x, *_, **__: x)
    package, plain = (model.train(training) for model in pair)
    (wanted, wants), (found, gradients) = (step(m, given(name, optional)) for m in (package, plain))
    for a, b in zip(found, wanted, strict=True):
        assert_close(a, b)
    assert [k for k, g in gradients.items() if g is None] == [k for k, g in wants.items() if g is None]
    for k, gradient in gradients.items():
        if gradient is not None:
            assert_close(gradient, wants[k])  # type: ignore[arg-type]


def decoded(model: nn.Module, spec: Spec, arguments: dict[str, Any], sizes: list[int]) -> list[Tensor]:
    """The outputs for pieces of these sizes, with a state."""
    own = {a.name for a in spec.arguments if a.stack == spec.main.name and not a.optional}
    state: dict[str, Any] = {}
    found, start = [], 0
    for size in sizes:
        piece = {k: v[:, start : start + size] if k in own else v for k, v in arguments.items()}
        found.append(joined(model(**piece, state=state)))
        start += size
    assert state
    return found


def exact_within(spec: Spec, length: int) -> int:
    """Up to where pieces give what the whole does: frequencies that follow the length of the text change on the way."""
    return min((c.exact_within for c in spec.main.everything if c.exact_within is not None), default=length)


@torch.no_grad()
def test_decoding_is_the_packages(name: str, pair: Pair) -> None:
    spec = spec_of(name)
    if not any(a.of == "state" for a in spec.arguments):
        pytest.skip("keeps no state")
    package, plain = (model.eval() for model in pair)
    arguments = given(name)
    length = Sample(spec).tokens
    for sizes in ([length // 2, 1, length - length // 2 - 1], [1] * length):
        outputs = decoded(plain, spec, arguments, sizes)
        for found, wanted in zip(outputs, decoded(package, spec, arguments, sizes), strict=True):
            assert_close(found, wanted)
        if spec.causal and length <= exact_within(spec, length):
            assert_close(torch.cat(outputs, dim=1), joined(plain(**arguments)))


@torch.no_grad()
@torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True)  # what older versions want for experts
def test_it_compiles_whole(name: str, pair: Pair) -> None:
    plain, arguments = pair[1].eval(), given(name)
    torch.compiler.reset()
    compiled = torch.compile(plain, fullgraph=True, backend="eager")
    for found, wanted in zip(answers(compiled(**arguments)), answers(plain(**arguments)), strict=True):
        assert_close(found, wanted)


ALONE = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("archspec", "numba", "triton"):
            raise ImportError(f"{name} is blocked")
sys.meta_path.insert(0, Blocked())
import importlib.util, torch
torch.set_num_threads(1)
for path in sys.argv[1:]:
    spec = importlib.util.spec_from_file_location("alone", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = module.Model().double().eval()
    weights, given, wanted = torch.load(path + ".pt")
    model.load_state_dict(weights)
    with torch.no_grad():
        found = model(**given)
        pairs = zip(found.values(), wanted.values()) if isinstance(found, dict) else [(found, wanted)]
        assert all(torch.equal(a, b) for a, b in pairs), path
"""


@torch.no_grad()
def test_they_need_torch_alone(tmp_path: Path) -> None:
    paths = []
    for name in (*STEMS, *MIXED):
        path = tmp_path / f"{name}.py"
        path.write_text(text_of(name))
        model = load_text(text_of(name), f"{name}_alone").Model().double().eval()
        torch.save((model.state_dict(), given(name), model(**given(name))), f"{path}.pt")
        paths.append(str(path))
    run = [sys.executable, "-c", ALONE, *paths]
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def test_nothing_in_it_is_unused(name: str) -> None:
    tree = ast.parse(text_of(name))
    nodes = list(ast.walk(tree))
    read = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    attributes = {n.attr for n in nodes if isinstance(n, ast.Attribute)}
    constants = {t.id for n in tree.body if isinstance(n, ast.Assign) for t in n.targets if isinstance(t, ast.Name)}
    imports = {a.asname or a.name.split(".")[0] for n in nodes if isinstance(n, ast.Import) for a in n.names}
    imports |= {a.asname or a.name for n in nodes if isinstance(n, ast.ImportFrom) for a in n.names}
    defined = {n.name for n in nodes if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    called_by_others = {"Model", "__init__", "forward", "reset_parameters", "aux_loss", "update_bias", "_apply"}
    called_by_others.add("loss")
    assert (constants | imports) - read == set()
    assert defined - read - attributes - called_by_others == set()
    blocks = [n for n in tree.body if isinstance(n, ast.ClassDef) and n.name.endswith("Block")]  # all called alike
    exempt = {id(n) for block in blocks for n in ast.walk(block)}
    for function in (n for n in nodes if isinstance(n, ast.FunctionDef) and id(n) not in exempt):
        own = {n.id for n in ast.walk(function) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
        taken = {a.arg for a in (*function.args.args, *function.args.kwonlyargs)} - {"self"}
        assert taken <= own, (function.name, taken - own)


def test_nothing_in_it_stands_twice(name: str) -> None:
    """No two helpers or layers are the same but for their names, and no size has two."""
    tree = ast.parse(text_of(name))
    found: dict[str, str] = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            own, body = node.name, ast.unparse(node)
            said = re.sub(rf"\b{own}\b", "_", body)
            assert said not in found, (own, found[said])
            found[said] = own
    sizes = re.findall(r"^[A-Z0-9_]+ = (.*)$", text_of(name), re.MULTILINE)
    assert len(sizes) == len(set(sizes))


@pytest.mark.parametrize("training", [False, True])
def test_in_float32_they_agree_to_its_rounding(
    name: str, pair: Pair, training: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sums run in another order: outputs to 1e-4 of the largest, gradients to 1e-3 of the largest of a tensor."""
    monkeypatch.setattr(F, "dropout", lambda x, *_, **__: x)
    arguments = {k: v.float() if v.is_floating_point() else v for k, v in given(name).items()}
    try:
        (wanted, wants), (found, gradients) = (step(model.float().train(training), arguments) for model in pair)
    finally:
        for model in pair:
            model.double()
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-4 * max(1.0, float(b.detach().abs().max())))
    for k, want in wants.items():
        if want is not None:
            torch.testing.assert_close(gradients[k], want, rtol=0, atol=1e-3 * max(1e-2, float(want.abs().max())))


def test_no_condition_in_it_is_decided(name: str) -> None:
    for node in ast.walk(ast.parse(text_of(name))):
        if isinstance(node, ast.If | ast.IfExp | ast.While | ast.Assert):
            parts = [n for n in ast.walk(node.test) if isinstance(n, ast.BoolOp)]
            values = [node.test, *(value for part in parts for value in part.values)]
            assert not [v for v in values if isinstance(v, ast.Constant)], ast.unparse(node.test)


def test_it_says_only_what_is_so(name: str) -> None:
    text = text_of(name)
    assert "atomic" not in text
    assert "archspec.kernels" not in text
    assert ("nn.Conv2d" in text) == (name == "vit_base")
    assert "self.bits" not in text or "alibi" in text
    assert ("enable_gqa=True" in text) == (name in GROUPED)


def test_ruff_finds_nothing(tmp_path: Path) -> None:
    for name in (*STEMS, *MIXED):
        (tmp_path / f"{name}.py").write_text(text_of(name))
    rules = ["--extend-select", "ARG,F,RUF059", "--ignore", "D1,E741", "--no-cache", "--output-format", "concise"]
    run = [sys.executable, "-m", "ruff", "check", "--config", str(ROOT / "pyproject.toml"), *rules, str(tmp_path)]
    done = subprocess.run(run, capture_output=True, text=True)
    # A block without a router stands in a list with others that have one, and all are called alike.
    found = [line for line in done.stdout.splitlines() if not line.endswith("Unused method argument: `aux`")]
    assert done.returncode in (0, 1)
    assert [line for line in found if line.strip() and not line.startswith(("Found ", "All checks"))] == [], done.stderr


@pytest.mark.parametrize("name", LONGEST)
def test_it_is_short(name: str) -> None:
    assert len(text_of(name).splitlines()) <= LONGEST[name]


@torch.no_grad()
def test_angles_stay_exact_when_the_model_is_cast() -> None:
    """No table of frequencies is kept: they are computed in float32 whatever the type of the model."""
    module = load_text(text_of("llama3_8b"), "llama3_cast").Rope()
    q, k = torch.randn(1, 2, 9, 8), torch.randn(1, 1, 9, 8)
    q, k = (x.unflatten(-1, (1, -1)).expand(*x.shape[:3], -1, -1).flatten(-2) for x in (q, k))
    size = spec_of("llama3_8b").main.segments[0].layers[0].block.part("mixer").head_dim  # type: ignore[union-attr]
    q, k = q[..., :size], k[..., :size]
    wanted = module(q, k)
    for found, want in zip(module.bfloat16()(q, k), wanted, strict=True):
        assert torch.equal(found, want)
    assert not list(module.buffers())


def test_a_family_without_a_plain_form_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from archspec.codegen import sources

    monkeypatch.setattr(sources, "PLAIN", "archspec.kernels.plainer")
    with pytest.raises(archspec.GenerateError, match=r"plainer\.\w+ defines no \w+; standalone='fast' copies"):
        archspec.generate(spec_of("bert_tiny"), standalone="plain")


def test_fast_files_keep_gradients_by_hand() -> None:
    text = archspec.generate(spec_of("bert_tiny"), standalone="fast")
    assert "torch.library.custom_op" in text
    assert "archspec.kernels" not in text
    assert archspec.generate(spec_of("bert_tiny"), standalone=True) == text_of("bert_tiny")
