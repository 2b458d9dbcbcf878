"""Every Triton kernel compiles to machine code at real widths, though no GPU is here to run it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
FAMILIES = sorted(p.stem for p in (HERE / "launches").glob("[!_]*.py"))


@pytest.mark.parametrize("family", FAMILIES)
def test_kernels_compile(family: str) -> None:
    pytest.importorskip("triton")
    script = [sys.executable, str(HERE / "compile_kernels.py"), family]
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(script, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-4000:]
    assert f"sm_90 {family}: " in done.stdout, "no kernel was launched"
