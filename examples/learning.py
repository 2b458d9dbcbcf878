"""What the demonstration learns: to write prose of Python's own documentation, and to recall what it was told."""

import re
from collections.abc import Callable, Iterator
from pydoc_data.topics import topics

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

CONTEXT, BATCH = 128, 16
KEYS = 16  # letters that are asked for, and as many that answer
PAIRS = 8

Report = Callable[[int, float], None]


def prose() -> str:
    """Paragraphs of the topics of Python's help: whole sentences, no code, no tables, one line each."""
    found = []
    for topic in topics.values():
        for paragraph in re.split(r"\n\s*\n", topic):
            lines = paragraph.splitlines()
            if lines and all(re.match(r"[A-Za-z\"(]", line) for line in lines) and len(paragraph) > 60:
                found.append(" ".join(lines))
    return "\n".join(dict.fromkeys(found))  # each once


def windows(text: str) -> Iterator[Tensor]:
    """Random stretches of a text as bytes, (BATCH, CONTEXT + 1), without an end."""
    data = torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8).long()
    generator = torch.Generator().manual_seed(0)
    while True:
        starts = torch.randint(len(data) - CONTEXT, (BATCH, 1), generator=generator)
        yield data[starts + torch.arange(CONTEXT + 1)]


def recall(batch: int = 64) -> Iterator[Tensor]:
    """Multi-query associative recall (Arora et al. 2023): pairs of key and value, then the same in another order.

    Keys are below KEYS, values KEYS to 2 KEYS - 1; (batch, 4 PAIRS), without an end.
    """
    generator = torch.Generator().manual_seed(0)
    while True:
        keys = torch.rand(batch, KEYS, generator=generator).argsort(1)[:, :PAIRS]
        values = torch.randint(KEYS, 2 * KEYS, (batch, PAIRS), generator=generator)
        order = torch.rand(batch, PAIRS, generator=generator).argsort(1)
        told = torch.stack([keys, values], 2)
        asked = told.gather(1, order.unsqueeze(2).expand_as(told))
        yield torch.cat([told.flatten(1), asked.flatten(1)], 1)


def answers(x: Tensor) -> Tensor:
    """What stands at the keys that are asked for, (B, 4 PAIRS) or (B, 4 PAIRS, V): there a model gives its answers."""
    return x[:, 2 * PAIRS :: 2]


def train(
    model: nn.Module, batches: Iterator[Tensor], steps: int, loss_of: Callable[..., Tensor], report: Report
) -> None:
    """AdamW with a warm-up and a linear decay; `report` is told each step and its loss."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.95), weight_decay=0.1)
    rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: min((s + 1) / 20, 1.05 - s / steps))
    for step in range(steps):
        loss = loss_of(model.train(), next(batches))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        rate.step()
        report(step + 1, loss.item())


def next_byte(model: nn.Module, text: Tensor) -> Tensor:
    """Cross-entropy of each next byte of (B, T + 1), with the losses of routers."""
    aux: dict[str, Tensor] = {}
    logits = model(text[:, :-1], aux=aux)
    return cross_entropy(logits.flatten(0, 1), text[:, 1:].flatten()) + model.aux_loss(aux)


def right_value(model: nn.Module, x: Tensor) -> Tensor:
    """Cross-entropy of the values that are asked for."""
    return cross_entropy(answers(model(x)).flatten(0, 1), answers(x.roll(-1, 1)).flatten())


@torch.no_grad()
def accuracy(model: nn.Module, x: Tensor) -> float:
    """The share of asked values that the model finds."""
    return float((answers(model.eval()(x)).argmax(-1) == answers(x.roll(-1, 1))).double().mean())


@torch.no_grad()
def write(model: nn.Module, prompt: str, length: int = 100, temperature: float = 0.6) -> str:
    """Continue a text one byte at a time, each with the state that the last one left."""
    generator = torch.Generator().manual_seed(1)
    tokens, written = torch.tensor([list(prompt.encode())]), []
    state: dict = {}
    for _ in range(length):
        logits = model.eval()(tokens, state=state)[:, -1]
        tokens = torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator)
        written.append(int(tokens))
    return prompt + "".join(chr(byte) if 32 <= byte < 127 else "." for byte in written)
