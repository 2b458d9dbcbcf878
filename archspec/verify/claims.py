"""What can be asked of a model at all: which components say that a property is not theirs."""

from archspec.language.model import Head
from archspec.verify.places import blamed
from archspec.verify.sample import Sample


def no_order(sample: Sample) -> str:
    """Why no output of the main stack can be held against earlier tokens alone; nothing where it can."""
    spec = sample.spec
    if spec.main.embedding.n_tokens != "T" or spec.main.embedding.reads == "images":
        return f"{spec.main.embedding.kind} reads an image whole: no token comes before another"
    if spec.main.looks_ahead:
        who = blamed(spec, lambda c: c.role == "mixer" and not c.causal and c in spec.main.parts)
        return f"{who} looks at later tokens, as it should"
    if all(head.component.pools for head in spec.heads):
        return f"{_named(spec.heads[0])} gives one answer for a whole sequence"
    if sample.tokens < 2:
        return f"sequences have one token: {_shortest(sample)}"
    return ""


def no_state(sample: Sample) -> str:
    """Why a model is not decoded token by token; nothing where it is."""
    if reason := no_order(sample):
        return reason
    return "" if sample.spec.main.has_state else "nothing is kept from one token to the next"


def chooser(sample: Sample) -> str:
    """The component that makes a model look ahead which otherwise would not: an expert that chooses among tokens."""
    parts = sample.spec.main.parts
    return blamed(sample.spec, lambda c: c.role != "mixer" and not c.causal and c in parts)


def crossing(sample: Sample) -> str:
    """The component for which the sequences of a batch are not apart."""
    return blamed(sample.spec, lambda c: c.crosses)


def changing(sample: Sample) -> tuple[int, str]:
    """Tokens up to which a longer text leaves earlier outputs as they were, and the component of which it is so."""
    parts = (*sample.spec.main.parts, sample.spec.main.embedding)
    least = min((n for c in parts if (n := c.exact_within) is not None), default=sample.tokens)
    return min(least, sample.tokens), blamed(sample.spec, lambda c: c.exact_within == least)


def _named(head: Head) -> str:
    """A head by its kind and what the model calls it."""
    return f"{head.component.kind} ({head.member})"


def _shortest(sample: Sample) -> str:
    who = blamed(sample.spec, lambda c: c.longest == sample.tokens)
    return f"{who} takes no more" if who else f"max_seq_len is {sample.spec.max_seq_len}"
