"""How long the sequences are that are looked at, and what they reach past."""

from archspec.verify.places import placed
from archspec.verify.report import Finding, judged, not_made
from archspec.verify.sample import Sample


def reached(sample: Sample) -> Finding:
    """Sequences go past every window, chunk and limit."""
    own = [(path, c) for path, c in placed(sample.spec) if c.reach > max([1, *(inner.reach for inner in c.children())])]
    past = dict.fromkeys(f"{c.reach} of {c.kind}" for _, c in own if c.reach < sample.tokens)
    short = dict.fromkeys(f"{c.reach} of {c.kind} ({path})" for path, c in own if c.reach >= sample.tokens)
    said = f"sequences of {sample.tokens} tokens"
    if short:
        why = "all that there are" if sample.spec.main.embedding.n_tokens != "T" else _limit(sample)
        return not_made(f"{said}, {why}, do not go past {', '.join(short)}: what begins there was not looked at")
    return judged(True, f"{said}, past {', '.join(past)}" if past else f"{said}; no window, chunk or limit to go past")


def _limit(sample: Sample) -> str:
    least = [(n, f"{c.kind} ({path}) takes no more") for path, c in placed(sample.spec) if (n := c.longest) is not None]
    if sample.spec.max_seq_len is not None:
        least.append((sample.spec.max_seq_len, f"max_seq_len = {sample.spec.max_seq_len}"))
    return next((why for n, why in least if n == sample.tokens), "the longest that are run")
