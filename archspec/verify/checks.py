"""The properties that every model must have, in the order in which they are looked at."""

from collections.abc import Callable

from archspec.language.model import Spec
from archspec.verify.batches import packing, padding
from archspec.verify.built import declared, generated_equals_eager, tensors
from archspec.verify.order import causal, lengths
from archspec.verify.parts import each_part, windows
from archspec.verify.reached import reached
from archspec.verify.report import Finding
from archspec.verify.sample import Sample
from archspec.verify.stepwise import decoding, state
from archspec.verify.training import gradients, learns

OF_SPEC: tuple[tuple[str, Callable[[Spec], Finding]], ...] = (
    ("tensors", tensors),
    ("declared", declared),
)
OF_SAMPLE: tuple[tuple[str, Callable[[Sample], Finding]], ...] = (
    ("reach", reached),
    ("generated = eager", generated_equals_eager),
    ("gradients", gradients),
    ("loss falls", learns),
    ("causal", causal),
    ("any length", lengths),
    ("decoding", decoding),
    ("each part", each_part),
    ("windows", windows),
    ("state", state),
    ("padding", padding),
    ("packing", packing),
)
