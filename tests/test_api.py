"""The public names."""

import importlib
import subprocess
import sys

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


@pytest.mark.parametrize("name", ["render", "verify"])
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


def test_runs_as_a_module() -> None:
    done = subprocess.run([sys.executable, "-m", "archspec", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"archspec {archspec.__version__}\n"
