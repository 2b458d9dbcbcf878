"""What a whole model shows to have no effect, or hardly the one that was meant: told as warnings."""

from collections.abc import Iterator

from archspec.language.filling import one_channel
from archspec.language.model import Spec, Stack
from archspec.layers.base import MixerComponent

Doubt = tuple[str, str, str]  # the name of a stack (nothing for the top), the key there, and what is told


def doubts(spec: Spec) -> Iterator[Doubt]:
    """Each as the stack, the key and the message."""
    yield from (("", "init", message) for message in spec.init.idle())
    yield from _of_head(spec)
    for stack in spec.stacks:
        if not _order_matters(stack):
            message = "nothing tells the order of the tokens: no position here, nor in any mixer"
            yield stack.name, "embedding", message
        if stack.final_norm is not None and stack.d_model == 1:
            yield stack.name, "final_norm", one_channel("the final norm")
    if spec.head.causal and _mixes_causally(spec.main):
        ahead = [part for part in spec.main.parts if part.role == "ffn" and not part.causal]
        if ahead:
            message = "experts choose their tokens, so that the output at a token depends on later ones"
            yield spec.main.name, "blocks", message


def _of_head(spec: Spec) -> Iterator[Doubt]:
    """A head that reads where a causal stack knows too little."""
    head, seen = spec.head, {"first": "only itself", "middle": "only the first half"}
    if spec.main.causal and head.reads_token in seen:
        yield "", "head", f"pool = {head.reads_token!r}: in a causal stack that token sees {seen[head.reads_token]}"
    if spec.main.causal and head.fills_gaps:
        yield "", "head", "hidden tokens are named by those on both sides, and no mixer looks at later ones"


def _mixes_causally(stack: Stack) -> bool:
    return stack.embedding.causal and all(part.causal for part in stack.parts if isinstance(part, MixerComponent))


def _order_matters(stack: Stack) -> bool:
    """Whether the order of the tokens makes a difference, or nothing mixes them."""
    mixers = [part for part in stack.parts if isinstance(part, MixerComponent) and "memory" not in part.arguments]
    return not mixers or stack.embedding.tells_order or any(mixer.tells_order for mixer in mixers)
