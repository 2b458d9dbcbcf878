"""A masked DNA model finds a motif: it learns from sequences that the script makes, in some 15 seconds on one CPU core.

    python examples/dna_motif.py [--steps 300] [--seed 0]

Each sequence is random but for one motif at a random place. Letters are hidden as in BERT, and the model names them.
Outside of the motif nothing is to be learned, and it can be right once in four times; inside, it is right as far as it
has found out which letters the motif has, and where in a sequence it stands.
"""

import argparse
import random

import torch
from torch import Tensor, nn

import archspec

MOTIF = "TGACGTCATTGC"
LENGTH, HIDDEN = 40, 0.15  # letters of a sequence, and how many of them are hidden
SPEC = """
name: dna_motif
d_model: 48
vocabulary: {kind: bases, alphabet: ACGT, specials: ["[PAD]", "[MASK]"]}
max_seq_len: 64
mask: bidirectional
norm: layernorm
blocks:
  - repeat: 2
    mixer: {kind: attention, n_heads: 4, position: {kind: rope, theta: 100}}  # texts are short
    ffn: {kind: mlp, d_ff: 2 * d_model, bias: true}
head: {kind: masked_lm, tied: true}
init: {kind: normal, std: 0.1}  # about 1 / sqrt(d_model), as there are few steps
"""


def sequences(n: int, chance: random.Random) -> tuple[list[str], list[int]]:
    """Random sequences of different lengths with the motif in each, and where it begins."""
    found, starts = [], []
    for _ in range(n):
        length = chance.randint(LENGTH - 8, LENGTH)
        start = chance.randrange(length - len(MOTIF) + 1)
        letters = chance.choices("ACGT", k=length)
        letters[start : start + len(MOTIF)] = MOTIF
        found.append("".join(letters))
        starts.append(start)
    return found, starts


def batch(
    vocabulary: archspec.Vocabulary, n: int, chance: random.Random, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Ids with hidden letters, the mask of padding, the true ids, what is hidden, what is motif: (n, T) each."""
    texts, starts = sequences(n, chance)
    ids, mask = vocabulary.encode_batch(texts)
    places = torch.arange(ids.shape[1])
    first = torch.tensor(starts)[:, None]
    motif = (places >= first) & (places < first + len(MOTIF))
    hidden = (torch.rand(ids.shape, generator=generator) < HIDDEN) & mask
    return ids.where(~hidden, vocabulary.special("mask")), mask, ids, hidden, motif


def train(model: nn.Module, vocabulary: archspec.Vocabulary, steps: int, seed: int, lr: float = 6e-3) -> None:
    """Learn to name hidden letters, with a short warm-up and a linear decay; print the loss now and then."""
    chance, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.01)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * min(1, (step + 1) / 20, 1.05 - step / steps)
        tokens, mask, ids, hidden, _ = batch(vocabulary, 64, chance, generator)
        loss = nn.functional.cross_entropy(model(tokens, mask=mask)[hidden], ids[hidden])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % max(1, steps // 10) == 0 or step == steps - 1:
            print(f"  step {step:4d}   loss {loss.item():.3f}", flush=True)


@torch.no_grad()
def accuracy(model: nn.Module, vocabulary: archspec.Vocabulary, seed: int) -> tuple[float, float]:
    """How often the model names a hidden letter of the motif, and one outside of it, in sequences that it never saw."""
    chance, generator = random.Random(-1 - seed), torch.Generator().manual_seed(seed + 1)
    tokens, mask, ids, hidden, motif = batch(vocabulary, 512, chance, generator)
    right = model(tokens, mask=mask).argmax(-1) == ids
    return tuple(right[hidden & where].float().mean().item() for where in (motif, ~motif))


@torch.no_grad()
def fill(model: nn.Module, vocabulary: archspec.Vocabulary, text: str) -> str:
    """The text with its [MASK]s replaced by the letters that the model thinks the likeliest."""
    ids = torch.tensor([vocabulary.encode(text)])
    hidden = ids == vocabulary.special("mask")
    letters = model(ids)[..., vocabulary.encode("ACGT")].argmax(-1) + vocabulary.encode("A")[0]
    return vocabulary.decode(ids.where(~hidden, letters)[0])


def main(arguments: list[str] | None = None) -> tuple[float, float]:
    """Train and show what was found; returns the accuracy in the motif and outside of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=300, help="how long to train")
    parser.add_argument("--seed", type=int, default=0, help="of the weights and the sequences")
    args = parser.parse_args(arguments)

    spec = archspec.loads(SPEC)
    vocabulary = archspec.vocabulary(spec)
    model = archspec.build(spec, seed=args.seed)
    print(f"{archspec.count(spec).total:,} parameters, {vocabulary.n_ids} tokens; the motif is {MOTIF}\n")
    train(model.train(), vocabulary, args.steps, args.seed)

    inside, outside = accuracy(model.eval(), vocabulary, args.seed)
    print(f"\nhidden letters that it names: {inside:.0%} in the motif, {outside:.0%} elsewhere (by chance 25%)\n")
    text = sequences(1, random.Random(args.seed - 7))[0][0]
    at = text.index(MOTIF)
    for i in (2, 5, 9):
        shown = f"{text[: at + i]}[MASK]{text[at + i + 1 :]}"
        print(f"  {shown}\n  {fill(model, vocabulary, shown)}")
    return inside, outside


if __name__ == "__main__":
    main()
