"""Memory of a training step: what is kept for the backward pass equals, to the byte, what autograd keeps."""

from collections.abc import Iterable
from typing import Any

import pytest
import torch
from contract_models import models
from contract_specs import cases, hosted, inputs, name
from contract_storages import SavedBytes
from torch import Tensor, nn

from archspec.codegen.load import build
from archspec.language.load import load
from archspec.language.model import Spec
from archspec.passes.memory import Memory, memory

WIDTHS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def asked(spec: Spec, T: int = 9, B: int = 2, **options: Any) -> Memory:
    """The memory of a training step of B sequences of T tokens."""
    return memory(spec, batch=B, seq=T if spec.main.embedding.n_tokens == "T" else None, **options)


def given(spec: Spec, dtype: torch.dtype, T: int, B: int) -> dict[str, Any]:
    """Arguments of the model in its type."""
    found = inputs(spec, T=T, B=B)
    return {k: v.to(dtype) if isinstance(v, Tensor) and v.is_floating_point() else v for k, v in found.items()}


def measured(spec: Spec, model: nn.Module, dtype: str, T: int = 9, B: int = 2) -> SavedBytes:
    """What a forward pass of the built model leaves."""
    model.to(WIDTHS[dtype]).eval()
    arguments = given(spec, WIDTHS[dtype], T, B)
    with SavedBytes(model, [v for v in arguments.values() if isinstance(v, Tensor)]) as found:
        y = model(**arguments)
    assert y.requires_grad
    return found


def check(spec: Spec, T: int = 9, B: int = 2, dtypes: Iterable[str] = WIDTHS) -> None:
    """What is said equals what is measured, wherever it is said without reservation."""
    model = build(spec)
    for dtype in dtypes:
        said = asked(spec, T, B, dtype=dtype)
        assert sum(line.bytes for line in said.by_node) == said.saved_bytes
        if "saved_bytes" not in said.estimates:
            found = measured(spec, model, dtype, T, B)
            assert said.saved_bytes == found.total, found.log


@pytest.mark.parametrize("case", cases(), ids=name)
def test_every_example_of_every_kind(case: tuple[str, str, int]) -> None:
    check(hosted(*case))


@pytest.mark.parametrize("kind", models())
def test_whole_models(kind: str) -> None:
    check(load(models()[kind]), T=7, B=3)
