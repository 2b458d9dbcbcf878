"""The bill of a whole answer: the prompt, then token after token, with the decoding state and without one.

The prefill gives the first token; each further one sees the prompt and all tokens before it. Without a state every
token runs the model over the whole text again. Figures of single tokens are one formula in S, put in for each of them.
"""

from dataclasses import asdict, dataclass

from archspec.errors import CostError
from archspec.formulas import Formula
from archspec.formulas.functions import named
from archspec.graph import graph
from archspec.language.model import Spec, need_spec
from archspec.layers.tensors import How, Run
from archspec.passes.cost import cost
from archspec.passes.dtypes import bytes_of
from archspec.passes.html import html_table
from archspec.passes.work import lines
from archspec.passes.workload import Mla, Phase, length_of


@dataclass(frozen=True)
class Bill:
    """What an answer costs, for the whole batch.

    Attributes:
        flops_prefill: of the prompt, which gives the first token of the answer.
        flops_first, flops_last: of the first and the last token that is decoded after it.
        flops_decode: of all tokens that are decoded.
        flops_without_state: were every token of the answer a run over the whole text before it.
        bytes_first, bytes_last: that those tokens move, weights and state among them; an estimate.
        bytes_decode: of all of them; an estimate.
        cache_bytes, state_bytes: of the state at the end.
    """

    name: str
    batch: int
    prompt: int
    generate: int
    dtype: str
    flops_prefill: int
    flops_first: int
    flops_last: int
    flops_decode: int
    flops_without_state: int
    bytes_first: int
    bytes_last: int
    bytes_decode: int
    cache_bytes: int
    state_bytes: int
    estimates: tuple[str, ...]

    @property
    def flops(self) -> int:
        """Prompt and answer."""
        return self.flops_prefill + self.flops_decode

    def _repr_html_(self) -> str:
        facts = asdict(self) | {"flops": self.flops}
        lines = [(k, f"{v:,}", "estimate" if k in self.estimates else "") for k, v in facts.items() if type(v) is int]
        return html_table([("figure", "answer", ""), *lines], self.name)


def bill(
    spec: Spec,
    *,
    prompt: int,
    generate: int,
    batch: int = 1,
    memory: int | None = None,
    dtype: str = "bfloat16",
    mla: Mla = "absorbed",
) -> Bill:
    """The bill of an answer of `generate` tokens to a prompt of `prompt` tokens; other arguments as those of `cost`.

    Raises:
        CostError: a size is none, the text is longer than the model takes, or the model does not decode.
    """
    need_spec(spec)
    for name, value in (("prompt", prompt), ("generate", generate)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise CostError(f"{name} = {value!r} must be a whole number, at least 1")
    if spec.max_seq_len is not None and prompt + generate > spec.max_seq_len:
        found = f"prompt + generate = {prompt + generate:,} tokens"
        raise CostError(f"{found} is beyond max_seq_len = {spec.max_seq_len:,} of {spec.name}")
    start = cost(spec, batch=batch, seq=prompt, memory=memory, phase="prefill", dtype=dtype)
    asked = {"batch": batch, "memory": start.workload.memory or None, "phase": "decode", "dtype": dtype, "mla": mla}
    end = cost(spec, context=max(prompt + generate - 1, prompt), **asked)  # type: ignore[arg-type]
    token, moved = _formulas(spec, "decode", batch, start.workload.memory, mla)
    whole, _ = _formulas(spec, "prefill", batch, start.workload.memory, mla)
    seen = range(prompt + 1, prompt + generate)
    flops, numbers = [token.value({"S": s}) for s in seen], [moved.value({"S": s}) for s in seen]
    width = bytes_of(dtype)
    return Bill(
        name=spec.name,
        batch=batch,
        prompt=prompt,
        generate=generate,
        dtype=dtype,
        flops_prefill=start.flops,
        flops_first=flops[0] if flops else 0,
        flops_last=flops[-1] if flops else 0,
        flops_decode=sum(flops),
        flops_without_state=sum(whole.value({"T": t}) for t in range(prompt, prompt + generate)),
        bytes_first=width * numbers[0] if numbers else 0,
        bytes_last=width * numbers[-1] if numbers else 0,
        bytes_decode=width * sum(numbers),
        cache_bytes=end.cache_bytes,
        state_bytes=end.state_bytes,
        estimates=("bytes_first", "bytes_last", "bytes_decode"),
    )


def _formulas(spec: Spec, phase: Phase, batch: int, memory: int, mla: Mla) -> tuple[Formula, Formula]:
    """FLOPs and elements moved, of one more token in S, or of a run over T tokens."""
    decodes = phase == "decode"
    length = named("S" if decodes else "T")
    run = Run(batch, 1 if decodes else length, length, memory, decodes, mla == "expanded")
    every = lines(graph(spec), _runs(spec, run, memory), How(), phase)
    flops = sum(line.times * line.forward for line in every)
    return Formula.of(flops), Formula.of(sum(line.times * (line.read + line.written) for line in every))


def _runs(spec: Spec, main: Run, memory: int) -> dict[str, Run]:
    others = {s.name: length_of(s, memory) for s in spec.stacks[:-1]} if not main.decodes else {}
    return {spec.main.name: main} | {name: Run(main.B, n, n, memory) for name, n in others.items()}
