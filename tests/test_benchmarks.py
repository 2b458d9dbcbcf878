"""The benchmarks of kernels run, at sizes where their times mean nothing: their checks are what is tested."""

import os
import subprocess
import sys

import pytest

ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1"}


def run(*command: str) -> str:
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, env=ONE_THREAD, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_every_gpu_case_in_the_interpreter() -> None:
    pytest.importorskip("triton")
    assert run("benchmarks/kernels_gpu.py", "--tiny").count("from float64") >= 19


@pytest.mark.parametrize("options", [[], ["--no-numba"]])
def test_every_cpu_case(options: list[str]) -> None:
    table = run("benchmarks/kernels_cpu.py", "--lengths", "40", "--rounds", "1", *options)
    for name in ("mamba", "ssd", "gated delta rule", "kda", "wkv", "rg-lru"):
        assert table.count(f"| {name}, ") == 2
