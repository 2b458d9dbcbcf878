"""What a module does, seen from outside: which op ran on whose output, what it gave, and how many FLOPs it took.

Every tensor carries the names of the ops that it comes from. A product with a weight, a norm and a call of a kernel is
an op of its own: what it gives comes from it alone. Anything else is element-wise, and what it gives comes from
wherever its operands do. Nothing of the module is changed, and on the meta device nothing is computed.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import wraps
from inspect import signature
from math import prod
from types import FunctionType
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from archspec.layers.ops import Elementwise, Norm, Op
from archspec.verify.given import first

Origins = frozenset[str]
NOBODY: Origins = frozenset()
KERNELS, STATE = "archspec.kernels.", "archspec.kernels.state"  # functions on the state only hand tensors on
WEIGHTED = {F.linear, F.embedding, F.conv2d, torch.conv2d}  # functions that are an op by the weight that they are given
LIKE_SECOND = {Tensor.view_as, Tensor.expand_as, Tensor.reshape_as, Tensor.type_as}  # the second gives its shape only
TAKES_APART = {Tensor.view, Tensor.reshape, Tensor.unflatten}
EMPTY = {torch.zeros_like, torch.ones_like, torch.empty_like, torch.full_like, Tensor.new_zeros, Tensor.new_ones,
         Tensor.new_empty, Tensor.new_full}  # fmt: skip


@dataclass
class Seen:
    """What was seen of one op.

    Attributes:
        reads: the ops and arguments that it read.
        shapes: of what it gave.
        flops: that it took.
        rows: the last axis of the first tensor that it was given.
        views: (heads, channels) into which its output was taken apart at once.
        settings: arguments of its kernel that are no tensors, defaults included.
    """

    reads: set[str] = field(default_factory=set)
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    flops: int = 0
    rows: list[int] = field(default_factory=list)
    views: set[tuple[int, int]] = field(default_factory=set)
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass
class Trace:
    """What was seen of all ops, what the module gave in the end, and the FLOPs that belong to no op."""

    ops: dict[str, Seen]
    output: set[str]
    stray_flops: int


def trace(module: nn.Module, ops: Sequence[Op], arguments: dict[str, Any]) -> Trace:
    """Run a module once.

    Args:
        module: in evaluation mode, most cheaply on the meta device.
        ops: those of its component, which say what parameters and kernels belong to.
        arguments: what forward takes, by name; the first is x.
    """
    tracer = _Tracer(module, ops)
    names = list(arguments)
    for name, value in arguments.items():
        tracer.mark(value, frozenset({"x" if name == names[0] else name}))
    with tracer.patched(), FlopCounterMode(display=False) as counter, tracer, torch.no_grad():
        tracer.flops = counter.get_total_flops
        output = first(module(*list(arguments.values())[:1], **{k: v for k, v in arguments.items() if k != names[0]}))
    total = counter.get_total_flops() - sum(seen.flops for seen in tracer.seen.values())
    return Trace(tracer.seen, set(tracer.origins(output)), total)


class _Tracer(TorchFunctionMode):
    """Follows tensors through torch functions, sub-modules and kernels."""

    def __init__(self, module: nn.Module, ops: Sequence[Op]):
        super().__init__()
        self.module, self.ops = module, {op.name: op for op in ops}
        self.seen: dict[str, Seen] = {}
        self.of: dict[int, Origins] = {}
        self.alive: list[Any] = []  # whose ids must not be given to others
        self.owner: dict[int, str] = {}
        self.depth = 0  # inside a kernel or a norm nothing is followed
        self.flops: Callable[[], int] = lambda: 0
        self.turn: dict[str, int] = {}
        self.raw: dict[int, str] = {}  # what an op gave, as it gave it
        for op in ops:
            names = [f"{op.name}.weight", *(p.name for p in op.params)]  # the weight of a tied head is another's
            for name in names if not isinstance(op, Elementwise) else ():
                tensor = _tensor(module, name)
                if tensor is not None:
                    self.owner[id(tensor)] = op.name

    # Origins

    def mark(self, value: Any, origins: Origins) -> None:
        """Say where a tensor, or all tensors of a collection, come from."""
        for tensor in _tensors(value):
            self.of[id(tensor)] = origins
            self.alive.append(tensor)

    def origins(self, value: Any) -> Origins:
        """Where a tensor, or a collection of them, comes from; a weight by itself comes from its op."""
        found: set[str] = set()
        for tensor in _tensors(value):
            owner = self.owner.get(id(tensor))
            if owner is not None:
                self.seen.setdefault(owner, Seen()).shapes.append(tuple(tensor.shape))
            found |= {owner} if owner is not None else self.of.get(id(tensor), NOBODY)
        return frozenset(found)

    def record(self, name: str, sources: Iterable[Any], run: Callable[[], Any]) -> Any:
        """Run an op and note what it read, gave and took."""
        reads = self.origins([t for s in sources for t in _tensors(s) if self.owner.get(id(t)) != name])
        before = self.flops()
        self.depth += 1
        try:
            output = run()
        finally:
            self.depth -= 1
        seen = self.seen.setdefault(name, Seen())
        seen.reads |= reads - {name}
        seen.flops += self.flops() - before
        seen.shapes += [tuple(t.shape) for t in list(_tensors(output))[:1]]
        seen.rows += [t.shape[-1] for t in list(_tensors(sources))[:1] if t.dim()]
        self.raw |= {id(t): name for t in list(_tensors(output))[:1]}
        self.mark(output, frozenset({name}))
        return output

    # What is followed

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.depth:
            return func(*args, **kwargs)
        operands = [*args, *kwargs.values()]
        weight = next((self.owner[id(t)] for t in _tensors(operands) if id(t) in self.owner), None)
        if weight is not None and func in WEIGHTED:
            return self.record(weight, operands, lambda: func(*args, **kwargs))
        output = func(*args, **kwargs)
        if func in TAKES_APART and id(args[0]) in self.raw and prod(output.shape[-2:]) == args[0].shape[-1]:
            self.seen[self.raw[id(args[0])]].views.add((output.shape[-2], output.shape[-1]))
        if not any(True for _ in _tensors(output)):
            return output
        if weight is not None and all(id(t) in self.owner for t in _tensors(operands)):
            self.owner |= {id(t): weight for t in _tensors(output)}  # a weight in another type or shape
            self.alive.append(output)
            return output
        read = [] if func in EMPTY else operands[:1] if func in LIKE_SECOND else operands
        found = self.origins(read)
        written = next(iter(_tensors(args[:1])), None) if func is Tensor.__setitem__ or _in_place(func) else None
        self.mark(output if written is None else [output, written], found)
        return output

    def kernel(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A kernel that is an op where one of the ops names it, and element-wise otherwise."""
        name = function.__name__
        own = [op.name for op in self.ops.values() if op.kernel == name]

        @wraps(function)
        def followed(*args: Any, **kwargs: Any) -> Any:
            if self.depth:
                return function(*args, **kwargs)
            operands = [*args, *kwargs.values()]
            if own:
                turn = self.turn[name] = self.turn.get(name, -1) + 1
                op = own[min(turn, len(own) - 1)]
                self.seen.setdefault(op, Seen()).settings |= _settings(function, args, kwargs)
                return self.record(op, operands, lambda: function(*args, **kwargs))
            self.depth += 1
            try:
                output = function(*args, **kwargs)
            finally:
                self.depth -= 1
            self.side_by_side(output, args, operands)
            return output

        return followed

    def side_by_side(self, output: Any, args: Sequence[Any], operands: Sequence[Any]) -> None:
        """A function that gives as many tensors as it takes first, in their shapes, changes each by itself (RoPE)."""
        given = list(_tensors(output))
        pairs = list(zip(given, args, strict=False))
        each = len(given) > 1 and len(pairs) == len(given)
        if each and all(isinstance(a, Tensor) and a.shape == g.shape for g, a in pairs):
            for tensor, source in pairs:
                self.mark(tensor, self.origins(source))
        elif any(t is not None for t in given):
            self.mark(output, self.origins(operands))

    @contextmanager
    def patched(self) -> Iterator[None]:
        """Kernels followed wherever a sub-module calls them, and norms as ops of their own."""
        with ExitStack() as stack:
            for home in {type(m).__module__ for m in self.module.modules()}:
                names = vars(sys.modules[home])
                stack.enter_context(patch.dict(names, {n: self.kernel(f) for n, f in names.items() if _is_kernel(f)}))
            for op in self.ops.values():
                norm = _submodule(self.module, op.name) if isinstance(op, Norm) and not op.kernel else None
                if norm is not None:
                    stack.enter_context(patch.object(norm, "forward", self.norm(op.name, norm.forward)))
            yield

    def norm(self, name: str, forward: Callable[..., Any]) -> Callable[..., Any]:
        """The forward of a norm as an op."""
        return lambda x: self.record(name, (x,), lambda: forward(x))


def _settings(function: Callable[..., Any], args: Any, kwargs: Any) -> dict[str, Any]:
    """The arguments of a call that are no tensors, by name."""
    bound = signature(function).bind(*args, **kwargs)
    bound.apply_defaults()
    return {name: value for name, value in bound.arguments.items() if not any(True for _ in _tensors(value))}


def _is_kernel(value: Any) -> bool:
    return isinstance(value, FunctionType) and value.__module__.startswith(KERNELS) and value.__module__ != STATE


def _in_place(func: Any) -> bool:
    name = str(getattr(func, "__name__", ""))
    return name.endswith("_") and not name.endswith("__")


def _tensors(value: Any) -> Iterator[Tensor]:
    """The tensors in a value, collections included."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, dict | nn.ParameterDict):
        for item in value.values():
            yield from _tensors(item)


def _tensor(module: nn.Module, name: str) -> Tensor | None:
    """A parameter or buffer by its full name."""
    return dict(module.named_parameters()).get(name, dict(module.named_buffers()).get(name))


def _submodule(module: nn.Module, name: str) -> nn.Module | None:
    return dict(module.named_modules()).get(name)
