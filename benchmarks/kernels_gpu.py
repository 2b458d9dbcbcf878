"""The Triton kernels against the best known implementation of each, on one GPU, in one run on the same inputs.

    python benchmarks/kernels_gpu.py [--lengths 1024 4096 16384 65536] [--dtype bfloat16] [--only attention]
    python benchmarks/kernels_gpu.py --tiny      # no GPU: every case once in Triton's interpreter, checks only

Before a case is timed its output and gradients are compared with the vectorised PyTorch form in float64, at a short
length; a case that differs gets no time. A peer that is not installed is said to be so. Times are medians in ms by
device events; "copy" is the time that copying the same bytes takes at the bandwidth measured in this run, over ours.
"""

import argparse
import os
from collections.abc import Sequence

import torch
from torch import Tensor

TINY_T = 20


def cast(case, tensors: Sequence[Tensor], dtype: torch.dtype, device: str) -> list[Tensor]:
    """The inputs of a case as it is timed: those it calls fixed stay float32 (float64 for the check)."""
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    return [x.to(device, wide if i in case.fixed else dtype).requires_grad_() for i, x in enumerate(tensors)]


def results(f, inputs: list[Tensor], cotangent: Tensor | None = None) -> list[Tensor]:
    """Output and gradients."""
    y = f(*inputs)
    cotangent = torch.ones_like(y) if cotangent is None else cotangent.to(y.device, y.dtype)
    found = torch.autograd.grad(y, inputs, cotangent, allow_unused=True)
    return [y.detach(), *(g for g in found if g is not None)]


def error(case, T: int, tiny: bool, dtype: torch.dtype, device: str) -> float:
    """The largest difference from float64, over the largest entry, of output and gradients."""
    torch.manual_seed(0)
    inputs = [x.to(dtype) if i not in case.fixed else x for i, x in enumerate(case.inputs(T, tiny))]
    exact = cast(case, inputs, torch.float64, "cpu")
    y = case.ours(*exact)
    cotangent = torch.randn_like(y)
    right = results(case.ours, exact, cotangent)
    got = results(case.ours, cast(case, inputs, dtype, device), cotangent)
    pairs = [pair for pair in zip(got, right, strict=False) if pair[1].numel()]
    return max(float((a.cpu().double() - b).abs().max() / b.abs().max().clamp(min=1e-30)) for a, b in pairs)


def copy_bandwidth() -> float:
    """Bytes a second, read and written, of a large copy on this GPU."""
    from triton.testing import do_bench

    x = torch.randn(2**28, device="cuda")
    y = torch.empty_like(x)
    return 2 * x.nbytes / (do_bench(lambda: y.copy_(x), return_mode="median") * 1e-3)


def timed(f, inputs: list[Tensor]) -> tuple[float, float, float]:
    """Milliseconds forward, forward and backward, and peak MiB beyond the inputs while training."""
    from triton.testing import do_bench

    with torch.no_grad():
        forward = do_bench(lambda: f(*inputs), return_mode="median")
    y = f(*inputs)
    cotangent = torch.randn_like(y)
    del y

    def step() -> None:
        torch.autograd.grad(f(*inputs), inputs, cotangent, allow_unused=True)

    both = do_bench(step, return_mode="median")
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step()
    return forward, both, (torch.cuda.max_memory_allocated() - before) / 2**20


def measure(case, T: int, dtype: torch.dtype, bandwidth: float) -> None:
    """The rows of one case at one length."""
    torch.manual_seed(0)
    inputs = cast(case, case.inputs(T, False), dtype, "cuda")
    moved = sum(x.nbytes for x in inputs) + case.ours(*inputs).nbytes
    for name, make in {"archspec": lambda: case.ours, **case.peers}.items():
        try:
            forward, both, peak = timed(make(), inputs)
        except ImportError:
            print(f"| {case.name} | {T} | {name} | not installed | | | |", flush=True)
            continue
        except torch.OutOfMemoryError:
            print(f"| {case.name} | {T} | {name} | out of memory | | | |", flush=True)
            continue
        share = f"{moved / bandwidth * 1e3 / forward:.0%}" if case.memory_bound else ""
        print(f"| {case.name} | {T} | {name} | {forward:.3f} | {both:.3f} | {peak:.0f} | {share} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lengths", type=int, nargs="+", default=[1024, 4096, 16384, 65536])
    parser.add_argument("--dtype", choices=("bfloat16", "float16", "float32"), default="bfloat16")
    parser.add_argument("--only", help="cases whose name contains this")
    parser.add_argument("--tiny", action="store_true", help="run every case once in the interpreter, without a GPU")
    args = parser.parse_args()
    if args.tiny:
        os.environ["TRITON_INTERPRET"] = "1"
    elif not torch.cuda.is_available():
        raise SystemExit("no GPU here: nothing was measured (--tiny checks the harness and the kernels without one)")

    from gpu_cases import CASES

    from archspec.kernels import backend

    chosen = [case for case in CASES if args.only is None or args.only in case.name]
    if args.tiny:
        backend.GPU_DEVICES = ("cpu",)  # the float64 side stays on PyTorch: Triton kernels take no float64
        for case in chosen:
            worst = error(case, TINY_T, True, torch.float32, "cpu")
            print(f"{case.name}: {worst:.0e} from float64", flush=True)
            if not worst < 1e-4:
                raise SystemExit(f"{case.name} is wrong")
        return

    dtype = getattr(torch, args.dtype)
    bandwidth = copy_bandwidth()
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {args.dtype}, copy {bandwidth / 1e9:.0f} GB/s\n")
    print("| operation | T | implementation | forward ms | forward + backward ms | peak MiB | copy |")
    print("|---|---|---|---|---|---|---|")
    for case in chosen:
        worst = error(case, 300, True, dtype, "cuda")
        if not worst < {"bfloat16": 4e-2, "float16": 8e-3, "float32": 1e-4}[args.dtype]:
            print(f"| {case.name} | | archspec | wrong by {worst:.0e} | | | |", flush=True)
            continue
        for T in args.lengths:
            if case.longest >= T:
                measure(case, T, dtype, bandwidth)


if __name__ == "__main__":
    main()
