"""The cost of DeepSeek-V3 (671B), in process and as a process beside `archspec count`; and time against its class.

    python benchmarks/cost.py [--runs 7]

Times are CPU seconds; the processes take turns. The second table holds the measured growth of a forward pass, from one
length to twice as much, against the growth of its FLOPs by the formula.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path

import torch

import archspec

ROOT = Path(__file__).resolve().parent.parent
SPEC = ROOT / "specs" / "deepseek_v3.yaml"
WORK = {
    "training step": {"seq": 4096},
    "prefill": {"seq": 4096, "phase": "prefill"},
    "decoded token": {"context": 4096, "phase": "decode"},
}
MIXERS = {
    "attention": {"kind": "attention", "n_heads": 4},
    "attention, window 256": {"kind": "attention", "n_heads": 4, "window": 256},
    "mamba": {"kind": "mamba"},
    "mamba2": {"kind": "mamba2", "head_dim": 32},
    "hyena": {"kind": "hyena"},
    "lstm": {"kind": "lstm"},
}


def least(run: Callable[[], object], runs: int) -> float:
    """The least CPU seconds of some runs of this process."""
    found = []
    for _ in range(runs):
        start = time.process_time()
        run()
        found.append(time.process_time() - start)
    return min(found)


def of_process(*words: str) -> float:
    """CPU seconds of a command."""
    child = subprocess.Popen([sys.executable, "-m", "archspec", *words], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{words} failed")
    return usage.ru_utime + usage.ru_stime


def growth(mixer: dict[str, object], runs: int, lengths: tuple[int, ...] = (1024, 2048, 4096)) -> str:
    """Measured and priced growth of the forward pass of two layers."""
    blocks = [{"repeat": 2, "mixer": mixer, "ffn": "none"}]
    sizes = {"d_model": 128, "vocab_size": 64, "max_seq_len": max(lengths)}
    spec = archspec.loads(
        str({"name": "grows", **sizes, "norm": "rmsnorm", "blocks": blocks, "head": {"kind": "none"}})
    )
    model = archspec.build(spec).eval()
    with torch.inference_mode():
        times = [least(partial(model, torch.randint(64, (1, T))), runs) for T in lengths]
    flops = [archspec.cost(spec, seq=T, phase="prefill") for T in lengths]
    measured = "  ".join(f"{b / a:5.2f}" for a, b in pairwise(times))
    priced = "  ".join(f"{b.flops_needed / a.flops_needed:5.2f}" for a, b in pairwise(flops))
    return f"{measured}   |  {priced}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(1)
    spec = archspec.load(SPEC)
    for name, work in WORK.items():
        print(f"{name:<14} {1e3 * least(lambda work=work: archspec.cost(spec, **work), args.runs):6.1f} ms in process")
    pairs = [(of_process("count", str(SPEC)), of_process("cost", str(SPEC))) for _ in range(args.runs)]
    counted, priced = (min(column) for column in zip(*pairs, strict=True))
    print(f"as a process: count {counted:.3f} s, cost {priced:.3f} s, ratio {priced / counted:.2f}")
    print(f"\n{'twice the tokens':<24}time: 2048  4096   |  FLOPs: 2048  4096")
    for name, mixer in MIXERS.items():
        print(f"{name:<24}      {growth(mixer, args.runs)}")


if __name__ == "__main__":
    main()
