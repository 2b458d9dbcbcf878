"""The loss of a model with heads by name, as a method of its file."""

from archspec.codegen.layout import WIDTH
from archspec.codegen.lines import fitted
from archspec.codegen.writer import Writer
from archspec.language.model import Head, Spec

ANSWERS = "archspec.kernels.loss.answers"
SAID = {
    "classes": "Classes are whole numbers of the shape of the answer without its last axis; -100 is left out.",
    "ahead": "What names a token further on takes the tokens themselves: `loss` moves them.",
    "numbers": "Numbers have the shape of the answer.",
}


def loss_method(writer: Writer, spec: Spec) -> list[str]:
    """The lines of `loss`: what each head loses, and the weighted sum."""
    losses = [f'"{head.name}": {_loss(writer, spec, head)}' for head in spec.heads]
    line = f"losses = {{{', '.join(losses)}}}"
    made = (
        [f"        {line}"]
        if len(line) + 8 <= WIDTH
        else ["        losses = {", *(f"            {said}," for said in losses), "        }"]
    )
    return [
        "",
        "    def loss(self, answers: dict[str, Tensor], targets: dict[str, Tensor]) -> dict[str, Tensor]:",
        '        """The loss of each head by name, and as "total" their sum; `answers` are what forward gave.',
        "",
        *(f"        {SAID[what]}" for what in _told(spec)),
        '        """',
        *made,
        *fitted(f'losses["total"] = {" + ".join(map(_term, spec.heads))}'),
        "        return losses",
    ]


def _loss(writer: Writer, spec: Spec, head: Head) -> str:
    """The call that gives the loss of a head."""
    pair = f'answers["{head.name}"], targets["{head.name}"]'
    if head.component.learns == "numbers":
        return f"{writer.need(ANSWERS, 'number_loss')}({pair})"
    ahead = f", ahead={spec.ahead(head)}" if spec.ahead(head) else ""
    return f"{writer.need(ANSWERS, 'class_loss')}({pair}{ahead})"


def _term(head: Head) -> str:
    """The loss of a head in the sum."""
    loss = f'losses["{head.name}"]'
    return loss if head.loss_weight == 1 else f"{head.loss_weight!r} * {loss}"


def _told(spec: Spec) -> list[str]:
    """What is to be said of the targets."""
    found = dict.fromkeys(head.component.learns for head in spec.heads)
    ahead = ["ahead"] if any(map(spec.ahead, spec.heads)) else []
    return [*[what for what in ("classes",) if what in found], *ahead, *[w for w in ("numbers",) if w in found]]
