"""What a stack makes of its mask, positions and documents before its layers run, and undoes after them.

Padded rows are moved so that all end in their last real token: then what stands side by side belongs together,
whichever end the padding was at, and a state ends in the same column for every row. Layers that cannot be told where a
packed document ends run on rows of one document each. What the functions do is said in `kernels.padding`.
"""

from archspec.language.model import Spec, Stack
from archspec.layers.arguments import BY_TOKEN
from archspec.layers.base import Component
from archspec.lowering.program import Apply, Assign, ByName, Call, Expression, Statement, Value
from archspec.lowering.wiring import passed

NOTHING = Value("None")


class LaidOut:
    """The rows of one stack: the statements that lay them out, and what its members are then given."""

    def __init__(self, spec: Spec, stack: Stack, reads: str):
        self.spec, self.stack, self.reads = spec, stack, Value(reads)
        self.inputs = spec.takes(stack)
        self.decodes = spec.decodes(stack)
        self.counts = stack.counts_with(self.inputs)
        self.moves = "mask" in self.inputs and stack.aligns
        self.order = Value("order") if self.moves else NOTHING
        self.real = Value("real") if self.moves else Value("mask") if "mask" in self.inputs else NOTHING
        # the name of positions as they are counted, where the caller may give others
        self.counted = ("counted" if "positions" in self.inputs else "positions") if self.counts else "_"

    def statements(self) -> list[Statement]:
        """The rows laid out, and embedded."""
        x = Assign("x", self._embedding(), ("B", "T", self.stack.d_model))
        if self.stack.embedding.n_tokens != "T":  # how many there are is known afterwards
            return [x, *self._checked(Value("x"))]
        laid_out = (self._checked(self.reads), self._aligned(), self._flagged(), self._separated(), self._placed())
        return [*(statement for statements in laid_out for statement in statements), x]

    def _checked(self, x: Value) -> list[Statement]:
        """Refuse what does not fit the tokens x, or what the layers cannot honour."""
        holes = any(part.contiguous for part in self.stack.parts) and not self.moves
        state = (Value("state"),) if self.decodes else ()
        mask = Apply("as_mask_at_ends" if holes else "as_mask", (Value("mask"), x))
        others = (Apply(f"as_{name}", (Value(name), x, *state)) for name in ("positions", "documents"))
        found = dict(zip(("mask", "positions", "documents"), (mask, *others), strict=True))
        checks: list[Statement] = [
            Assign(name, check, checks=True) for name, check in found.items() if name in self.inputs
        ]
        if "global_mask" in self.stack.arguments:
            checks.append(Assign("global_mask", Apply("as_global_mask", (Value("global_mask"), x)), checks=True))
        return checks

    def _aligned(self) -> list[Statement]:
        """Rows moved to end in their last real token, and positions counted from the first."""
        if self.moves:
            state = (Value("state"),) if self.decodes else ()
            keys = "key_mask" if "key_mask" in self.stack.arguments else "_"
            target = f"order, real, {keys}, {self.counted}"
            return [Assign(target, Apply("align", (Value("mask"), self.reads, *state)))]
        if self.counted != "_" and "mask" in self.inputs:
            return [Assign(self.counted, Apply("count_real", (Value("mask"),)), ("B", "T"))]
        return [Assign(self.counted, NOTHING)] if self.counted == "counted" else []

    def _flagged(self) -> list[Statement]:
        """Global tokens, where rows were moved."""
        if not self.moves or "global_mask" not in self.stack.arguments:
            return []
        return [Assign("global_mask", self.moved(Value("global_mask")))]

    def _separated(self) -> list[Statement]:
        """Documents numbered as the rows now stand, and positions counted from the first token of each."""
        if "documents" not in self.inputs:
            return []
        so_far = Value(self.counted) if self._is_counted() else NOTHING
        arguments = (Value("documents"), self.reads, self.order, self.real, so_far)
        found: list[Statement] = []
        if "document_ids" in self.stack.arguments:
            found.append(Assign("document_ids", self.moved(Value("documents")) if self.moves else Value("documents")))
        found.append(Assign(f"documents, {self.counted}", Apply("separate", arguments)))
        if any(self.stack.by_rows(part) for part in self.stack.parts):
            found.append(Assign("rows", Apply("rows_of", (Value("documents"), self.real))))
        return found

    def _is_counted(self) -> bool:
        return self.counted == "counted" or (self.counted == "positions" and "mask" in self.inputs)

    def _placed(self) -> list[Statement]:
        """The caller's positions where there are any."""
        if "positions" not in self.inputs:
            return []
        found: list[Statement] = []
        if self.moves:
            found.append(Assign("positions", Apply("reorder", (Value("positions"), self.order))))
        if any("places" in c.arguments for c in self.stack.everything):
            found.append(Assign("places", Value("positions")))
        if not self.counts:
            return found
        return [
            *found,
            Assign("positions", Apply("given_or", (Value("positions"), Value("counted"), self.real)), ("B", "T")),
        ]

    # What is called with them

    def value(self, name: str) -> Expression:
        """What the layers are given for one of their arguments."""
        if name == "channels":
            return ByName(tuple((channel, Value(channel)) for channel in self.stack.embedding.ids))
        return self.real if name == "mask" else Value(name)

    def call(self, member: str, part: Component, x: Expression) -> Call:
        """A member of the stack called on x, with what it takes."""
        takes = self.stack.present(part.arguments, self.inputs, frozenset())
        names = [name for name in part.arguments if name in takes and (name != "state" or self.decodes)]
        named = ((n, passed(n, member) if n == "state" else self.value(n)) for n in names)
        return Call(member, x, tuple(named))

    def _embedding(self) -> Call:
        """The embedding of the input as the rows now stand."""
        if not self.moves:
            return self.call("embedding", self.stack.embedding, self.reads)
        call = self.call("embedding", self.stack.embedding, self.moved(self.reads))
        given = tuple((n, self.moved(v) if n in BY_TOKEN else v) for n, v in call.named)
        return call._replace(named=given)

    def moved(self, x: Expression) -> Expression:
        """What the caller gives for each token, as the rows now stand."""
        if isinstance(x, ByName):
            return ByName(tuple((name, self.moved(value)) for name, value in x.items))
        return Apply("reorder", (x, self.order))

    def restored(self, x: Expression) -> Expression:
        """What the layers give, where the caller's tokens stood."""
        return Apply("restore", (x, self.order)) if self.moves else x
