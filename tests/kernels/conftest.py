import pytest
import torch
from kernel_checks import Face

from archspec.kernels import backend


@pytest.fixture(autouse=True)
def one_thread_and_a_fixed_seed():
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture
def face(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Face:
    """One implementation of a family, made the one that runs: "torch", "compiled" or "triton" (see `faces`)."""
    face = Face(request.param)
    if face.name == "triton":
        pytest.importorskip("triton")
        # without a GPU the interpreter runs the kernels on tensors of the CPU
        monkeypatch.setattr(backend, "GPU_DEVICES", (face.device,))
    elif face.name == "compiled":
        pytest.importorskip("numba")
    else:
        monkeypatch.setattr(backend, "GPU_DEVICES", ())
        monkeypatch.setattr(backend, "CPU_DEVICES", ())
    return face
