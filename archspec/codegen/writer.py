"""Collects the classes, helpers, constants and imports of one generated file, and writes it."""

import ast
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import libcst as cst
import libcst.matchers as m

from archspec.codegen.constants import Constants
from archspec.codegen.decide import written
from archspec.codegen.defaults import lookup_in
from archspec.codegen.folding import comment, filled, folded
from archspec.codegen.given import facts_by_component, usual_facts
from archspec.codegen.imports import Import, import_lines
from archspec.codegen.layout import WIDTH
from archspec.codegen.names import camel, class_names, free, stack_names, uses
from archspec.codegen.prune import WithoutCounting
from archspec.codegen.reserved import ALWAYS, STRUCTURAL, definitions, variables
from archspec.codegen.shorten import shorten
from archspec.codegen.sources import (
    KERNELS,
    Form,
    Source,
    code,
    copied_from,
    definition,
    free_names,
    home,
    module_of,
    origin_of,
    path_of,
    source,
)
from archspec.codegen.specialise import specialise
from archspec.errors import GenerateError
from archspec.language.model import Block, Spec
from archspec.layers.base import Component, MixerComponent
from archspec.layers.ops import Attend, LatentAttend


class Writer:
    """One file in the making. Definitions stand in the order in which they must: what is used first comes first.

    No two things have the same name: classes and constants are named first, unlike all that their source and every
    file needs; helpers and imports that come later take another name where theirs is gone.
    """

    def __init__(self, spec: Spec, form: Form = "package"):
        self.spec, self.form = spec, form
        found = uses(spec)
        components = [c for c in found if isinstance(c, Component)]
        kinds = {type(c).__name__ for c in components}
        defined = {*ALWAYS, *definitions(components, form)} - kinds
        self.reserved = {*defined, *variables(components)} - kinds
        self.names: dict[Component | Block, str] = class_names(spec, found, self.reserved)
        classes = set(self.names.values())
        self.constants = Constants(spec, found, self.names, {*self.reserved, *classes})
        self.stack_names = stack_names(spec, {*self.reserved, *classes, *self.constants.possible})
        self.chosen = {*classes, *self.constants.possible, *self.stack_names.values()}
        self.taken = {*defined, *self.chosen}
        self.mentioned: dict[str, float] = {}  # sizes in comments and docstrings
        self.parts: dict[str, str] = {}
        # what a name of the file means: (module, name in it)
        self.globals = {name: self._origin(m, n) for name, (m, n) in STRUCTURAL.items()}
        self.helpers: set[str] = set()
        self.facts = facts_by_component(spec)
        self.takes: dict[Component, frozenset[str]] = {}  # what the forward of a layer takes in this file
        self.imports: set[Import] = set()

    def _origin(self, module: str, name: str) -> tuple[str, str]:
        """The module that this file takes a name of structural code from, and what it is called there."""
        copied = copied_from(module, self.form) if name else None
        return (module, name) if copied is None else origin_of(copied, name)

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
            self.takes[c] = forward_takes(done)
            if c.linked.get("gives"):
                done = giving(done, len(c.offers))
            self.add(name, done.with_changes(name=cst.Name(name)), module_of(c))
        return name

    def specialised(self, node: Any, c: Component, name: str) -> Any:
        """A class or function of the file of a component, for its config."""
        module = module_of(c)
        where = f"{module.replace('.', '/')}.py"
        facts = {"plain": self.form == "plain", **self.facts.get(c, usual_facts(self.spec))}
        return specialise(node, c, self, where, source(module).line(name), lookup_in(module), facts)

    def decodes(self, c: Component) -> bool:
        """Whether a layer may be given a state; what a stack has before its blocks is not where the stack has none."""
        stacks = [s for s in self.spec.stacks if c in (s.embedding, s.position_bias)]
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
            copied = None if origin is None else copied_from(origin[0], self.form)
            if origin is not None and copied is not None:
                here = self.helper(copied, origin[1])
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
        module, name = origin_of(module, name)
        found = self.source(module, name)
        if m.matches(found.statements[name], m.SimpleStatementLine([m.Assign(value=m.Name())])):
            origin = home(module, found.statements[name].body[0].value.value)
            if origin is not None:
                return self.helper(*origin)  # an alias is called what it stands for
        here = self.claimed(name, module, name)
        if here in self.parts:
            return here
        self.helpers.add(here)
        for i, statement in enumerate([found.statements[name], *found.after.get(name, ())]):
            node: Any = statement if here == name else m.replace(statement, m.Name(name), cst.Name(here))
            self.add(f"{here} {i}" if i else here, node, module)
        return here

    def source(self, module: str, name: str) -> Source:
        """The module that defines a name.

        Raises:
            GenerateError: it does not, as where a family has no plain form.
        """
        found = source(module) if path_of(module).is_file() else None
        if found is None or name not in found.statements:
            fast = "; standalone='fast' copies the family itself" if self.form == "plain" else ""
            raise GenerateError(f"{module} defines no {name}{fast}")
        return found

    # The file

    def need(self, module: str, name: str) -> str:
        """Import a name that structural code uses, or copy it when the file stands alone; returns what it is called."""
        copied = copied_from(module, self.form) if module.startswith(KERNELS) else None
        if copied is not None:
            return self.helper(copied, name)
        return self.imported(name or module, module, name)

    def text(self, banner: str) -> str:
        """The whole file."""
        sizes = {name: value for name, (value, _) in self.constants.used.items()}
        idle = () if self._shares_keys() else (("F.scaled_dot_product_attention", "enable_gqa"),)
        parts = shorten(self.parts, self.helpers, sizes, idle) if self.form == "plain" else self.parts
        read = names_read(parts.values())
        body = "".join(self._spaced(parts, read))
        title = [line for said in banner.split("\n") for line in filled(said, WIDTH - 3) or [""]]
        head = ['"""' + "\n".join(title) + '"""', "", *import_lines(self.imports, read)]
        lines = [size_line(name, *said) for name, said in self.constants.used.items() if name in read]
        return "\n".join([*head, *(["", *lines] if lines else [])]) + "\n" + body

    def _shares_keys(self) -> bool:
        """Whether several heads of queries read one head of keys in some attention."""
        attends = (op for c in self.names if isinstance(c, MixerComponent) for op in c.ops() if isinstance(op, Attend))
        return any(isinstance(op, LatentAttend) or op.n_kv_heads < op.n_heads for op in attends)

    def _spaced(self, parts: Mapping[str, str], read: Collection[str]) -> list[str]:
        texts = []
        previous_flat = False
        mentioned = self.mentioned | {name: value for name, (value, _) in self.constants.used.items()}
        for part in parts.values():
            # A size that no code has says more by its value.
            said = re.sub(
                r"\b[A-Z][A-Z0-9_]*\b", lambda w: w[0] if w[0] in read else str(mentioned.get(w[0], w[0])), part
            )
            flat = "\n" not in part and not part.startswith(("def ", "class ", "@"))
            texts.append(("\n" if flat and previous_flat else "\n\n") + folded(said) + "\n")
            previous_flat = flat
        return texts


def forward_takes(node: cst.ClassDef) -> frozenset[str]:
    """The parameters of the forward of a class."""
    found = [s for s in node.body.body if isinstance(s, cst.FunctionDef) and s.name.value == "forward"]
    return frozenset(p.name.value for f in found for p in f.params.params)


def giving(node: cst.ClassDef, more: int) -> cst.ClassDef:
    """A class whose forward also returns so many values that later layers read, with the type of that."""
    returns = cst.Annotation(cst.parse_expression(f"tuple[{', '.join(['Tensor'] * (more + 1))}]"))
    body = [
        s.with_changes(returns=returns) if isinstance(s, cst.FunctionDef) and s.name.value == "forward" else s
        for s in node.body.body
    ]
    return node.with_changes(body=node.body.with_changes(body=body))


def names_read(texts: Iterable[str]) -> set[str]:
    """The names that the code of some texts reads."""
    return {n.id for text in texts for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Name)}


def size_line(name: str, value: float, note: str) -> str:
    """A constant with its meaning behind it, or above it where the line would be too long."""
    line = f"{name} = {written(value)}"
    whole = f"{line}  # {note}"
    return whole if len(whole) <= WIDTH else "\n".join([*comment(note), line])
