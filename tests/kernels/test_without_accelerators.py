"""Where neither Triton nor Numba is installed every family runs by PyTorch alone, and gives the same results."""

import subprocess
import sys

import pytest
import torch
from test_every_family import FAMILIES, Call

PROGRAM = """
import sys
import torch

family, path = sys.argv[1:]
for name in ("numba", "triton"):
    sys.modules[name] = None  # importing it fails, as where it is missing

sys.path.insert(0, "tests/kernels")
from test_every_family import Call

torch.manual_seed(0)
call = Call(family)
leaves = call.leaves()
y = call(*leaves)
torch.save([y.detach(), *call.gradients(y, leaves)], path)
assert not any(name.startswith(("archspec.kernels.gpu.", "archspec.kernels.cpu.")) for name in sys.modules)
"""


@pytest.mark.parametrize("family", FAMILIES)
def test_without_triton_and_numba(family, tmp_path):
    path = str(tmp_path / "results.pt")
    subprocess.run([sys.executable, "-c", PROGRAM, family, path], check=True)
    call = Call(family)
    leaves = call.leaves()
    y = call(*leaves)
    for with_them, without in zip([y.detach(), *call.gradients(y, leaves)], torch.load(path), strict=True):
        torch.testing.assert_close(with_them, without, rtol=2e-4, atol=2e-4)
