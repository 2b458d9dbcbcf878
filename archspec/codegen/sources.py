"""Where definitions come from: the statements of archspec's own modules, as concrete syntax with their comments."""

import ast
from functools import cache, cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import libcst as cst
import libcst.matchers as m

from archspec.errors import GenerateError
from archspec.layers.base import Component

Form = Literal["package", "plain", "fast"]  # of a file: what it takes the place of kernels
MODULES, KERNELS = "archspec.modules", "archspec.kernels"
PLAIN = f"{KERNELS}.plain"  # what kernels compute, as one would write it for a single model


class Source:
    """One module of archspec, parsed once."""

    def __init__(self, name: str):
        self.name = name
        self.text = path_of(name).read_text(encoding="utf-8")
        self.tree = cst.parse_module(self.text)
        self.statements: dict[str, Any] = {}
        self.after: dict[str, list[Any]] = {}  # statements that speak of a definition, such as a registration
        self.imports: dict[str, tuple[str, str]] = {}  # bound name -> (module, name in it or "")
        for statement in self.tree.body:
            self._take(statement)

    @cached_property
    def syntax(self) -> ast.Module:
        """The same as abstract syntax."""
        return ast.parse(self.text)

    def line(self, name: str) -> int:
        """The number of the first line of a definition, decorators and comments above it included."""
        return self.text[: self.text.index(code(self.statements[name]).strip())].count("\n") + 1

    def _take(self, statement: Any) -> None:
        if isinstance(statement, cst.FunctionDef | cst.ClassDef):
            about = [d for d in statement.decorators if self._speaks_of(d)]
            if about:
                self.after.setdefault(self._speaks_of(about[0]), []).append(statement)
            else:
                self.statements[statement.name.value] = statement
        elif isinstance(statement, cst.SimpleStatementLine):
            for small in statement.body:
                self._take_small(statement, small)

    def _take_small(self, statement: Any, small: Any) -> None:
        if isinstance(small, cst.Import | cst.ImportFrom):
            for node in ast.walk(ast.parse(code(statement).strip())):
                if isinstance(node, ast.ImportFrom):
                    self.imports |= {a.asname or a.name: (node.module or "", a.name) for a in node.names}
                elif isinstance(node, ast.Import):
                    self.imports |= {a.asname or a.name: (a.name, "") for a in node.names}
        elif isinstance(small, cst.Assign):
            for target in small.targets:
                for name in m.findall(target.target, m.Name()):
                    self.statements[name.value] = statement  # type: ignore[attr-defined]
        elif isinstance(small, cst.AnnAssign) and isinstance(small.target, cst.Name):
            self.statements[small.target.value] = statement
        elif isinstance(small, cst.Expr) and self._speaks_of(small):
            self.after.setdefault(self._speaks_of(small), []).append(statement)

    def _speaks_of(self, node: Any) -> str:
        """The definition that a decorator or a bare call starts with: `op.register_fake` speaks of op."""
        for call in m.findall(node, m.Attribute(value=m.Name())):
            name = call.value.value  # type: ignore[attr-defined]
            if name in self.statements:
                return str(name)
        return ""


def path_of(name: str) -> Path:
    """The file of a module of archspec, found without importing it: generating code needs no torch."""
    package = KERNELS if name.startswith(KERNELS) else "archspec"
    found = find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise GenerateError(f"{package} is not installed")
    return Path(found.submodule_search_locations[0], *name.removeprefix(package).strip(".").split(".")).with_suffix(
        ".py"
    )


def module_of(c: Component) -> str:
    """The module of archspec that runs a component."""
    return type(c).__module__.replace("archspec.layers.", f"{MODULES}.")


@cache
def source(name: str) -> Source:
    """The parsed source of a module of archspec."""
    return Source(name)


def definition(module: str, name: str) -> Any:
    """The class or function of that name."""
    found = source(module).statements.get(name)
    if not isinstance(found, cst.ClassDef | cst.FunctionDef):
        raise GenerateError(f"{module} defines no {name}")
    return found


def home(module: str, name: str) -> tuple[str, str] | None:
    """The module of archspec that defines what `name` means in `module`, or None when it comes from outside."""
    here = source(module)
    if name in here.statements:
        return module, name
    if name in here.imports:
        origin, original = here.imports[name]
        if original and origin.startswith((MODULES + ".", KERNELS + ".")):
            return origin, original
    return None


def origin_of(module: str, name: str) -> tuple[str, str]:
    """Where what a module calls `name` is defined: in it, or in one from which it hands it on."""
    while path_of(module).is_file() and name not in source(module).statements:
        place = home(module, name)
        if place is None:
            break
        module, name = place
    return module, name


def copied_from(module: str, form: Form) -> str | None:
    """The module whose definitions a file of a form copies in place of those of `module`; None where it imports them.

    The plain form of `archspec.kernels.<room>.<family>` is `archspec.kernels.plain.<family>`, name by name.
    """
    if not module.startswith(KERNELS) or form == "fast":
        return module
    return f"{PLAIN}.{module.rpartition('.')[2]}" if form == "plain" else None


def code(node: cst.CSTNode) -> str:
    """The text of a node."""
    return cst.Module([]).code_for_node(node)


def free_names(node: cst.CSTNode) -> list[str]:
    """Names that a definition reads, in a stable order; attribute names and keywords are not names."""
    tree = ast.parse(code(node).strip())
    return sorted({n.id for n in ast.walk(tree) if isinstance(n, ast.Name)})
