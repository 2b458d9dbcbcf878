"""A generated model and an independent implementation of the same architecture, with the same weights.

The independent model gets random weights, none of which is where it would start; a table of names says which tensor of
ours is which of theirs. Both run in float64, where they should differ by rounding alone: by 1e-15, or by about 1e-7
where one of them computes something (norms, rotary angles, scans) in float32.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from archspec.codegen.load import build
from archspec.language.load import load

SPECS = Path(__file__).parents[2] / "specs"
VOCAB, TOKENS, PROMPT = 61, 17, 6
TOLERANCE = 2e-6


@dataclass(frozen=True)
class Take:
    """A tensor of ours made from those of theirs that `pattern` names; with {} in it, from one for each of `n`."""

    pattern: str
    make: Callable[..., Tensor]
    n: int = 1

    def names(self, found: Iterable[str]) -> list[str]:
        """The names of theirs, the wildcards being filled in."""
        name = filled(self.pattern, found)
        return [name.format(i) for i in range(self.n)]


Rules = Mapping[str, str | Take]


def transposed(pattern: str) -> Take:
    """Theirs is (in, out)."""
    return Take(pattern, lambda t: t.T)


def part(pattern: str, index: int, n: int, dim: int = 0) -> Take:
    """Theirs holds n of ours one after another along `dim`."""
    return Take(pattern, lambda t: t.chunk(n, dim)[index])


def transposed_part(pattern: str, index: int, n: int) -> Take:
    """Theirs holds n of ours one after another and is (in, out)."""
    return Take(pattern, lambda t: t.T.chunk(n)[index])


def head_part(pattern: str, index: int, n_heads: int) -> Take:
    """Theirs holds query, key and value rows of the first head, then those of the second, and so on."""
    return Take(pattern, lambda t: t.unflatten(0, (n_heads, 3, -1))[:, index].flatten(0, 1))


def stacked(pattern: str, n: int) -> Take:
    """Theirs are n tensors, one for each {} in the pattern."""
    return Take(pattern, lambda *found: torch.stack(found), n)


def rows(pattern: str, start: int, stop: int) -> Take:
    """Rows start to stop of theirs."""
    return Take(pattern, lambda t: t[start:stop])


def filled(pattern: str, found: Iterable[str]) -> str:
    """The pattern with what the wildcards of ours found in the place of its own."""
    for text in found:
        pattern = pattern.replace("*", text, 1)
    return pattern


def match(name: str, rules: Rules) -> tuple[str | Take, tuple[str, ...]]:
    """The first rule that fits a name of ours, and what its wildcards stand for."""
    for pattern, rule in rules.items():
        expression = re.escape(pattern).replace(r"\*", r"([\w.]+?)")
        if found := re.fullmatch(expression, name):
            return rule, found.groups()
    raise AssertionError(f"no rule for {name}")


def tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters, tied ones once, and the buffers that are saved."""
    saved = set(model.state_dict())
    return {**dict(model.named_parameters()), **{n: b for n, b in model.named_buffers() if n in saved}}


@torch.no_grad()
def copy_weights(ours: nn.Module, theirs: nn.Module, rules: Rules, unused: Collection[str] = ()) -> None:
    """Set every tensor of ours from theirs; every number of theirs, but for `unused`, must be used exactly once."""
    source = tensors(theirs)
    used: Counter[str] = Counter()
    for name, tensor in tensors(ours).items():
        rule, found = match(name, rules)
        take = rule if isinstance(rule, Take) else Take(rule, lambda t: t)
        names = take.names(found)
        value = take.make(*(source[n] for n in names))
        assert value.shape == tensor.shape, f"{name} is {tuple(tensor.shape)}, {names} give {tuple(value.shape)}"
        tensor.copy_(value)
        for n in names:
            used[n] += value.numel() // len(names)
    wanted = Counter({n: t.numel() for n, t in source.items() if n not in unused})
    assert used == wanted, f"used otherwise than once: {sorted((used - wanted) | (wanted - used))}"


@torch.no_grad()
def randomise(model: nn.Module, seed: int = 0) -> nn.Module:
    """Redraw matrices so that they keep the size of what they multiply; move everything else from where it starts."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in tensors(model).items():
        noise = torch.randn(tensor.shape, generator=generator)
        if tensor.dim() < 2 or name.endswith("A_log"):
            tensor.add_(0.3 * noise.to(tensor.dtype))
        elif "emb" in name or "token" in name:
            tensor.copy_(0.1 * noise)  # small, so that the epsilon of the first norm shows
        else:
            tensor.copy_(noise / math.sqrt(tensor.shape[-1]))
    return model


def library(folder: str, cls: str, **sizes: Any) -> nn.Module:
    """A model of the transformers library with random weights, in float64 and evaluation mode."""
    found = getattr(import_module(f"transformers.models.{folder}.modeling_{folder}"), cls)
    config = found.config_class(**sizes)
    config._attn_implementation = config._experts_implementation = "eager"
    return randomise(found(config)).double().eval()


class Family(NamedTuple):
    """A spec, or the path of one with other sizes, and the same model of the transformers library."""

    spec: str | Mapping[str, Any]
    settings: tuple[str, ...]
    folder: str
    cls: str
    sizes: Mapping[str, Any]
    rules: Rules
    unused: tuple[str, ...] = ()

    def pair(self) -> tuple[nn.Module, nn.Module]:
        """Our model and theirs."""
        theirs = library(self.folder, self.cls, **self.sizes)
        return built(self.spec, theirs, self.rules, self.settings, self.unused), theirs


def built(
    spec: str | Mapping[str, Any],
    theirs: nn.Module,
    rules: Rules,
    settings: Iterable[str] = (),
    unused: Collection[str] = (),
) -> nn.Module:
    """The generated model of a spec, or of the file of that name in specs/ with other sizes, with their weights."""
    source = SPECS / f"{spec}.yaml" if isinstance(spec, str) else spec
    ours = build(load(source, set=settings)).double().eval()
    copy_weights(ours, theirs, rules, unused)
    return ours


def tokens(seed: int = 1, length: int = TOKENS, vocab: int = VOCAB) -> Tensor:
    """Random tokens (2, length); 0 to 2 are special in some models and do not occur."""
    return torch.randint(3, vocab, (2, length), generator=torch.Generator().manual_seed(seed))


def padded(*lengths: int, length: int = TOKENS) -> Tensor:
    """A mask (B, length), True for the first so many tokens of each sequence."""
    return torch.arange(length) < torch.tensor(lengths).unsqueeze(1)


def assert_same(actual: Tensor, expected: Tensor, tolerance: float = TOLERANCE) -> None:
    """The largest difference is below `tolerance` of the largest number, and the numbers differ from one another."""
    assert actual.shape == expected.shape
    largest = expected.abs().max()
    assert torch.isfinite(expected).all()
    assert 0.1 < largest < 1e4
    assert expected.std(dim=tuple(range(expected.dim() - 1))).min() > 1e-3
    error = ((actual - expected).abs().max() / largest).item()
    assert error < tolerance, f"differs by {error:.1e}"


@torch.no_grad()
def decoded(model: nn.Module, inputs: Tensor, *before: Tensor, prompt: int = PROMPT, **given: Any) -> Tensor:
    """What the model says of inputs (B, T) read as a prompt and then one by one."""
    state: dict[str, Any] = {}
    pieces = [inputs[:, :prompt], *inputs[:, prompt:].split(1, dim=1)]
    return torch.cat([model(*before, piece, state=state, **given) for piece in pieces], dim=1)


@torch.no_grad()
def check_decoder(family: Family, tolerance: float = TOLERANCE) -> None:
    """Logits of a whole sequence, and of a prompt and then one token after another."""
    ours, theirs = family.pair()
    inputs = tokens()
    expected = theirs(input_ids=inputs, use_cache=False).logits
    assert_same(ours(inputs), expected, tolerance)
    assert_same(decoded(ours, inputs), expected, tolerance)
