"""Proof, on the user's machine, that the built model is what the spec says and behaves as it must."""

from archspec.verify.report import Check, Report, Verdict
from archspec.verify.run import verify
from archspec.verify.shrink import shrink

__all__ = ["Check", "Report", "Verdict", "shrink", "verify"]
