"""The closed vocabulary of operations that components are made of.

An op says what it is called, what it reads, the shape of what comes out, its parameter tensors, its FLOPs, and what it
keeps while decoding. Counting, cost, graph, diagram and inits know components through these facts alone; each of them
is compared with what the built module does (`archspec.verify.trace`), so that none can be wrong unnoticed.

Shapes are tuples of whole numbers and symbols: B sequences, T new tokens, S tokens that can be seen (the context; S = T
without a cache), M tokens of the memory that cross-attention reads. One multiply-add is two FLOPs; `flops` counts
matrix products, convolutions and FFTs (what a hardware FLOP counter sees), without element-wise work.

Every rule of cost is written once and takes numbers or formulas (`archspec.formulas`).
"""

from archspec.layers.ops.attention import Attend, LatentAttend
from archspec.layers.ops.building import linear, projection, split
from archspec.layers.ops.convolutions import Conv, FFTConv
from archspec.layers.ops.experts import Experts, Route
from archspec.layers.ops.op import CLASSES, CONVOLUTION, ELEMENTWISE, MATMUL, SCAN, Op
from archspec.layers.ops.pointwise import (
    ADD,
    CONCAT,
    MULTIPLY,
    SCALE,
    SOFTCAP,
    SUBTRACT,
    Decay,
    Elementwise,
    Features,
    Rotate,
    Sine,
    StepSize,
    elementwise,
    gate,
    rotations,
)
from archspec.layers.ops.products import Embedding, GatedNorm, Linear, Norm
from archspec.layers.ops.recurrences import WKV, Recurrent, Scan
from archspec.layers.ops.shifts import Lerp, Shift, token_shift
from archspec.layers.tensors import How, Kept, Param, Run, Saved, Shape

__all__ = [
    "ADD", "CLASSES", "CONCAT", "CONVOLUTION", "ELEMENTWISE", "MATMUL", "MULTIPLY", "SCALE", "SCAN", "SOFTCAP",
    "SUBTRACT", "WKV", "Attend", "Conv", "Decay", "Elementwise", "Embedding", "Experts", "FFTConv", "Features",
    "GatedNorm", "How", "Kept", "LatentAttend", "Lerp", "Linear", "Norm", "Op", "Param", "Recurrent", "Rotate",
    "Route", "Run", "Saved", "Scan", "Shape", "Shift", "Sine", "StepSize", "elementwise", "gate", "linear",
    "projection", "rotations", "split", "token_shift",
]  # fmt: skip
