"""Compiles every Triton kernel to machine code for a GPU that need not be there.

    python tests/kernels/compile_kernels.py [--target 80|90|100] [family ...]

The files in launches/ call the functions of `archspec.kernels.gpu` on tensors of the CPU; each launch is compiled as it
would be for those types and sizes, and not run. Prints the kernels with their shared memory; fails where one does not
compile or wants more than the GPU has.
"""

import argparse
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

os.environ.pop("TRITON_INTERPRET", None)

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.autotuner import Autotuner
from triton.runtime.jit import JITFunction

SHARED_BYTES = {80: 163 * 1024, 90: 227 * 1024, 100: 227 * 1024}  # that one block may use (CUDA programming guide)
FOLDER = Path(__file__).parent / "launches"


class NoGPU:
    """What Triton asks of a driver before it compiles."""

    def __init__(self, capability: int):
        self.capability = capability

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.capability, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int = 0) -> int:
        return 0

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")


def compile_all(capability: int, families: list[str]) -> None:
    from archspec.kernels import backend

    backend.GPU_DEVICES = ("cpu",)
    driver.set_active(NoGPU(capability))
    seen: dict[tuple[str, int], int] = {}
    run, tune = JITFunction.run, Autotuner.run

    def only_compile(self: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> Any:
        compiled = run(self, *args, grid=grid, warmup=True, **options)
        shared = compiled.metadata.shared
        key = (self.fn.__name__, shared)
        seen[key] = seen.get(key, 0) + 1
        if shared > SHARED_BYTES[capability]:
            raise SystemExit(f"{self.fn.__name__}: {shared} bytes of shared memory, sm_{capability} has fewer")
        return compiled

    def every_config(self: Any, *args: Any, **options: Any) -> None:
        for config in self.configs:
            self.fn.run(*args, **options, **config.all_kwargs())

    JITFunction.run, Autotuner.run = only_compile, every_config  # type: ignore[method-assign]
    try:
        for family in families:
            seen.clear()
            spec = importlib.util.spec_from_file_location(family, FOLDER / f"{family}.py")
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            module.launches()
            for (name, shared), times in sorted(seen.items()):
                print(f"sm_{capability} {family}: {name}, {shared} bytes shared, compiled {times}x")
    finally:
        JITFunction.run, Autotuner.run = run, tune  # type: ignore[method-assign]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", type=int, default=90, choices=sorted(SHARED_BYTES))
    parser.add_argument("family", nargs="*")
    asked = parser.parse_args()
    compile_all(asked.target, asked.family or sorted(p.stem for p in FOLDER.glob("[!_]*.py")))
    sys.stdout.flush()
