"""One readable PyTorch file from a spec (`generate`, which needs no torch), and the model that it defines (`load`)."""

from archspec.codegen.generate import generate

__all__ = ["generate"]
