"""What the forward of a model takes beside its input: `inputs: [mask, positions, documents]`."""

from archspec.language.model import Spec
from archspec.language.problems import Problems, near
from archspec.language.rules import must_be
from archspec.language.tree import Node
from archspec.layers.arguments import INPUTS

WANTED = f"a list of some of {', '.join(INPUTS)}"


def parse_inputs(node: Node | None, problems: Problems) -> tuple[str, ...] | None:
    """The inputs that a spec asks for; None where it leaves them to what its layers need."""
    if node is None:
        return None
    if not isinstance(node.value, list):
        problems.tell(node, "inputs", must_be("inputs", node, WANTED))
        return None
    found: list[str] = []
    for i, item in enumerate(node.value):
        name = item.value
        if not isinstance(name, str) or name not in INPUTS:
            meant = near(name, INPUTS) if isinstance(name, str) else ""
            hint = f"; did you mean {meant!r}?" if meant else ""
            problems.tell(item, f"inputs[{i}]", must_be("it", item, f"one of {', '.join(INPUTS)}") + hint)
        elif name in found:
            problems.tell(item, f"inputs[{i}]", f"{name} is named twice; once will do")
        else:
            found.append(name)
    return tuple(name for name in INPUTS if name in found)


def check_inputs(spec: Spec, node: Node | None, problems: Problems) -> None:
    """A problem for each input that no stack of the spec could honour, with the reason."""
    items = node.value if node is not None and isinstance(node.value, list) else []
    for i, item in enumerate(items):
        if not any(item.value in spec.can_take(stack) for stack in spec.stacks):
            problems.tell(item, f"inputs[{i}]", f"{item.value} cannot be given: {reason(spec, str(item.value))}")


def reason(spec: Spec, name: str) -> str:
    """Why a spec cannot take an input that it does not take."""
    if all(stack.embedding.n_tokens != "T" for stack in spec.stacks):
        return "every image has the same tokens, in the same places"
    if name == "positions":
        return "nothing in this model knows positions"
    if pooled := next((head for head in spec.heads if head.component.pools), None):
        who = f"the head {pooled.name}" if pooled.name else "the head"
        return f"{who} gives one answer for a whole row; give each document a row of its own"
    prefix = any("prefix_len" in stack.arguments for stack in spec.stacks)
    what = "a prefix belongs" if prefix else "global tokens belong"
    return f"{what} to a whole row; give each document a row of its own"
