"""Ops as components write them down, and what is asked of several together."""

from collections.abc import Mapping
from dataclasses import replace

from archspec.layers.ops.op import Op
from archspec.layers.ops.pointwise import Elementwise
from archspec.layers.ops.products import Linear, Norm
from archspec.layers.tensors import Param, Shape


def linear(
    name: str,
    d_in: int,
    d_out: int,
    bias: bool = False,
    *,
    inputs: tuple[str, ...] = ("x",),
    takes: tuple[str, ...] = (),
    rows: Shape = ("B", "T"),
    heads: int | None = None,
    outputs: tuple[tuple[str, int], ...] = (),
    residual: bool = False,
    wide: bool = False,
    note: str = "",
) -> Linear:
    """The op of a projection `linear(c, name, d_in, d_out, bias=bias)`; arguments as the attributes of `Linear`."""
    params = [Param(f"{name}.weight", (d_out, d_in), residual=residual)]
    params += [Param(f"{name}.bias", (d_out,), residual=residual)] if bias else []
    return Linear(
        name=name, shape=(*rows, d_out), inputs=inputs, params=tuple(params), note=note, outputs=outputs,
        takes=takes, d_in=d_in, d_out=d_out, rows=rows, heads=heads, wide=wide,
    )  # fmt: skip


def split(op: Linear, unit: str, axis: int = 0) -> Linear:
    """A projection shared among devices: its outputs by that unit (axis 0), or its inputs, whose products add up (1).

    Of outputs that lie side by side (`outputs`) each is split for itself. A bias of what adds up belongs to one device.
    """
    shared = [p._replace(split=(unit, axis)) if len(p.shape) > axis else p for p in op.params]
    return replace(op, params=tuple(shared))


def projection(ops: Mapping[str, Op], name: str) -> Linear | None:
    """The projection whose output stands under that name, through norms and element-wise steps; None without one."""
    found = ops.get(name)
    while isinstance(found, Norm | Elementwise) and found.inputs:
        found = ops.get(found.inputs[0])
    return found if isinstance(found, Linear) else None
