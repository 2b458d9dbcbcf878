"""Two minutes that show what archspec is: say a model, count it, break it, draw it, train it, compare it.

python examples/demo.py [--out out] [--steps 250] [--recall-steps 250]
"""

import argparse
import os
import time
import warnings
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # on a busy machine a waiting thread should give its core away

import torch
from learning import accuracy, next_byte, prose, recall, right_value, train, windows, write

import archspec

ROOT = Path(__file__).resolve().parent.parent
HYBRID = (ROOT / "examples" / "hybrid.yaml").read_text(encoding="utf-8")
RECALL = """\
name: recall
d_model: 64
vocab_size: 32
max_seq_len: 64
define:
  ssm: {mixer: {kind: mamba, d_state: 8}, ffn: none}
  attn: {mixer: {kind: attention, n_heads: 2, position: rope}, ffn: none}
blocks: ssm attn
head: lm
"""
HALVES = {"Mamba": "ssm ssm", "attention": "attn attn", "one of each": "ssm attn"}


def shown(text: str) -> str:
    """Text further right, with a bar before it."""
    return "\n".join(f"    | {line}" for line in text.splitlines())


def say() -> archspec.Spec:
    """A hybrid in ten lines."""
    print("1. A hybrid of Mamba, attention and experts is ten lines:\n")
    print(shown(HYBRID))
    spec = archspec.loads(HYBRID)
    counted = archspec.count(spec)
    print(f"\n   {counted.total:,} parameters, of which one token uses {counted.active:,}; nothing was built yet.")
    return spec


def count() -> None:
    """The largest spec of the collection."""
    started = time.perf_counter()
    counted = archspec.count(archspec.load(ROOT / "specs" / "deepseek_v3.yaml"))
    took = time.perf_counter() - started
    print(
        f"\n2. DeepSeek-V3 is counted in {took:.2f} seconds: {counted.total:,} parameters, {counted.active:,} active."
    )


def slip() -> None:
    """A mistake, and what is said of it."""
    print("\n3. A slip of the pen is told with its place, and what was meant:\n")
    try:
        archspec.loads(HYBRID.replace("n_kv_heads", "n_kv_head"), "hybrid.yaml")
    except archspec.SpecError as error:
        print(shown(str(error)))


def draw(spec: archspec.Spec, out: Path) -> None:
    """The picture and the code."""
    code, picture = out / "hybrid.py", out / "hybrid.svg"
    code.write_text(archspec.generate(spec), encoding="utf-8")
    try:
        archspec.render(spec, picture)
    except archspec.RenderError as error:
        print(f"\n   ({error})")
        picture = out / "hybrid.dot"
        archspec.render(spec, picture)
    lines = len(code.read_text(encoding="utf-8").splitlines())
    print(f"\n4. Drawn: {picture}\n   As PyTorch: {code} ({lines} lines)")


def learn(spec: archspec.Spec, steps: int) -> None:
    """Train on prose, and let the model write at the start, in the middle and at the end."""
    text = prose()
    print(f"\n5. It learns from {len(text) // 1000:,} kB of Python's documentation, byte by byte, in {steps} steps:\n")
    model = archspec.build(spec, seed=0)

    def report(step: int, loss: float) -> None:
        if step in (1, steps // 2, steps):
            print(f"   step {step:4}, {loss / 0.6931:.2f} bits a byte:  {write(model, 'The ')}", flush=True)

    train(model, windows(text), steps, next_byte, report)


def compare(steps: int) -> None:
    """A hybrid against both of its halves, on a task that neither of them can do."""
    warnings.simplefilter("ignore", archspec.SpecWarning)  # a half leaves a definition unused
    print("\n6. Which of eight keys had which value? Two layers each, one line of the spec changed:\n")
    for name, blocks in HALVES.items():
        spec = archspec.loads(RECALL, set={"blocks": blocks})
        model = archspec.build(spec, seed=0)
        batches = recall()
        train(model, batches, steps, right_value, lambda *_: None)
        size = archspec.count(spec).total
        right = accuracy(model, next(batches))
        print(f"   {name:<12}  blocks: {blocks:<9}  {size:,} parameters  {right:6.1%} right", flush=True)


def main() -> None:
    """The whole tour."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "out", help="where the picture and the code go")
    parser.add_argument("--steps", type=int, default=250, help="of training on prose")
    parser.add_argument("--recall-steps", type=int, default=250, help="of training on the task of recall")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    spec = say()
    count()
    slip()
    draw(spec, args.out)
    learn(spec, args.steps)
    compare(args.recall_steps)


if __name__ == "__main__":
    main()
