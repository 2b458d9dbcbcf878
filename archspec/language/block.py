"""One layer resolved: its sub-layers, the norms that its wiring names, and the wiring itself."""

import re
from dataclasses import replace
from functools import lru_cache

from archspec.errors import Fault, Problem, suggest
from archspec.language.blocks import Place
from archspec.language.document import BLOCK_KEYS, ITEM_KEYS
from archspec.language.keys import bad_name, clipped, unknown
from archspec.language.model import Block, Stack
from archspec.language.resolve import Resolver
from archspec.language.scope import Scope
from archspec.language.source import Node, from_plain
from archspec.language.values import empty, finite, must_be, shown
from archspec.language.wiring import BUILTINS, Call, Wiring, builtin, check, parse_wiring
from archspec.layers.base import Component, NormComponent

SUBLAYERS = ("mixer", "cross", "ffn")
PART_ROLES = ("mixer", "ffn", "norm", "scale")
Parts = dict[str, Component | None]


def leaves_unnormed(block: Block) -> bool:
    """Whether the block's output is a bare residual stream, which a final norm should follow."""
    last = block.wiring.steps[-1].value
    return not (isinstance(last, Call) and isinstance(block.part(last.module), NormComponent))


def probability(resolver: Resolver, node: Node, path: str) -> float:
    """A dropout rate; 0 after its problem was told."""
    if finite(node.value) and 0 <= node.value < 1:  # type: ignore[operator]
        return float(node.value)  # type: ignore[arg-type]
    what = "a number at least 0 and below 1"
    resolver.problem(node.mark, path, must_be(path.rpartition(".")[2], node, what))
    return 0.0


def read_lines(node: Node) -> Wiring | str:
    """A wiring that is written out, or the name of a built-in one; raises Fault for what is neither."""
    lines = node.value
    if isinstance(lines, list):
        texts = [child.value for child in lines]
        if not all(isinstance(t, str) for t in texts):
            raise Fault("each line of a wiring is text, such as x = x + mixer(norm1(x))")
        return parse_wiring([str(t) for t in texts])
    if isinstance(lines, str) and "=" in lines:
        return parse_wiring([line for line in lines.splitlines() if line.strip()])
    if isinstance(lines, str) and lines.strip() in BUILTINS:
        return lines.strip()
    if isinstance(lines, str) and not empty(node):
        raise Fault(f"no wiring {shown(node)}{suggest(lines[:60], BUILTINS)}")
    raise Fault(must_be("wiring", node, "the name of a wiring, or lines such as x = x + mixer(norm1(x))"))


@lru_cache
def named_wiring(kind: str, sublayers: tuple[str, ...], dropout: bool, alpha: float | None) -> Wiring:
    """A built-in wiring, read."""
    return replace(parse_wiring(builtin(kind, sublayers, dropout, alpha)), name=kind)


class BlockBuilder:
    """Builds the blocks of one stack; equal places are built once."""

    def __init__(self, resolver: Resolver, scope: Scope, memory: Stack | None, is_memory: bool, lost: bool = False):
        self.resolver, self.scope, self.memory, self.is_memory = resolver, scope, memory, is_memory
        self.lost = lost  # there is a memory, but what is wrong with it is told already
        self.built: dict[int, Block | None] = {}

    def block(self, place: Place) -> Block | None:
        """The block of a place, or None when it is wrong (the problems are kept)."""
        if place.broken:
            return None
        key = id(place.node)
        if key not in self.built:
            self.built[key] = _Building(self, place).block()
        return self.built[key]

    @property
    def alpha(self) -> float:
        """DeepNorm's residual factor (Wang et al. 2022, table 1): by the depths of this stack and of the other one."""
        n = int(self.scope.numbers.get("n_layers", 1))
        if self.memory is not None:
            return float((3 * n) ** 0.25)
        if self.is_memory:
            return float(0.81 * (n**4 * n) ** 0.0625)
        return float((2 * n) ** 0.25)


class _Building:
    """One block on its way."""

    def __init__(self, builder: BlockBuilder, place: Place):
        self.builder, self.node, self.path = builder, place.node, place.path
        self.named = bool(place.label)
        self.resolver, self.scope = builder.resolver, builder.scope
        self.fields: dict[str, Node] = self.node.value if isinstance(self.node.value, dict) else {}
        self.errors = len(self.resolver.problems)

    def problem(self, key: str, message: str) -> None:
        """Remember a mistake at one of the block's keys."""
        node = self.fields.get(key)
        mark = node.mark if node is not None else self.node.mark
        self.resolver.problem(mark, f"{self.path}.{key}" if key else self.path, message)

    def block(self) -> Block | None:
        """The block, or None."""
        if not isinstance(self.node.value, dict):
            self.problem("", f"must be a block (mixer, ffn, ...), not {self.node.kind_name()}")
            return None
        self._unknown()
        if "extends" in self.fields:
            return None
        self._defaults()
        declared = self._modules()
        sound = len(self.resolver.problems) == self.errors
        parts = self._sublayers() | declared
        wiring = self._wiring(parts)
        if wiring is None or not sound:
            return None
        parts = self._implied(wiring, parts)
        for message in check(wiring, parts):
            self._wiring_problem(message)
        self._check_use(wiring, parts, declared)
        if len(self.resolver.problems) > self.errors:
            return None
        order = dict.fromkeys(wiring.calls())
        dropout = self.dropout if "dropout" in order else 0.0
        return Block(tuple((n, p) for n in order if (p := parts[n]) is not None), wiring, dropout)

    def _unknown(self) -> None:
        """Tell the keys that a block does not have."""
        assert isinstance(self.node.value, dict)
        told = ["extends"]
        if "extends" in self.fields:
            self.problem("extends", "only a block in define can extend another; name this one there")
        for key in ITEM_KEYS:
            if key in self.fields:
                told.append(key)
                self.problem(key, f"a block has no {key!r}; it stands beside a name or a pattern in `blocks`")
        known = [*BLOCK_KEYS] if self.named else [*BLOCK_KEYS, *ITEM_KEYS]
        unknown(self.node, [k for k in known if k != "extends"], self.path, "a block", self.resolver.problems, told)

    def _defaults(self) -> None:
        if "norm" in self.fields:
            base = self.scope.defaults["norm"]
            norm = self.resolver.component("norm", self.fields["norm"], f"{self.path}.norm", self.scope, base)
            self.scope = self.scope.with_defaults({"norm": norm or base}, f"{self.path}.")
        if "dropout" in self.fields:
            rate = probability(self.resolver, self.fields["dropout"], f"{self.path}.dropout")
            self.scope = self.scope.with_defaults({"dropout": rate}, f"{self.path}.")
        self.dropout = float(self.scope.defaults.get("dropout", 0.0))

    # Parts

    def _sublayers(self) -> Parts:
        parts: Parts = {}
        for name in SUBLAYERS:
            node = self.fields.get(name)
            if node is not None and node.value not in (None, "none", False):
                parts[name] = self._sublayer(name, node)
        return parts

    def _sublayer(self, name: str, node: Node) -> Component | None:
        scope = self.scope
        if name == "cross":
            scope = scope.with_defaults({"mask": "cross"})
            if self.builder.memory is None and not self.builder.lost:
                wish = "give the stack `memory: <name of an earlier stack>`"
                self.problem("cross", f"cross-attention needs a memory; {wish}")
        role = "ffn" if name == "ffn" else "mixer"
        part = self.resolver.component(role, node, f"{self.path}.{name}", scope)
        reads = part is not None and "memory" in part.arguments
        if part is not None and reads != (name == "cross"):
            wrong = "a cross mask belongs under `cross`" if reads else "must read the memory; leave its mask out"
            self.problem(name, wrong)
        return part

    def _modules(self) -> Parts:
        node = self.fields.get("modules")
        if node is None:
            return {}
        if not isinstance(node.value, dict):
            self.problem("modules", f"must map names to components, not {node.kind_name()}")
            return {}
        parts: Parts = {}
        for name, child in node.value.items():
            path = f"{self.path}.modules.{clipped(name)}"
            wrong = bad_name(name) or ("is a key of the block; choose another" if name in SUBLAYERS else "")
            if wrong:
                self.resolver.problem(node.keys.get(name, child.mark), path, f"{clipped(name)!r} {wrong}")
            else:
                parts[name] = self.resolver.component(PART_ROLES, child, path, self.scope)
        return parts

    def _implied(self, wiring: Wiring, parts: Parts) -> Parts:
        """The parts and those that a wiring may name without a declaration: norms, layer scales, dropout."""
        found = dict(parts)
        for name in wiring.calls():
            if name in found:
                continue
            if name.startswith("norm"):
                found[name] = self.resolver.inherit(self.scope, "norm")
            elif name.startswith("scale"):
                node = from_plain("layer_scale", self.node.mark)
                found[name] = self.resolver.component("scale", node, f"{self.path}.modules.{name}", self.scope)
            elif name == "dropout":
                found[name] = None
        return found

    # Wiring

    def _wiring(self, parts: Parts) -> Wiring | None:
        node = self.fields.get("wiring")
        if node is None and (inherited := self.scope.defaults.get("wiring")) is not None:
            node = self.resolver.inherit(self.scope, "wiring")
            assert node is inherited
        try:
            found = read_lines(node) if node is not None else "pre"
            if isinstance(found, Wiring):
                return found
            sublayers = [n for n in SUBLAYERS if n in parts]
            if not sublayers:
                if len(self.resolver.problems) == self.errors:
                    self.problem("", "a block needs a mixer or an ffn")
                return None
            alpha = self.builder.alpha if found == "deepnorm" else None
            return named_wiring(found, tuple(sublayers), self.dropout > 0, alpha)
        except Fault as fault:
            self._wiring_problem(str(fault))
            return None

    def _wiring_problem(self, message: str) -> None:
        """Remember a mistake of the wiring, at the very line that it is about where that is known."""
        node = self.fields.get("wiring")
        mark = node.mark if node is not None else self.node.mark
        line = re.match(r"line (\d+)\b", message)
        if line and node is not None and isinstance(node.value, list):
            mark = node.value[int(line[1]) - 1].mark
        self.resolver.problems.append(Problem(mark, f"{self.path}.wiring", message))

    def _check_use(self, wiring: Wiring, parts: Parts, declared: Parts) -> None:
        calls = wiring.calls()
        for name in dict.fromkeys(calls):
            part = parts.get(name)
            if calls.count(name) > 1 and part is not None and (part.arguments or part.role == "ffn"):
                times = calls.count(name)
                self._wiring_problem(f"{name} is called {times} times; only norms and scales can be used again")
        if "dropout" in calls and self.dropout:
            self.resolver.inherit(self.scope, "dropout")
        elif "dropout" in calls:
            self._wiring_problem("calls dropout(...), but dropout is 0; set dropout, or remove the call")
        self._check_reach(parts)

    def _check_reach(self, parts: Parts) -> None:
        """Tell a dropout or a norm of this block that nothing in it takes."""
        if None in [part for name, part in parts.items() if name != "dropout"]:
            return
        reached = self.resolver.reached
        if self.fields.get("dropout") is not None and self.dropout and f"{self.path}.dropout" not in reached:
            wish = "remove it, or call dropout(...) in the wiring"
            self.problem("dropout", f"nothing in this block takes it, so it has no effect; {wish}")
        if "norm" in self.fields and f"{self.path}.norm" not in reached:
            self.problem("norm", "no norm of this block takes it, so it has no effect; remove it")
