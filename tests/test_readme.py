"""Every command of the README runs, from a wheel in an environment that has only the declared dependencies."""

import importlib.metadata
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def commands(program: str) -> list[str]:
    """The indented lines of the README that call a program, without their comments."""
    lines = re.findall(rf"^    ({program} .*)$", README, re.MULTILINE)
    return [line.partition("#")[0].strip() for line in lines]


def closure(requirements: list[str]) -> set[str]:
    """The names of the installed distributions that these need, all the way down."""
    found: set[str] = set()
    waiting = [Requirement(r) for r in requirements]
    while waiting:
        requirement = waiting.pop()
        name = requirement.name.lower().replace("_", "-")
        if name in found or (requirement.marker and not any(
            requirement.marker.evaluate({"extra": e}) for e in (*requirement.extras, "")
        )):  # fmt: skip
            continue
        try:
            more = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # a platform's own extra, which this machine does without
        found.add(name)
        waiting += [Requirement(r) for r in more]
    return found


def link_distribution(name: str, target: Path) -> None:
    """Make an installed distribution importable from `target`."""
    dist = importlib.metadata.distribution(name)
    for top in {Path(str(f)).parts[0] for f in dist.files or [] if ".." not in str(f)}:
        source = Path(str(dist.locate_file(top)))
        if source.exists() and not (target / top).exists():
            (target / top).symlink_to(source)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel and what the wheel says it needs; returns its folder of programs."""
    folder = tmp_path_factory.mktemp("bare")
    source = folder / "source"
    ignored = shutil.ignore_patterns(".*", "build", "*.egg-info", "out", "__pycache__")
    shutil.copytree(ROOT, source, ignore=ignored)
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(source)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "env", with_pip=False)
    python = folder / "env" / "bin" / "python"
    site = next((folder / "env" / "lib").glob("python*/site-packages"))
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(pip, check=True, capture_output=True)
    (metadata,) = site.glob("archspec_compiler-*.dist-info")
    needs = importlib.metadata.Distribution.at(metadata).requires or []
    wanted = [r for r in needs if "extra" not in r or 'extra == "torch"' in r]
    for name in closure([r.partition(";")[0] for r in wanted]):
        link_distribution(name, site)
    return python.parent


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the specs, where the README's commands find what they name."""
    folder = tmp_path_factory.mktemp("workplace")
    shutil.copytree(ROOT / "specs", folder / "specs")
    return folder


def run(command: list[str], cwd: Path) -> "subprocess.CompletedProcess[str]":
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done


def test_the_archspec_commands(bare: Path, workplace: Path) -> None:
    found = commands("archspec")
    assert len(found) >= 10
    for command in found:
        if " render " in command and shutil.which("dot") is None:
            command = command.replace(".svg", ".dot")
        run([str(bare / "archspec"), *command.split()[1:]], workplace)
    assert (workplace / "model.py").read_text().startswith('"""bert_tiny: 1,253 parameters.')


@pytest.mark.parametrize("example", re.findall(r"```python\n(.*?)```", README, re.DOTALL))
def test_the_python_examples(bare: Path, workplace: Path, example: str) -> None:
    done = run([str(bare / "python"), "-c", example], workplace)
    for said in re.findall(r"^print.*  # (.*)$", example, re.MULTILINE):
        assert said in done.stdout.splitlines()


def test_the_yaml_example(bare: Path, workplace: Path) -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    (workplace / "example.yaml").write_text(example)
    for command in (["validate", "example.yaml"], ["verify", "example.yaml"]):
        run([str(bare / "archspec"), *command], workplace)


def test_the_wheel_says_what_it_is_and_under_which_license(bare: Path) -> None:
    site = next((bare.parent / "lib").glob("python*/site-packages"))
    assert (site / "archspec" / "py.typed").is_file()  # type checkers read the annotations of an installed package
    (folder,) = site.glob("archspec_compiler-*.dist-info")
    metadata = importlib.metadata.Distribution.at(folder).metadata
    assert metadata["License-Expression"] == "Apache-2.0"
    assert (folder / "licenses" / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
    classifiers = metadata.get_all("Classifier") or []
    assert "Typing :: Typed" in classifiers
    assert not [c for c in classifiers if c.startswith("License ::")]  # which the expression replaces
    assert metadata.get_all("Project-URL") is None  # there is no public host to name


def test_counting_works_without_torch(bare: Path, workplace: Path) -> None:
    code = "import sys; sys.modules['torch'] = None; from archspec.cli import main; main()"
    done = run([str(bare / "python"), "-c", code, "count", "specs/bert_tiny.yaml"], workplace)
    assert "1,253" in done.stdout


@pytest.mark.parametrize("target", ["demo", "test"])
def test_the_make_targets_exist(target: str) -> None:
    assert f"make {target}" in README
    run(["make", "-n", target], ROOT)
