"""One layer resolved: its sub-layers, the norms that its wiring names, and the wiring itself."""

from typing import Any

from archspec.errors import Fault, Mark, Problem, suggest
from archspec.layers.base import Component, NormComponent
from archspec.spec.blocks import Place
from archspec.spec.document import BLOCK_KEYS
from archspec.spec.model import Block, Stack
from archspec.spec.resolve import Resolver, Scope, shown
from archspec.spec.source import Node, from_plain
from archspec.spec.wiring import BUILTINS, Call, Wiring, builtin, check, parse_wiring

SUBLAYERS = ("mixer", "cross", "ffn")
PART_ROLES = ("mixer", "ffn", "norm", "scale")


def leaves_unnormed(block: Block) -> bool:
    """Whether the block's output is a bare residual stream, which a final norm should follow."""
    last = block.wiring.steps[-1].value
    return not (isinstance(last, Call) and isinstance(block.part(last.module), NormComponent))


class BlockBuilder:
    """Builds the blocks of one stack; equal places are built once."""

    def __init__(self, resolver: Resolver, scope: Scope, memory: Stack | None, is_memory: bool):
        self.resolver, self.scope, self.memory, self.is_memory = resolver, scope, memory, is_memory
        self.built: dict[int, Block | None] = {}

    def block(self, place: Place) -> Block | None:
        """The block of a place, or None when it is wrong (the problems are kept)."""
        key = id(place.node)
        if key not in self.built:
            self.built[key] = _Building(self, place.node, place.path).block()
        return self.built[key]

    @property
    def alpha(self) -> float:
        """DeepNorm's residual factor (Wang et al. 2022, table 1): by the depths of this stack and of the other one."""
        n = int(self.scope.numbers["n_layers"])
        if self.memory is not None:
            return float((3 * n) ** 0.25)
        if self.is_memory:
            return float(0.81 * (n**4 * n) ** 0.0625)
        return float((2 * n) ** 0.25)


class _Building:
    """One block on its way."""

    def __init__(self, builder: BlockBuilder, node: Node, path: str):
        self.builder, self.node, self.path = builder, node, path
        self.resolver, self.scope = builder.resolver, builder.scope
        self.fields: dict[str, Node] = node.value if isinstance(node.value, dict) else {}
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
        for key in self.fields:
            if key not in BLOCK_KEYS:
                mark = self.node.keys.get(key, self.node.mark)
                message = f"a block has no {key!r}{suggest(key, BLOCK_KEYS)}"
                self.resolver.problem(mark, f"{self.path}.{key}", message)
        if "extends" in self.fields:
            self.problem("extends", "only a block in define can extend another; name this one there")
        self._defaults()
        parts = self._sublayers() | self._modules()
        wiring = self._wiring(parts)
        if wiring is None:
            return None
        parts = self._implied(wiring, parts)
        for message in check(wiring, parts):
            self._wiring_problem(message)
        self._check_use(wiring, parts)
        if len(self.resolver.problems) > self.errors:
            return None
        order = dict.fromkeys(wiring.calls())
        dropout = self.dropout if "dropout" in order else 0.0  # a default that this wiring does not use
        return Block(tuple((n, p) for n in order if (p := parts[n]) is not None), wiring, dropout)

    def _defaults(self) -> None:
        found: dict[str, Any] = {}
        if "norm" in self.fields:
            base = self.scope.defaults["norm"]
            norm = self.resolver.component("norm", self.fields["norm"], f"{self.path}.norm", self.scope, base)
            found["norm"] = norm or base
        if "dropout" in self.fields:
            node = self.fields["dropout"]
            value = node.value
            if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 1:
                self.problem("dropout", f"dropout = {shown(node)} must be a number, at least 0 and below 1")
            else:
                found["dropout"] = float(value)
        self.scope = self.scope.with_defaults(found)
        self.dropout = float(self.scope.defaults.get("dropout", 0.0))

    def _sublayers(self) -> dict[str, Component | None]:
        parts: dict[str, Component | None] = {}
        for name in SUBLAYERS:
            node = self.fields.get(name)
            if node is None or node.value is None or node.value == "none" or node.value is False:
                continue
            scope = self.scope
            if name == "cross":
                scope = scope.with_defaults({"mask": "cross"})
                if self.builder.memory is None:
                    self.problem(
                        "cross", "cross-attention needs a memory; give the stack `memory: <name of an earlier stack>`"
                    )
            role = "ffn" if name == "ffn" else "mixer"
            parts[name] = self.resolver.component(role, node, f"{self.path}.{name}", scope)
            reads = parts[name] is not None and "memory" in parts[name].inputs  # type: ignore[union-attr]
            if parts[name] is not None and reads != (name == "cross"):
                wrong = "a cross mask belongs under `cross`" if reads else "must read the memory; leave its mask out"
                self.problem(name, wrong)
        return parts

    def _modules(self) -> dict[str, Component | None]:
        node = self.fields.get("modules")
        if node is None:
            return {}
        if not isinstance(node.value, dict):
            self.problem("modules", f"must map names to components, not {node.kind_name()}")
            return {}
        parts: dict[str, Component | None] = {}
        for name, child in node.value.items():
            path = f"{self.path}.modules.{name}"
            if not name.isidentifier() or name in (*SUBLAYERS, "x", "dropout") or hasattr(dict, name):
                self.resolver.problem(child.mark, path, f"{name!r} cannot be the name of a part; choose another word")
            else:
                parts[name] = self.resolver.component(PART_ROLES, child, path, self.scope)
        return parts

    def _wiring(self, parts: dict[str, Component | None]) -> Wiring | None:
        node = self.fields.get("wiring") or self.scope.defaults.get("wiring") or from_plain("pre", self.node.mark)
        sublayers = [n for n in SUBLAYERS if n in parts]
        lines = node.value
        try:
            if isinstance(lines, list):
                texts = [child.value for child in lines]
                if not all(isinstance(t, str) for t in texts):
                    raise Fault("each line of a wiring is text, such as x = x + mixer(norm1(x))")
                return parse_wiring([str(t) for t in texts])
            if not isinstance(lines, str) or (lines not in BUILTINS and "=" not in lines):
                raise Fault(f"no wiring {shown(node)}{suggest(str(lines), BUILTINS)}")
            if "=" in lines:
                return parse_wiring([line for line in lines.splitlines() if line.strip()])
            if not sublayers:
                raise Fault("a block needs a mixer or an ffn")
            alpha = self.builder.alpha if lines == "deepnorm" else None
            return parse_wiring(builtin(lines, sublayers, self.dropout > 0, alpha))
        except Fault as fault:
            self._wiring_problem(str(fault))
            return None

    def _wiring_problem(self, message: str) -> None:
        node = self.fields.get("wiring")
        own: Mark = node.mark if node is not None else self.node.mark
        self.resolver.problems.append(Problem(own, f"{self.path}.wiring", message))

    def _implied(self, wiring: Wiring, parts: dict[str, Component | None]) -> dict[str, Component | None]:
        """The parts and those that a wiring may name without a declaration: norms, layer scales, dropout."""
        found = dict(parts)
        for name in wiring.calls():
            if name in found:
                continue
            if name.startswith("norm"):
                found[name] = self.scope.defaults["norm"]
            elif name.startswith("scale"):
                found[name] = self.resolver.component(
                    "scale", from_plain("layer_scale", self.node.mark), name, self.scope
                )
            elif name == "dropout":
                found[name] = None
        return found

    def _check_use(self, wiring: Wiring, parts: dict[str, Component | None]) -> None:
        calls = wiring.calls()
        for name in dict.fromkeys(calls):
            part = parts.get(name)
            if calls.count(name) > 1 and part is not None and (part.inputs or part.role == "ffn"):
                self._wiring_problem(
                    f"{name} is called {calls.count(name)} times; only norms and scales can be used again"
                )
        if "dropout" in self.fields and self.dropout and "dropout" not in calls:
            self.problem("dropout", "the wiring never calls dropout(...), so this has no effect; remove it, or call it")
        if "dropout" in calls and not self.dropout:
            self._wiring_problem("calls dropout(...), but dropout is 0; set dropout, or remove the call")
        used = {n for n in calls if isinstance(parts.get(n), NormComponent)} - set(self._declared())
        needs = any(getattr(p, "norm", None) is not None for p in parts.values())
        if "norm" in self.fields and not used and not needs:
            self.problem("norm", "no norm of this block uses it; remove it")

    def _declared(self) -> list[str]:
        node = self.fields.get("modules")
        return list(node.value) if node is not None and isinstance(node.value, dict) else []
