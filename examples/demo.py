"""From YAML to a trained model in about two minutes: count, generate, draw, train on real text, write a line.

    python examples/demo.py [--seconds 90] [--out out]

The text is the source code of Python's own standard library, which every machine has; the model reads bytes.
"""

import argparse
import os
import sysconfig
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # on a busy machine a waiting thread should give its core away

import torch
from torch import Tensor, nn

import archspec
from archspec.report.count import table

ROOT = Path(__file__).resolve().parent.parent
CONTEXT, BATCH = 128, 8


def standard_library(limit: int = 8_000_000) -> Tensor:
    """The sources of the standard library as one tensor of bytes."""
    folder = Path(sysconfig.get_path("stdlib"))
    text = bytearray()
    for path in sorted(folder.glob("*.py")):
        text += path.read_bytes()
        if len(text) > limit:
            break
    return torch.frombuffer(text, dtype=torch.uint8).long()


def batch(data: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random windows of the text and the bytes that follow each of theirs, (BATCH, CONTEXT) each."""
    starts = torch.randint(len(data) - CONTEXT - 1, (BATCH,), generator=generator)
    rows = torch.stack([data[s : s + CONTEXT + 1] for s in starts.tolist()])
    return rows[:, :-1], rows[:, 1:]


def train(model: nn.Module, data: Tensor, seconds: float, lr: float = 3e-3) -> None:
    """Train for that long, with a short warm-up and a linear decay, and print the loss as it falls."""
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.95), weight_decay=0.1)
    started, shown, smooth, step = time.monotonic(), -1, None, 0
    while (done := (time.monotonic() - started) / seconds) < 1:
        for group in optimizer.param_groups:
            group["lr"] = lr * min(1, (step + 1) / 20, 1.05 - done)
        tokens, targets = batch(data, generator)
        aux: dict[str, Tensor] = {}
        logits = model(tokens, aux=aux) if hasattr(model, "aux_loss") else model(tokens)
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
        total = loss + model.aux_loss(aux) if aux else loss
        optimizer.zero_grad()
        total.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        smooth = loss.item() if smooth is None else 0.9 * smooth + 0.1 * loss.item()
        if int(20 * done) > shown:
            shown = int(20 * done)
            bits = smooth / 0.6931
            print(f"  {'#' * shown:<20} step {step:4d}   loss {smooth:.3f}   {bits:.2f} bits a byte", flush=True)
        step += 1


@torch.no_grad()
def write(model: nn.Module, prompt: str, length: int = 200, temperature: float = 0.7) -> str:
    """Continue a text one byte at a time: the prompt once, then each byte with the state that the last one left."""
    torch.manual_seed(1)
    tokens = torch.tensor([list(prompt.encode())])
    state: dict = {}
    logits = model(tokens, state=state)
    written = []
    for _ in range(length):
        token = torch.multinomial((logits[:, -1] / temperature).softmax(-1), 1)
        written.append(int(token))
        logits = model(token, state=state)
    return prompt + bytes(written).decode(errors="replace")


def main() -> None:
    """The whole tour."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=90, help="how long to train")
    parser.add_argument("--out", type=Path, default=ROOT / "out", help="where the picture and the code go")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)

    print("1. A spec is counted without being built: specs/bert_tiny.yaml\n")
    print(table(archspec.count(archspec.load(ROOT / "specs" / "bert_tiny.yaml"))))

    spec = archspec.load(ROOT / "specs" / "bytes_hybrid.yaml")
    code = args.out / "bytes_hybrid.py"
    code.write_text(archspec.generate(spec), encoding="utf-8")
    lines = len(code.read_text(encoding="utf-8").splitlines())
    print(f"\n2. A hybrid of Mamba, attention and experts, as PyTorch: {code} ({lines} lines)")

    try:
        picture = args.out / "bytes_hybrid.svg"
        archspec.diagram.render(spec, picture)
    except archspec.RenderError as error:
        picture = args.out / "bytes_hybrid.dot"
        archspec.diagram.render(spec, picture)
        print(f"   ({error})")
    print(f"3. The same, drawn: {picture}")

    model = archspec.build(spec)
    data = standard_library()
    total = archspec.count(spec).total
    print(
        f"4. Its {total:,} parameters learn from {len(data) / 1e6:.1f} MB of Python for {args.seconds:.0f} seconds:\n"
    )
    train(model.train(), data, args.seconds)

    print("\n5. It writes on, one byte at a time, from its decoding state:\n")
    print(write(model.eval(), "def read(self, size=-1):\n"))


if __name__ == "__main__":
    main()
