"""Imports run one way, read from the syntax trees; and what the command line never needs, it never imports."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

LINE = ("errors", "files", "formulas", "layers", "language", "lowering", "graph", "passes", "report", "diagram", "cli")
RUNNING = ("kernels", "vocabulary", "decoding", "modules", "codegen", "verify")
ALLOWED = {room: {*LINE[:i]} for i, room in enumerate(LINE)}
ALLOWED |= {room: {*LINE[: LINE.index("report")], *RUNNING[:i]} for i, room in enumerate(RUNNING)}
ALLOWED["kernels"] = set()
ALLOWED["cli"] |= {"report"}
ALLOWED["__main__"] = {"cli"}
TORCH_FREE = {*LINE, "__init__", "__main__"}
THRESHOLDS = "archspec.kernels.thresholds"  # numbers alone, which the formulas of memory share with the kernels
HEAVY = ("networkx", "torch", "pydantic", "libcst", "yaml")

FILES = {
    **{".".join(p.with_suffix("").parts): p for p in Path("archspec").rglob("*.py")},
    **{".".join(("archspec", *p.with_suffix("").parts)): p for p in Path("kernels").rglob("*.py")},
}
MODULES = {name.removesuffix(".__init__"): path for name, path in FILES.items()}


def room(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def imported(nodes: list[ast.stmt] | ast.AST, module: str) -> Iterator[str]:
    """The modules that some statements import, with every name that is itself a module."""
    for node in ast.walk(nodes if isinstance(nodes, ast.AST) else ast.Module(nodes, [])):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively"
            inner = [f"{node.module}.{alias.name}" for alias in node.names if node.module != "archspec"]
            found = [name for name in inner if name in MODULES]
            yield from found or [str(node.module)]


def at_import(module: str) -> set[str]:
    """What is imported when the module is: not in functions, not for type checkers alone."""
    tree = ast.parse(MODULES[module].read_text())
    run = [
        node
        for node in tree.body
        if not isinstance(node, ast.FunctionDef)
        and not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    ]
    return {name for name in imported(run, module) if name in MODULES and name != module}


def anywhere(module: str) -> set[str]:
    return set(imported(ast.parse(MODULES[module].read_text()), module))


@pytest.mark.parametrize("module", sorted(m for m in MODULES if m != "archspec"))
def test_imports_run_one_way(module: str) -> None:
    own = room(module)
    wanted = {room(name) for name in anywhere(module) if name.startswith("archspec.") and name != THRESHOLDS}
    assert wanted <= ALLOWED[own] | {own}, f"{own} may not import {wanted - ALLOWED[own] - {own}}"


@pytest.mark.parametrize("module", sorted(m for m in MODULES if room(m) not in ("cli", "__init__")))
def test_only_the_command_line_uses_the_public_names(module: str) -> None:
    assert "archspec" not in anywhere(module)


@pytest.mark.parametrize(
    "module", sorted(m for m in MODULES if room(m) in TORCH_FREE or m in (THRESHOLDS, "archspec.kernels"))
)
def test_what_answers_without_a_model_never_imports_torch(module: str) -> None:
    roots = {name.split(".")[0] for name in anywhere(module)}
    assert not roots & {"torch", "triton", "transformers"}


COMPONENTS = [m for m in MODULES if m.startswith("archspec.layers.") and m.count(".") == 3 and ".ops." not in m]


@pytest.mark.parametrize("module", sorted(COMPONENTS))
def test_layers_do_not_import_one_another(module: str) -> None:
    shared = {
        f"archspec.layers.{name}"
        for name in ("base", "fields", "ops", "recurrent", "routing", "starting", "vocabulary")
    } | {"archspec.errors"}
    assert {name for name in anywhere(module) if name.startswith("archspec")} <= shared


def test_the_public_package_imports_nothing_at_once() -> None:
    assert at_import("archspec") == set()


def test_no_import_cycles() -> None:
    list(TopologicalSorter({module: at_import(module) for module in MODULES}).static_order())


def loaded(code: str) -> set[str]:
    """The heavy packages that a new process has imported after running some code."""
    script = f"import sys\n{code}\nprint('loaded:', *(m for m in {HEAVY!r} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.rpartition("loaded:")[2].split())


def command(*arguments: str) -> str:
    return f"from archspec.cli import main\nmain({list(arguments)!r}, standalone_mode=False)"


@pytest.mark.parametrize("argument", ["--help", "--version"])
def test_help_imports_nothing_heavy(argument: str) -> None:
    assert (
        loaded(f"try:\n    import archspec.cli\n    archspec.cli.main([{argument!r}])\nexcept SystemExit: pass")
        == set()
    )


def test_importing_the_package_imports_nothing_heavy() -> None:
    assert loaded("import archspec") == set()


def test_counting_imports_no_torch_libcst_or_networkx() -> None:
    assert loaded(command("count", "specs/bert_tiny.yaml")) == {"pydantic", "yaml"}


@pytest.mark.parametrize("module", sorted(MODULES))
def test_triton_and_numba_stay_in_their_rooms(module: str) -> None:
    packages = {name.split(".")[0] for name in anywhere(module)}
    assert "triton" not in packages or module.startswith("archspec.kernels.gpu."), "Triton belongs in kernels/gpu"
    assert "numba" not in packages or module.startswith("archspec.kernels.cpu."), "Numba belongs in kernels/cpu"
    for device in ("gpu", "cpu"):  # reached through backend, so that neither has to be installed
        inside = module.startswith(f"archspec.kernels.{device}")
        assert inside or not any(name.startswith(f"archspec.kernels.{device}") for name in anywhere(module))


def test_names_of_test_files_are_unique() -> None:
    """pytest imports them by name alone."""
    names = [path.name for path in Path("tests").rglob("test_*.py")]
    assert sorted({name for name in names if names.count(name) > 1}) == []
