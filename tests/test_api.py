"""The public names."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import archspec


def test_all_is_sorted_and_complete() -> None:
    assert archspec.__all__ == sorted(archspec.__all__)
    assert set(archspec.__all__) <= set(dir(archspec))
    public = {name for names in archspec._HOMES.values() for name in names}
    assert set(archspec.__all__) == public


@pytest.mark.parametrize("name", archspec.__all__)
def test_every_public_name_is_there_and_says_what_it_is(name: str) -> None:
    value = getattr(archspec, name)
    assert callable(value)
    assert value.__doc__


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'archspec' has no attribute 'conut'"):
        archspec.conut  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.parametrize("name", ["diagram", "verify"])
def test_a_module_of_the_same_name_does_not_hide_a_function(name: str) -> None:
    importlib.import_module(f"archspec.{name}")
    assert callable(getattr(archspec, name))


def test_the_readme_of_the_package_is_true() -> None:
    spec = archspec.load("specs/bert_tiny.yaml")
    assert isinstance(spec, archspec.Spec)
    assert archspec.count(spec).total == 1253
    assert archspec.loads(archspec.show(spec)) == spec


def test_version_is_that_of_the_distribution() -> None:
    from importlib.metadata import version

    assert archspec.__version__ == version("archspec-compiler")


@pytest.mark.parametrize("name", ["build", "verify"])
def test_without_pytorch_the_error_says_what_to_install(name: str) -> None:
    script = (
        "import sys; sys.modules['torch'] = None\n"
        "import archspec\n"
        f"try: archspec.{name}\n"
        "except archspec.ArchspecError as error: print(isinstance(error, ImportError), error)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == f"True archspec.{name} needs PyTorch: pip install 'archspec-compiler[torch]'\n"


def test_runs_as_a_module() -> None:
    done = subprocess.run([sys.executable, "-m", "archspec", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"archspec {archspec.__version__}\n"


def test_earlier_stacks_are_given_no_decoding_state() -> None:
    torch = pytest.importorskip("torch")
    attention = {"kind": "attention", "n_heads": 2}
    stacks = {
        "a": {"blocks": [{"mixer": "mamba"}, {"mixer": {**attention, "position": {"kind": "t5"}}}]},
        "b": {"memory": "a", "blocks": [{"mixer": attention, "cross": attention}]},
    }
    spec = archspec.load({"d_model": 16, "vocab_size": 11, "max_seq_len": 32, "stacks": stacks, "head": "lm"})
    text = archspec.generate(spec)
    assert 'substate(state, "a")' not in text
    tokens = torch.randint(11, (2, 5))
    for model in (archspec.build(spec).eval(), importlib.import_module("archspec.modules.model").eager(spec).eval()):
        state: dict[str, object] = {}
        with torch.no_grad():
            whole = model(tokens, tokens)
            parts = [model(tokens, tokens[:, i : i + 1], state=state) for i in range(5)]
        torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=0, atol=1e-5)
        assert sorted(state) == ["a_output", "b"]


@pytest.mark.parametrize("name", ["count", "generate", "build", "diagram"])
@pytest.mark.parametrize("path", ["specs/gpt2.yaml", Path("specs/gpt2.yaml")])
def test_a_path_is_no_spec(name: str, path: object) -> None:
    with pytest.raises(
        TypeError, match=r"expected a Spec, found 'specs/gpt2.yaml': pass archspec.load\('specs/gpt2.yaml'\)"
    ):
        getattr(archspec, name)(path)


def test_anything_else_is_no_spec() -> None:
    with pytest.raises(TypeError, match=r"expected a Spec, found a dict: pass archspec.load\('...'\)"):
        archspec.count({"d_model": 8})  # type: ignore[arg-type]


def test_a_model_moves_the_biases_of_all_of_its_routers() -> None:
    torch = pytest.importorskip("torch")
    moe = {"kind": "moe", "n_experts": 4, "top_k": 1, "d_ff": 8, "score": "sigmoid", "correction_bias": True}
    spec = archspec.load({"d_model": 16, "vocab_size": 11, "blocks": [{"repeat": 2, "ffn": moe}], "head": "lm"})
    for model in (archspec.build(spec).train(), importlib.import_module("archspec.modules.model").eager(spec).train()):
        first, second = {}, {}
        for aux in (first, second):
            model(torch.randint(11, (2, 9)), aux=aux)
        model.update_bias(first, second)
        assert [bool(b.any()) for n, b in model.named_buffers() if n.endswith("correction_bias")] == [True, True]
    assert "update_bias" not in archspec.generate(archspec.load("specs/gpt2.yaml"))


def test_a_printed_count_says_of_how_many_sequences_its_bytes_are() -> None:
    spec = archspec.load("specs/bytes_hybrid.yaml")
    one, four = str(archspec.count(spec)), str(archspec.count(spec, batch=4))
    assert "sequence" not in one
    assert "bytes a token of each sequence and" in four
    assert "bytes of state of 4 sequences" in four
