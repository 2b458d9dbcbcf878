"""Where neither Triton nor Numba is installed every family runs by PyTorch alone, and gives the same results."""

import subprocess
import sys

import pytest
import torch
from test_every_family import FAMILIES, Call

MISSING = """
import sys

for name in ("numba", "triton"):
    sys.modules[name] = None  # importing it fails, as where it is missing
"""
SWITCHED_OFF = """
import os

os.environ["NUMBA_DISABLE_JIT"] = "1"  # Numba is there, and compiles nothing
"""
PROGRAM = """
import sys
import torch

sys.path.insert(0, "tests/kernels")
from test_every_family import FAMILIES, Call

results = {}
for family in FAMILIES:
    torch.manual_seed(0)
    call = Call(family)
    leaves = call.leaves()
    y = call(*leaves)
    results[family] = [y.detach(), *call.gradients(y, leaves)]
torch.save(results, sys.argv[1])
assert not any(name.startswith(("archspec.kernels.gpu.", "archspec.kernels.cpu.")) for name in sys.modules)
"""


@pytest.fixture(scope="module", params=[MISSING, SWITCHED_OFF], ids=["missing", "switched off"])
def results(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[torch.Tensor]]:
    """Output and gradients of every family, from a process that can import neither, or compile nothing."""
    path = str(tmp_path_factory.mktemp("plain") / "results.pt")
    subprocess.run([sys.executable, "-c", request.param + PROGRAM, path], check=True)
    return torch.load(path)


@pytest.mark.parametrize("family", FAMILIES)
def test_without_triton_and_numba(family, results):
    call = Call(family)
    leaves = call.leaves()
    y = call(*leaves)
    for with_them, without in zip([y.detach(), *call.gradients(y, leaves)], results[family], strict=True):
        torch.testing.assert_close(with_them, without, rtol=2e-4, atol=2e-4)
