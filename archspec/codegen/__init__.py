"""One readable PyTorch file from a spec, and the model that it defines."""

from archspec.codegen.generate import generate
from archspec.codegen.load import build, load_text

__all__ = ["build", "generate", "load_text"]
