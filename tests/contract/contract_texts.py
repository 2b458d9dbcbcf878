"""Generated texts, each written once a session whatever the number of test processes, and the models made of them."""

import os
from pathlib import Path

import pytest
import torch
from torch import nn

from archspec.codegen import generate
from archspec.codegen.load import load_text
from archspec.language.model import Spec
from archspec.modules.model import eager


class Texts:
    """A folder that all test processes share."""

    def __init__(self, factory: pytest.TempPathFactory):
        base = factory.getbasetemp()
        self.folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "texts"
        self.folder.mkdir(exist_ok=True)

    def path(self, spec: Spec, standalone: bool = False) -> Path:
        """The generated file of a spec."""
        file = self.folder / f"m_{spec.digest}{'_standalone' if standalone else ''}.py"
        if not file.exists():
            part = file.with_suffix(f".{os.getpid()}")
            part.write_text(generate(spec, standalone="fast" if standalone else False))
            part.rename(file)
        return file

    def text(self, spec: Spec, standalone: bool = False) -> str:
        """The text of that file."""
        return self.path(spec, standalone).read_text()

    def all(self, specs: list[Spec], standalone: list[Spec]) -> None:
        """Write whatever is not written yet."""
        for spec in specs:
            self.path(spec)
        for spec in standalone:
            self.path(spec, standalone=True)

    def model(self, spec: Spec, seed: int = 0) -> nn.Module:
        """A model of the generated text, its weights drawn with that seed."""
        module = load_text(self.text(spec), f"{spec.name}_{spec.digest}")
        torch.manual_seed(seed)
        return module.Model()  # type: ignore[no-any-return]


def interpreted(spec: Spec, seed: int = 0) -> nn.Module:
    """The model without generated text, its weights drawn with that seed."""
    torch.manual_seed(seed)
    return eager(spec)
