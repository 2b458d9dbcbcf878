"""Collects the classes, helpers, constants and imports of one generated file, and writes it."""

import re
from collections.abc import Collection
from typing import Any

import libcst as cst
import libcst.matchers as m

from archspec.codegen.constants import Constants
from archspec.codegen.decide import written
from archspec.codegen.defaults import lookup_in
from archspec.codegen.folding import comment, filled, folded
from archspec.codegen.imports import Import, import_lines
from archspec.codegen.layout import WIDTH
from archspec.codegen.names import camel, class_names, free, stack_names, uses
from archspec.codegen.prune import WithoutCounting
from archspec.codegen.reserved import ALWAYS, STRUCTURAL, definitions, variables
from archspec.codegen.sources import KERNELS, code, definition, free_names, home, module_of, source
from archspec.codegen.specialise import specialise
from archspec.errors import GenerateError
from archspec.language.model import Block, Spec
from archspec.layers.base import Component


class Writer:
    """One file in the making. Definitions stand in the order in which they must: what is used first comes first.

    No two things have the same name: classes and constants are named first, unlike all that their source and every
    file needs; helpers and imports that come later take another name where theirs is gone.
    """

    def __init__(self, spec: Spec, standalone: bool):
        self.spec, self.standalone = spec, standalone
        found = uses(spec)
        components = [c for c in found if isinstance(c, Component)]
        kinds = {type(c).__name__ for c in components}
        defined = {*ALWAYS, *definitions(components, standalone)} - kinds
        self.reserved = {*defined, *variables(components)} - kinds
        self.names: dict[Component | Block, str] = class_names(spec, found, self.reserved)
        classes = set(self.names.values())
        self.constants = Constants(spec, found, self.names, {*self.reserved, *classes})
        self.stack_names = stack_names(spec, {*self.reserved, *classes, *self.constants.possible})
        self.chosen = {*classes, *self.constants.possible, *self.stack_names.values()}
        self.taken = {*defined, *self.chosen}
        self.mentioned: dict[str, float] = {}  # sizes in comments and docstrings
        self.parts: dict[str, str] = {}
        self.globals = dict(STRUCTURAL)  # what a name of the file means: (module, name in it)
        self.imports: set[Import] = set()

    def local(self, wished: str, taken: Collection[str] = ()) -> str:
        """A name for a local variable of a printed function: the wished one, or that with a _ (and a number) behind it.

        Args:
            wished: what it would best be called.
            taken: other variables and parameters of the same function.

        Returns:
            A name that is no constant, class, helper or import of the file, no builtin and no word of Python, so that
            nothing that the function calls is hidden.
        """
        return free(wished, {*self.taken, *self.globals, *taken})

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
            if constant is None:
                return str(value)
            self.mentioned[constant] = value
            return constant

        text = re.sub(r"\([^()]*\)", lambda shape: re.sub(r"\b[a-z_]+\b", rename, shape[0]), text)
        return re.sub(r"\b[a-z]+(?:_[a-z]+)+\b", rename, text)

    # Definitions

    def layer(self, c: Component) -> str:
        """The class of a component, specialised to it; returns its name."""
        name = self.names[c]
        if name not in self.parts:
            node: Any = definition(module_of(c), type(c).__name__)
            if not self.decodes(c):
                node = node.visit(WithoutCounting())
            done = self.specialised(node, c, type(c).__name__)
            self.add(name, done.with_changes(name=cst.Name(name)), module_of(c))
        return name

    def specialised(self, node: Any, c: Component, name: str) -> Any:
        """A class or function of the file of a component, for its config."""
        module = module_of(c)
        where = f"{module.replace('.', '/')}.py"
        return specialise(node, c, self, where, source(module).line(name), lookup_in(module))

    def decodes(self, c: Component) -> bool:
        """Whether a layer may be given a state; an embedding is not where its stack has none."""
        stacks = [s for s in self.spec.stacks if s.embedding == c]
        return not stacks or any(map(self.spec.decodes, stacks))

    def function(self, c: Component, name: str) -> str:
        """A function with the config as its last parameter, specialised to it (how weights start)."""
        if name not in self.parts:
            self.add(name, self.specialised(definition(module_of(c), name), c, name), module_of(c))
        return name

    def add(self, name: str, node: Any, module: str) -> None:
        """A definition and, before it, what it needs."""
        self.parts[name] = ""  # a place that breaks cycles; the order is by completion
        node = self.require(node, module, {name, *self.names.values()})
        del self.parts[name]
        self.parts[name] = code(node.with_changes(leading_lines=[]) if hasattr(node, "leading_lines") else node).strip()

    def require(self, node: Any, module: str, own: set[str]) -> Any:
        """Bring along what a definition refers to; returns it with helpers and imports called as they are here."""
        renamed: dict[str, str] = {}
        for name in free_names(node):
            if name in own:
                continue
            origin = home(module, name)
            if origin is not None and (self.standalone or not origin[0].startswith(KERNELS)):
                here = self.helper(*origin)
            elif origin is not None or name in source(module).imports:
                here = self.imported(name, *(origin or source(module).imports[name]))
            else:
                continue
            if here != name:
                renamed[name] = here
        if not renamed:
            return node
        rename: Any = lambda n, _: cst.Name(renamed[n.value])  # noqa: E731 - the library's own types say too little
        return m.replace(node, m.Name(m.MatchIfTrue(renamed.__contains__)), rename)

    def imported(self, name: str, module: str, original: str) -> str:
        """An import, under its own name unless that means something else here; returns what it is called."""
        here = self.claimed(name, module, original)
        self.imports.add((module, original, here))
        return here

    def claimed(self, name: str, module: str, original: str) -> str:
        """The name that something of another module has in this file: its own, or with the module's before it."""
        origin = (module, original)
        named = f"{module.rsplit('.', 1)[-1]}_{name.lstrip('_')}"
        is_class = name[:1].isupper() and not name.isupper()
        for wished in (name, named.upper() if name.isupper() else camel(named) if is_class else f"_{named}"):
            if wished not in self.chosen and self.globals.setdefault(wished, origin) == origin:
                return wished
        here = free(wished, {*self.chosen, *self.globals})
        self.globals[here] = origin
        return here

    def helper(self, module: str, name: str) -> str:
        """A helper function or value, copied; returns what it is called here."""
        here = self.claimed(name, module, name)
        if here in self.parts:
            return here
        found = source(module)
        if name not in found.statements:
            raise GenerateError(f"{module} defines no {name}")
        for i, statement in enumerate([found.statements[name], *found.after.get(name, ())]):
            node: Any = statement if here == name else m.replace(statement, m.Name(name), cst.Name(here))
            self.add(f"{here} {i}" if i else here, node, module)
        return here

    # The file

    def need(self, module: str, name: str) -> str:
        """Import a name that structural code uses, or copy it when the file stands alone; returns what it is called."""
        if self.standalone and module.startswith(KERNELS):
            return self.helper(module, name)
        return self.imported(name or module, module, name)

    def text(self, banner: str) -> str:
        """The whole file."""
        body = "".join(self._spaced())
        sizes = [
            size_line(name, value, note)
            for name, (value, note) in self.constants.used.items()
            if re.search(rf"\b{name}\b", body)
        ]
        title = [line for said in banner.split("\n") for line in filled(said, WIDTH - 3) or [""]]
        head = ['"""' + "\n".join(title) + '"""', "", *import_lines(self.imports, body)]
        if sizes:
            head += ["", *sizes]
        return "\n".join(head) + "\n" + body

    def _spaced(self) -> list[str]:
        texts = []
        previous_flat = False
        unnamed = {name: self.mentioned[name] for name in self.mentioned.keys() - self.constants.used.keys()}
        for part in self.parts.values():
            # A size that no code has says more by its value.
            said = re.sub(r"\b[A-Z][A-Z0-9_]*\b", lambda w: str(unnamed.get(w[0], w[0])), part)
            flat = "\n" not in part and not part.startswith(("def ", "class ", "@"))
            texts.append(("\n" if flat and previous_flat else "\n\n") + folded(said) + "\n")
            previous_flat = flat
        return texts


def size_line(name: str, value: float, note: str) -> str:
    """A constant with its meaning behind it, or above it where the line would be too long."""
    line = f"{name} = {written(value)}"
    whole = f"{line}  # {note}"
    return whole if len(whole) <= WIDTH else "\n".join([*comment(note), line])
