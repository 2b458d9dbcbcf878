"""How the forward and backward computation of a family become one operator of torch.library.

An operator is what torch.compile, torch.export, autograd, activation checkpointing and the FLOP counter see instead of
the code behind it. A family writes plain functions of tensors and numbers; `operator` registers them together.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from inspect import signature
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import flop_registry, shape_wrapper

Shape = tuple[int, ...]  # what a formula of FLOPs is given in place of a tensor

NOTHING = nullcontext()
NAMESPACE = __name__.partition(".")[0]  # of its own in a copied file, which must not replace these


def operator(
    name: str,
    forward: Callable[..., Any],
    backward: Callable[..., Sequence[Tensor | None]],
    fake: Callable[..., Any],
    *,
    flops: Callable[..., int] | None = None,
    backward_flops: Callable[..., int] | None = None,
    keeps: Sequence[int] = (),
    selective: bool = False,
) -> Callable[..., Any]:
    """Register `forward` and return it as an operator with a gradient.

    forward(*inputs) -> a tensor or a tuple of tensors, none of them an input or a view of one. Its annotations are the
    schema, and its arguments are positional and have no defaults. An argument called `train` says whether to fill the
    outputs that only backward reads; they are computed then if a graph made without gradients is trained after all.
    backward(grads, outputs, *inputs): gradients of the inputs that are present floating tensors, in their order. grads
    holds one gradient an output, None for an output that nothing used; outputs holds the outputs numbered in `keeps`.
    fake(*inputs): empty contiguous tensors of the shapes and types that forward gives.
    flops, backward_flops: FLOPs of matrix products, from the inputs with shapes (tuples) in place of tensors.
    selective: backward and backward_flops also take `needed`, a bool for each present floating input in their order;
    where it is False, backward may give None. torch.func.grad takes no operator of torch.library, which one clear
    RuntimeError says.
    """
    schema = torch.library.infer_schema(forward, mutates_args=())
    if "=" in schema:  # autograd would not see an argument that equals its default
        raise TypeError(f"{name}: arguments of an operator have no defaults, got {schema}")
    arguments = list(signature(forward).parameters)
    train = arguments.index("train") if "train" in arguments else None
    single = schema.endswith("-> Tensor")
    main = torch.library.custom_op(f"{NAMESPACE}::{name}", _contiguous(forward), mutates_args=(), schema=schema)
    main.register_fake(fake)
    main.register_vmap(_one_by_one(main))

    gradient = torch.library.custom_op(
        f"{NAMESPACE}::{name}_backward",
        _checked_gradients(backward, selective),
        mutates_args=(),
        schema=f"(Tensor?[] grads, Tensor[] outputs, bool[] needed, {schema[1 : schema.rindex(') ->')]}) -> Tensor[]",
    )
    gradient.register_fake(
        lambda grads, outputs, needed, *inputs: [x.new_empty(x.shape) for x in _chosen(_floating(inputs), needed)]
    )

    def setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.set_materialize_grads(False)
        outputs = (output,) if single else output
        ctx.plain = [None if isinstance(x, Tensor) else x for x in inputs]
        ctx.places = [i for i, x in enumerate(inputs) if isinstance(x, Tensor)]
        ctx.save_for_backward(*(inputs[i] for i in ctx.places), *(outputs[i] for i in keeps))

    def run_backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        inputs, saved = list(ctx.plain), ctx.saved_tensors  # read once: checkpointing gives them out only once
        for place, tensor in zip(ctx.places, saved, strict=False):
            inputs[place] = tensor
        if all(grad is None for grad in grads):
            return (None,) * len(inputs)
        wanted = [need and _is_floating(x) for x, need in zip(inputs, ctx.needs_input_grad, strict=True)]
        needed = [want for x, want in zip(inputs, wanted, strict=True) if _is_floating(x)]
        outputs = list(saved[len(ctx.places) :])
        if train is not None and not inputs[train]:
            inputs[train] = True
            again = main(*inputs)
            outputs = [again[i] for i in keeps]
        found = iter(gradient(list(grads), outputs, needed, *inputs))
        return tuple(next(found) if want else None for want in wanted)

    main.register_autograd(run_backward, setup_context=setup)
    if flops is not None:
        _count(name, lambda *inputs, **_: flops(*inputs))
    if backward_flops is not None:

        def count_backward(grads: Any, outputs: Any, needed: Sequence[bool], *inputs: Any, **_: Any) -> int:
            return backward_flops(*inputs, **({"needed": needed} if selective else {}))

        _count(f"{name}_backward", count_backward)
    main.__class__ = _Operator  # the library makes its own class alone
    return main


def _is_floating(x: Any) -> bool:
    return isinstance(x, Tensor) and (x.is_floating_point() or x.is_complex())


def _floating(inputs: Sequence[Any]) -> list[Tensor]:
    return [x for x in inputs if _is_floating(x)]


def _chosen(of: Sequence[Any], needed: Sequence[bool]) -> list[Any]:
    return [x for x, need in zip(of, needed, strict=True) if need]


def _contiguous(forward: Callable[..., Any]) -> Callable[..., Any]:
    """`forward` on the device of its first tensor, with contiguous results: what the fake promises to the compiler."""

    def run(*inputs: Any) -> Any:
        with _as_written(inputs):
            result = forward(*inputs)
        return result.contiguous() if isinstance(result, Tensor) else tuple(x.contiguous() for x in result)

    return run


def _checked_gradients(
    backward: Callable[..., Sequence[Tensor | None]], selective: bool
) -> Callable[..., list[Tensor]]:
    """The needed gradients of `backward` in the types of the inputs; fails where one is missing or misshapen."""

    def run(grads: list[Tensor | None], outputs: list[Tensor], needed: list[bool], *inputs: Any) -> list[Tensor]:
        with _as_written(inputs):
            every = backward(grads, outputs, *inputs, **({"needed": needed} if selective else {}))
        found, wanted = _chosen(every, needed), _chosen(_floating(inputs), needed)
        assert [x.shape for x in found] == [x.shape for x in wanted], "one gradient for each floating input"
        return [x.to(like.dtype).contiguous() for x, like in zip(found, wanted, strict=True)]

    return run


def _as_written(inputs: Sequence[Any]) -> AbstractContextManager[Any]:
    """Types stay as the family chose them, also under autocast; the GPU of the tensors is current for its launches."""
    device = next(x for x in inputs if isinstance(x, Tensor)).device
    if device.type == "cpu":  # a context costs more than the test whether one is needed
        return torch.autocast("cpu", enabled=False) if torch.is_autocast_enabled("cpu") else NOTHING
    context = ExitStack()
    context.enter_context(torch.cuda.device(device))
    context.enter_context(torch.autocast(device.type, enabled=False))
    return context


class _Operator(torch.library.CustomOpDef):
    """An operator that says what it does not take."""

    def __call__(self, *inputs: Any) -> Any:
        if not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active():
            _refuse_gradients(self._name)
        return super().__call__(*inputs)


def _refuse_gradients(name: str) -> None:
    """Raise RuntimeError inside torch.func.grad and its like, where PyTorch takes no operator of torch.library."""
    inner = torch._C._functorch.peek_interpreter_stack()
    if inner is not None and inner.key() in (
        torch._C._functorch.TransformType.Grad,
        torch._C._functorch.TransformType.Jvp,
    ):
        raise RuntimeError(
            f"{name}: torch.func.grad, vjp and jvp take no operator of torch.library: take gradients with"
            " torch.autograd, for each sequence by itself where each needs its own"
        )


def _one_by_one(op: Callable[..., Any]) -> Callable[..., Any]:
    """A rule for torch.vmap: the operator runs once for each element of the mapped dimension."""

    def rule(info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> tuple[Any, Any]:
        def element(i: int) -> list[Any]:
            return [x if dim is None else x.select(dim, i) for x, dim in zip(inputs, in_dims, strict=True)]

        results = [op(*element(i)) for i in range(info.batch_size)]
        if isinstance(results[0], Tensor):
            return torch.stack(results), 0
        stacked = tuple(torch.stack(same) for same in zip(*results, strict=True))
        return stacked, (0,) * len(stacked)

    return rule


def _count(name: str, formula: Callable[..., int]) -> None:
    """Tell torch.utils.flop_counter what a call of the operator costs."""
    flop_registry[getattr(getattr(torch.ops, NAMESPACE), name)] = shape_wrapper(formula)
