"""Models of generated text go through copies, pickles, files and other processes."""

import copy
import io
import multiprocessing
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import archspec
from archspec.codegen.load import load_text
from archspec.modules.model import eager

BLOCKS = [
    {"mixer": {"kind": "attention", "n_heads": 2, "position": {"kind": "rope"}}, "ffn": "mlp"},
    {"mixer": "mamba", "ffn": {"kind": "moe", "n_experts": 4, "top_k": 2, "d_ff": 4}},
]
SPEC = archspec.load({"name": "a tiny one", "d_model": 8, "vocab_size": 5, "blocks": BLOCKS, "head": "lm"})
TOKENS = torch.tensor([[1, 4, 2, 0, 3]])


def standalone(spec: archspec.Spec) -> nn.Module:
    return load_text(archspec.generate(spec, standalone=True), "alone").Model()  # type: ignore[no-any-return]


MAKERS = (archspec.build, standalone, eager)


def saved(model: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)  # type: ignore[no-any-return]


WAYS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "old pickle": lambda model: pickle.loads(pickle.dumps(model, protocol=2)),
    "torch.save": saved,
    "deepcopy": copy.deepcopy,
}


def output(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model.eval()(TOKENS)  # type: ignore[no-any-return]


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("way", WAYS)
def test_a_copy_is_equal_and_of_the_same_class(make: Callable[[archspec.Spec], nn.Module], way: str) -> None:
    model = make(SPEC)
    found = WAYS[way](model)
    assert type(found) is type(model)
    assert torch.equal(output(found), output(model))
    assert not {p.data_ptr() for p in found.parameters()} & {p.data_ptr() for p in model.parameters()}


@pytest.mark.parametrize("make", MAKERS)
def test_another_process_reads_it(make: Callable[[archspec.Spec], nn.Module], tmp_path: Path) -> None:
    model, path = make(SPEC), tmp_path / "model.pt"
    torch.save(model, path)
    script = (
        "import sys, torch; model = torch.load(sys.argv[1], weights_only=False).eval(); "
        f"torch.save(model(torch.tensor({TOKENS.tolist()})).detach(), sys.argv[1])"
    )
    subprocess.run([sys.executable, "-c", script, str(path)], check=True)
    torch.testing.assert_close(torch.load(path), output(model))


def run(model: nn.Module) -> list[float]:
    return output(model).flatten().tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize("make", MAKERS)
def test_a_spawned_process_takes_it(make: Callable[[archspec.Spec], nn.Module]) -> None:
    model = make(SPEC)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(run, (model,)) == pytest.approx(run(model), abs=1e-6)


def test_the_text_is_pickled_once() -> None:
    model = archspec.build(SPEC)
    text = archspec.generate(SPEC)
    assert pickle.dumps(model).count(text[:200].encode()) == 1


def test_a_newer_text_of_the_same_name_is_another_class() -> None:
    text = archspec.generate(SPEC)
    old = load_text(text, "same").Model()
    kept = pickle.dumps(old)
    new = load_text(text + "\n# newer\n", "same").Model()
    assert type(pickle.loads(kept)) is not type(new)
    assert torch.equal(output(pickle.loads(kept)), output(old))


def test_a_class_derived_from_a_generated_one_is_pickled_as_any() -> None:
    found = pickle.loads(pickle.dumps(Derived()))
    assert type(found) is Derived


class Derived(load_text(archspec.generate(SPEC), "base").Model):  # type: ignore[misc]
    pass


def test_specs_and_what_they_are_asked_are_pickled(tmp_path: Path) -> None:
    for value in (SPEC, archspec.count(SPEC)):
        assert pickle.loads(pickle.dumps(value)) == value == copy.deepcopy(value)
    assert len(pickle.loads(pickle.dumps(archspec.lower(SPEC)))) == len(archspec.lower(SPEC))


def test_equal_blocks_are_one_in_another_process(tmp_path: Path) -> None:
    path, text = tmp_path / "spec.pickle", archspec.show(SPEC)
    hash(SPEC.main.layers[0].block)
    path.write_bytes(pickle.dumps((SPEC, text)))
    script = (
        "import pickle, sys, archspec; spec, text = pickle.load(open(sys.argv[1], 'rb')); "
        "other = archspec.loads(text); "
        "assert {la.block for la in spec.main.layers} == {la.block for la in other.main.layers}"
    )
    subprocess.run([sys.executable, "-c", script, str(path)], check=True)
