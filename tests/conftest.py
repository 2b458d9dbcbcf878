"""Options of the test run."""

import atexit
import gc
import os
import random
import shutil
import tempfile

import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when triton is first imported
if "TORCHINDUCTOR_CACHE_DIR" not in os.environ:  # graphs kept from an earlier run hold operators as they were then
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder = tempfile.mkdtemp(prefix="inductor")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)


def pytest_collection_finish() -> None:
    """Garbage collection need not go over thousands of tests, and what they import, again and again."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    """What is left is collected at the end as ever."""
    gc.unfreeze()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """The same random numbers in a test whatever ran before it; before its fixtures, of which some live longer."""
    random.seed(0)
    torch.manual_seed(0)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite the expected texts instead of comparing")


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    """Whether expected texts are rewritten."""
    return bool(request.config.getoption("--update-golden"))
