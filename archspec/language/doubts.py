"""What a whole model shows to have no effect, or hardly the one that was meant: told as warnings."""

from collections.abc import Iterator

from archspec.language.filling import one_channel
from archspec.language.model import Head, Spec, Stack
from archspec.layers.base import HeadComponent, MixerComponent

Doubt = tuple[str, str, str]  # the name of a stack (nothing for the top), the key there, and what is told


def doubts(spec: Spec) -> Iterator[Doubt]:
    """Each as the stack, the key and the message."""
    yield from (("", "init", message) for message in spec.init.idle())
    for head in spec.heads:
        yield from _of_head(spec, head)
    yield from _of_heads(spec)
    for stack in spec.stacks:
        if not _order_matters(stack):
            message = "nothing tells the order of the tokens: no position here, nor in any mixer"
            yield stack.name, "embedding", message
        if stack.final_norm is not None and stack.d_model == 1:
            yield stack.name, "final_norm", one_channel("the final norm")
    if any(head.component.causal for head in spec.heads) and _mixes_causally(spec.main):
        ahead = [part for part in spec.main.parts if part.role == "ffn" and not part.causal]
        if ahead:
            message = "experts choose their tokens, so that the output at a token depends on later ones"
            yield spec.main.name, "blocks", message


def _of_head(spec: Spec, head: Head) -> Iterator[Doubt]:
    """A head that reads where a causal stack knows too little, or names tokens behind the end of every text."""
    read, seen = head.component.reads_token, {"first": "only itself", "middle": "only the first half"}
    if spec.main.causal and read in seen:
        yield "", head.path, f"pool = {read!r}: in a causal stack that token sees {seen[read]}"
    if spec.max_seq_len is not None and head.ahead >= max(spec.max_seq_len, 2):
        yield (
            "",
            head.path,
            f"ahead = {head.ahead}: no text of up to max_seq_len = {spec.max_seq_len} tokens goes so far",
        )
    if spec.main.causal and head.component.fills_gaps:
        yield "", head.path, "hidden tokens are named by those on both sides, and no mixer looks at later ones"


def _of_heads(spec: Spec) -> Iterator[Doubt]:
    """One of several heads that nothing can be learned from, or that answers as another does."""
    seen: dict[tuple[HeadComponent, str], str] = {}
    for head in spec.heads if spec.by_name else ():
        ops = head.component.ops()
        if head.component.learns == "classes" and ops[-1].shape[-1] == 1:
            yield "", head.path, "one class alone has always a loss of 0"
        first = seen.setdefault((head.component, head.reads), head.name)
        if first != head.name and not any(op.params for op in ops):
            yield "", head.path, f"always answers as {first} does: neither has weights of its own"


def _mixes_causally(stack: Stack) -> bool:
    return stack.embedding.causal and all(part.causal for part in stack.parts if isinstance(part, MixerComponent))


def _order_matters(stack: Stack) -> bool:
    """Whether the order of the tokens makes a difference, or nothing mixes them."""
    mixers = [part for part in stack.parts if isinstance(part, MixerComponent) and "memory" not in part.arguments]
    told = any(part.tells_order for part in stack.parts if "memory" not in part.arguments)
    return not mixers or stack.embedding.tells_order or told
