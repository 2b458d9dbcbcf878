"""Collects the classes, helpers, constants and imports of one generated file, and writes it."""

import re
import sys
from typing import Any

import libcst as cst
import libcst.matchers as m

from archspec.codegen.layout import Refitted, WithoutCounting, code, folded_docstring
from archspec.codegen.names import Constants, class_names, stack_names, uses
from archspec.codegen.sources import KERNELS, definition, free_names, home, source
from archspec.codegen.specialise import specialise
from archspec.errors import GenerateError
from archspec.language.model import Block, Spec
from archspec.layers.base import Component

Import = tuple[str, str, str]  # module, name in it ("" for the module itself), name here


class Writer:
    """One file in the making. Definitions stand in the order in which they must: what is used first comes first."""

    def __init__(self, spec: Spec, standalone: bool):
        self.spec, self.standalone = spec, standalone
        found = uses(spec)
        self.names: dict[Component | Block, str] = class_names(spec, found)
        self.stack_names = stack_names(spec, self.names.values())
        self.constants = Constants(spec, found, self.names)
        self.mentioned: dict[str, int] = {}  # sizes in comments and docstrings
        self.parts: dict[str, str] = {}
        self.origins: dict[str, tuple[str, str]] = {}  # helper in the file -> where it comes from
        self.imports: set[Import] = set()

    # What the specialiser asks

    def constant(self, c: Component, field: str, value: float) -> str | None:
        """The constant for `c.field`."""
        return self.constants.name(c, field, value)

    def instance(self, child: Component, parent: Component) -> str:
        """The class of a sub-layer, written when it is first needed."""
        return self.layer(child)

    def prose(self, text: str, c: Component) -> str:
        """Sizes in comments and docstrings by the names of their constants; only where a word is plainly a size."""

        def rename(word: "re.Match[str]") -> str:
            name = word[0]
            is_size = name in type(c).model_fields or isinstance(getattr(type(c), name, None), property)
            value = getattr(c, name) if is_size else None
            if not isinstance(value, int) or isinstance(value, bool):
                return name
            constant = self.constants.peek(c, name)
            self.mentioned[constant] = value
            return constant

        text = re.sub(r"\([^()]*\)", lambda shape: re.sub(r"\b[a-z_]+\b", rename, shape[0]), text)
        return re.sub(r"\b[a-z]+(?:_[a-z]+)+\b", rename, text)

    # Definitions

    def layer(self, c: Component) -> str:
        """The class of a component, specialised to it; returns its name."""
        name = self.names[c]
        if name not in self.parts:
            module = type(c).__module__.replace("archspec.layers.", "archspec.modules.")
            node: Any = definition(module, type(c).__name__)
            if not self.decodes(c):
                node = node.visit(WithoutCounting())
            done = specialise(node, c, self, f"{module}.{type(c).__name__}")
            self.add(name, done.with_changes(name=cst.Name(name)), module)
        return name

    def decodes(self, c: Component) -> bool:
        """Whether a layer may be given a state; an embedding is not where its stack has none."""
        stacks = [s for s in self.spec.stacks if s.embedding == c]
        return not stacks or any(map(self.spec.decodes, stacks))

    def function(self, c: Component, name: str) -> str:
        """A function with the config as its last parameter, specialised to it (how weights start)."""
        if name not in self.parts:
            module = type(c).__module__.replace("archspec.layers.", "archspec.modules.")
            self.add(name, specialise(definition(module, name), c, self, f"{module}.{name}"), module)
        return name

    def add(self, name: str, node: Any, module: str) -> None:
        """A definition and, before it, what it needs."""
        self.parts[name] = ""  # a place that breaks cycles; the order is by completion
        node = self.require(node, module, {name, *self.names.values()})
        del self.parts[name]
        text = code(node.with_changes(leading_lines=[]) if hasattr(node, "leading_lines") else node).strip()
        self.parts[name] = "\n".join(map(folded_docstring, text.splitlines()))

    def require(self, node: Any, module: str, own: set[str]) -> Any:
        """Bring along what a definition refers to; returns it with helpers called as they are called here."""
        renamed: dict[str, str] = {}
        for name in free_names(node):
            if name in own:
                continue
            origin = home(module, name)
            if origin is not None and (self.standalone or not origin[0].startswith(KERNELS)):
                here = self.helper(*origin)
                if here != name:
                    renamed[name] = here
            elif origin is not None:
                self.imports.add((*origin, name))
            elif name in source(module).imports:
                self.imports.add((*source(module).imports[name], name))
        if not renamed:
            return node
        rename: Any = lambda n, _: cst.Name(renamed[n.value])  # noqa: E731 - the library's own types say too little
        done: Any = m.replace(node, m.Name(m.MatchIfTrue(renamed.__contains__)), rename)
        return done.visit(Refitted())

    def helper(self, module: str, name: str) -> str:
        """A helper function or value, copied; returns what it is called here."""
        here = name
        if name in self.constants.possible:  # a size may have that name, whether it is written already or not
            here = f"{module.rsplit('.', 1)[-1]}_{name}".upper()
        elif name in self.parts and self.origins.get(name) != (module, name):
            here = f"_{module.rsplit('.', 1)[-1]}_{name.lstrip('_')}"
            here = here.strip("_").upper() if name.isupper() else here
        if here in self.parts:
            return here
        self.origins[here] = (module, name)
        found = source(module)
        if name not in found.statements:
            raise GenerateError(f"{module} defines no {name}")
        node = found.statements[name]
        if here != name:
            renamed: Any = m.replace(node, m.Name(name), cst.Name(here))
            node = renamed.visit(Refitted())
        self.add(here, node, module)
        for i, statement in enumerate(found.after.get(name, ())):
            if here != name:
                statement = m.replace(statement, m.Name(name), cst.Name(here))
            self.add(f"{here} {i}", statement, module)
        return here

    # The file

    def need(self, module: str, name: str) -> None:
        """Import a name that structural code uses, or copy it when the file stands alone."""
        if self.standalone and module.startswith(KERNELS):
            self.helper(module, name)
        else:
            self.imports.add((module, name, name or module))

    def text(self, banner: str) -> str:
        """The whole file."""
        body = "".join(self._spaced())
        for name in self.mentioned.keys() - self.constants.used.keys():  # no code has it: its value says more
            body = re.sub(rf"\b{name}\b", str(self.mentioned[name]), body)
        sizes = [
            size_line(name, value, note)
            for name, (value, note) in self.constants.used.items()
            if re.search(rf"\b{name}\b", body)
        ]
        head = [f'"""{banner}"""', "", *self._import_lines(body)]
        if sizes:
            head += ["", *sizes]
        return "\n".join(head) + "\n" + body

    def _spaced(self) -> list[str]:
        texts = []
        previous_flat = False
        for part in self.parts.values():
            flat = "\n" not in part and not part.startswith(("def ", "class ", "@"))
            texts.append(("\n" if flat and previous_flat else "\n\n") + part + "\n")
            previous_flat = flat
        return texts

    def _import_lines(self, body: str) -> list[str]:
        def group(i: Import) -> int:
            top = i[0].split(".")[0]
            return 0 if top in sys.stdlib_module_names else 2 if top == "archspec" else 1

        kept = [i for i in self.imports if re.search(rf"\b{re.escape(i[2].split('.')[0])}\b", body)]
        lines: list[str] = []
        last = None
        for number in range(3):
            modules = sorted({i[0] for i in kept if group(i) == number})
            plain = [n for n in modules if any(i[0] == n and not i[1] for i in kept)]
            straight = [
                self._import(n, alias) for n in plain for alias in sorted(i[2] for i in kept if i[0] == n and not i[1])
            ]
            froms = [self._from(n, kept) for n in modules if any(i[0] == n and i[1] for i in kept)]
            if straight or froms:
                lines += [""] if last is not None else []
                lines += straight + froms
                last = number
        return lines

    def _import(self, module: str, alias: str) -> str:
        return f"import {module}" if alias == module else f"import {module} as {alias}"

    def _from(self, module: str, kept: list[Import]) -> str:
        names = sorted({(i[1], i[2]) for i in kept if i[0] == module and i[1]}, key=lambda n: _isort(n[0]))
        inside = ", ".join(name if name == alias else f"{name} as {alias}" for name, alias in names)
        return f"from {module} import {inside}"


def size_line(name: str, value: float, note: str) -> str:
    """A constant with its meaning behind it, or above it where the line would be too long."""
    line = f"{name} = {value!r}  # {note}"
    return line if len(line) <= 120 else f"# {note}\n{name} = {value!r}"


def _isort(name: str) -> tuple[int, str]:
    """Constants, then classes, then functions, each in alphabetical order: what ruff's isort rule wants."""
    kind = 0 if name.isupper() and len(name) > 1 else 1 if name[:1].isupper() else 2
    return kind, name
