"""The generated file is the model: the same tensors, start, outputs and gradients as the interpreter's, to the bit."""

import ast
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from contract_models import models
from contract_specs import (
    Document,
    cases,
    cut,
    double,
    example,
    host,
    inputs,
    name,
    redraw,
    run,
)
from contract_texts import Texts, interpreted
from torch import Tensor, nn

from archspec.codegen import generate
from archspec.kernels.state import USED
from archspec.language.load import load
from archspec.language.model import Spec
from archspec.layers.base import NormComponent
from archspec.layers.registry import everything
from archspec.passes.count import count

ROOT = Path(__file__).parents[2]
DOCUMENTS: dict[str, Document] = {name(case): host(case[0], example(*case))[0] for case in cases()} | models()
FEW = ("mixer-attention-1", "embedding-token-2", "encoder_decoder", "shared")


@pytest.fixture(params=DOCUMENTS, scope="module")
def spec(request: pytest.FixtureRequest) -> Spec:
    return load(DOCUMENTS[request.param])


def step(
    model: nn.Module, spec: Spec, given: dict[str, Any], seed: int = 3
) -> tuple[Tensor, Tensor, dict[str, Tensor], dict[str, Tensor | None]]:
    """Output, auxiliary loss, what is collected and gradients of one step."""
    model.zero_grad()
    torch.manual_seed(seed)
    y, aux, collected = run(model, spec, given)
    (y.square().mean() + aux).backward()
    return y, aux, collected, {k: p.grad for k, p in model.named_parameters()}


def same_step(a: nn.Module, b: nn.Module, spec: Spec, given: dict[str, Any]) -> None:
    y, aux, collected, grads = step(a, spec, given)
    y2, aux2, collected2, grads2 = step(b, spec, given)
    assert torch.equal(y, y2)
    assert list(collected) == list(collected2)
    assert all(torch.equal(value, collected2[k]) for k, value in collected.items())
    assert torch.equal(aux, aux2)
    different = [k for k, g in grads.items() if not equal(g, grads2[k])]
    assert not different


def equal(a: Tensor | None, b: Tensor | None) -> bool:
    return a is b if a is None or b is None else torch.equal(a, b)


def shapes(model: nn.Module) -> list[tuple[str, tuple[int, ...]]]:
    return [(k, tuple(p.shape)) for k, p in model.named_parameters()]


def test_generated_equals_interpreted_to_the_bit(spec: Spec, texts: Texts) -> None:
    made, read = texts.model(spec), interpreted(spec)
    counted = [(t.name, t.shape) for t in count(spec).tensors]
    buffers = [n for n in made.state_dict() if n not in dict(made.named_parameters(remove_duplicate=False))]
    assert shapes(made) == shapes(read) == [t for t in counted if t[0] not in buffers]
    start, start2 = made.state_dict(), read.state_dict()
    assert list(start) == list(start2)
    assert [k for k in start if not torch.equal(start[k], start2[k])] == []

    redraw(made)
    redraw(read)
    for training in (False, True):
        made.train(training)
        read.train(training)
        for optional in (False, True):
            same_step(made, read, spec, inputs(spec, optional, T=9))
    for a, b in zip(made.buffers(), read.buffers(), strict=True):
        assert torch.equal(a, b)


def test_generated_decodes_as_interpreted(spec: Spec, texts: Texts) -> None:
    if not any(a.of == "state" for a in spec.arguments):
        pytest.skip("keeps no state")
    made, read = redraw(texts.model(spec)).eval(), redraw(interpreted(spec)).eval()
    given = inputs(spec, T=9)
    state: dict[str, Any] = {}
    state2: dict[str, Any] = {}
    with torch.no_grad():
        for start, end in ((0, 4), (4, 5), (5, 9)):
            piece = cut(spec, given, start, end)
            assert torch.equal(made(**piece, state=state), read(**piece, state=state2))
    assert state
    assert keys(state) == keys(state2)


def keys(state: dict[str, Any], path: str = "") -> set[str]:
    """The paths of all that a state holds, but for what one call notes for itself."""
    inner = {k: v for k, v in state.items() if isinstance(v, dict)}
    below = {p for k, v in inner.items() for p in keys(v, f"{path}{k}.")}
    return below | {f"{path}{k}" for k in state.keys() - inner.keys() - {USED}}


def test_no_trace_of_the_config_is_left(spec: Spec, texts: Texts) -> None:
    text = texts.text(spec)
    tree = ast.parse(text)
    names = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
    attributes = {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
    assert not names & {"c", "Config", "build"}
    assert not attributes & {"c", "config"}
    modules = [n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
    modules += [a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names]
    assert all(
        m.split(".")[0] in (*sys.stdlib_module_names, "torch") or m.startswith("archspec.kernels.") for m in modules
    )
    tests = [n.test for n in ast.walk(tree) if isinstance(n, ast.If | ast.IfExp | ast.While | ast.Assert)]
    tests = [t.operand if isinstance(t, ast.UnaryOp) else t for t in tests]
    assert not [t.lineno for t in tests if isinstance(t, ast.Constant)]
    assert not [n.lineno for n in ast.walk(tree) if isinstance(n, ast.Pass)]


def test_every_definition_is_used(spec: Spec, texts: Texts) -> None:
    tree = ast.parse(texts.text(spec))
    words = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    words |= {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
    defined = {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    defined |= {t.id for n in tree.body if isinstance(n, ast.Assign) for t in n.targets if isinstance(t, ast.Name)}
    called_by_torch_or_its_user = {
        "Model",
        "__init__",
        "forward",
        "reset_parameters",
        "aux_loss",
        "update_bias",
        "_apply",
    }
    assert defined - words - called_by_torch_or_its_user == set()


def test_parameters_of_forward_are_used(spec: Spec, texts: Texts) -> None:
    """Blocks aside: all blocks of a stack are called alike."""
    tree = ast.parse(texts.text(spec))
    tree.body = [n for n in tree.body if not (isinstance(n, ast.ClassDef) and n.name.endswith("Block"))]
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.args.defaults:
            optional = {a.arg for a in node.args.args[-len(node.args.defaults) :]}
            read = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
            assert optional <= read, (node.name, optional - read)


def test_an_init_is_told_what_linear_layers_there_are(spec: Spec, texts: Texts) -> None:
    layers = [m for m in texts.model(spec).modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    assert spec.init.names.linear_biases == any(m.bias is not None for m in layers)
    assert spec.init.names.convolutions == any(isinstance(m, nn.Conv2d) for m in layers)


@pytest.mark.parametrize("document", FEW)
def test_text_is_the_same_again(document: str, texts: Texts) -> None:
    spec = load(DOCUMENTS[document])
    assert generate(spec) == texts.text(spec)


def test_text_is_the_same_in_another_process(tmp_path: Path, texts: Texts) -> None:
    script = tmp_path / "again.py"
    script.write_text(
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from test_generated import DOCUMENTS, FEW, generate, load\n"
        "print('\\f'.join(generate(load(DOCUMENTS[d])) for d in FEW), end='')\n"
    )
    want = "\f".join(texts.text(load(DOCUMENTS[d])) for d in FEW)
    run = [sys.executable, str(script), str(Path(__file__).parent)]
    seed = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
    environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(run, capture_output=True, text=True, env=environment, check=True)
    assert done.stdout == want


STANDALONE = ("mixer-attention-1", "mixer-mla-1", "mixer-mamba-0", "mixer-mamba2-1", "mixer-hyena-0", "ffn-moe-5",
              "position-t5-1", "absolute_position-sinusoidal-1", "encoder_decoder", "hybrid")  # fmt: skip

RUN_ALONE = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "archspec":
            raise ImportError("blocked")
sys.meta_path.insert(0, Block())
import importlib.util, torch
torch.set_num_threads(1)
for path in sys.argv[1:]:
    spec = importlib.util.spec_from_file_location("alone", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = module.Model().eval()
    weights, given = torch.load(path + ".pt")
    model.load_state_dict(weights)
    torch.save(model(**given), path + ".out")
"""


def test_fast_standalone_files_need_torch_alone(tmp_path: Path, texts: Texts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("archspec.kernels.backend.CPU_DEVICES", ())  # they have the PyTorch forms only
    paths, want = [], []
    for document in STANDALONE:
        spec = load(DOCUMENTS[document])
        model, given = redraw(texts.model(spec)).eval(), inputs(spec, optional=True)
        path = tmp_path / f"{document}.py"
        shutil.copy(texts.path(spec, standalone=True), path)
        torch.save((model.state_dict(), given), f"{path}.pt")
        paths.append(str(path))
        want.append(model(**given))
    subprocess.run([sys.executable, "-c", RUN_ALONE, *paths], check=True, cwd=tmp_path, capture_output=True, text=True)
    for path, y in zip(paths, want, strict=True):
        assert torch.equal(torch.load(f"{path}.out"), y), path
        assert "archspec.kernels" not in Path(path).read_text()


def test_ruff_finds_nothing_in_any_text(texts: Texts) -> None:
    """Under the settings that hold for committed generated files."""
    texts.all([load(d) for d in DOCUMENTS.values()], [load(DOCUMENTS[d]) for d in STANDALONE])
    settings = ["--config", str(ROOT / "pyproject.toml"), "--ignore", "D1,E741", "--no-cache"]
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", *settings, "--output-format", "concise", str(texts.folder)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr


@pytest.mark.parametrize("kind", everything()["mixer"])
def test_zeroed_output_projections_make_a_block_the_identity(kind: str, texts: Texts) -> None:
    for number in range(len(everything()["mixer"][kind].examples)):
        document, _ = host("mixer", example("mixer", kind, number))
        spec = load(document)
        blocks = redraw(texts.model(spec)).get_submodule("decoder" if "stacks" in document else "").blocks
        zero_outputs(blocks, spec)
        x = torch.randn(2, 9, 16)
        given = {"memory": torch.randn(2, 5, 12)} if "stacks" in document else {}
        given |= {"bias": torch.zeros(1, 1, 9, 9)} if "bias" in spec.main.arguments else {}
        assert torch.equal(blocks[0](x, **given), x)


@pytest.mark.parametrize("kind", everything()["ffn"])
def test_zeroed_down_projections_make_a_block_the_identity(kind: str, texts: Texts) -> None:
    for number in range(len(everything()["ffn"][kind].examples)):
        spec = load(host("ffn", example("ffn", kind, number))[0])
        model = redraw(texts.model(spec))
        zero_outputs(model.blocks, spec)
        x = torch.randn(2, 9, 16)
        assert torch.equal(model.blocks[0](x), x)


@torch.no_grad()
def zero_outputs(blocks: nn.Module, spec: Spec) -> None:
    """Zero whatever is declared to write to the residual stream."""
    ends = {f"{name}.{p.name}" for name, part in spec.main.layers[0].block.parts if not isinstance(part, NormComponent)
            for op in part.ops() for p in op.params if p.residual}  # fmt: skip
    for path, p in blocks.named_parameters():
        if path.partition(".")[2] in ends:
            p.zero_()


def test_float64_model_is_close_to_the_float32_one(texts: Texts) -> None:
    spec = load(DOCUMENTS["hybrid"])
    model, given = redraw(texts.model(spec)).eval(), inputs(spec)
    single = model(**given)
    torch.testing.assert_close(model.double()(**double(given)).float(), single, rtol=1e-3, atol=1e-4)


def test_file_can_be_imported_by_path(texts: Texts) -> None:
    path = texts.path(load(DOCUMENTS["shared"]))
    found = importlib.util.spec_from_file_location("by_path", path)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    assert isinstance(module.Model(), nn.Module)
