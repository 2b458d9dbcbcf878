"""A whole model run straight from its lowered program: what generated files are compared with."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

from torch import Tensor, nn

from archspec.decoding.layout import SPEC
from archspec.kernels import padding
from archspec.kernels.collect import collect, scope
from archspec.kernels.loss.answers import class_loss, number_loss
from archspec.kernels.moe.balance import move_biases, router_loss
from archspec.kernels.state import atomic, once, substate
from archspec.language.depth import value_at
from archspec.language.model import Spec
from archspec.layers.base import Component
from archspec.lowering import Function, lower_model
from archspec.lowering.program import (
    Apply,
    Assign,
    Binary,
    ByName,
    Call,
    Collect,
    Dropout,
    Each,
    Expression,
    Layers,
    Member,
    Negate,
    Number,
    Once,
    Period,
    PerLayer,
    Scoped,
    Substate,
    Value,
)
from archspec.modules import submodule


class Interpreted(nn.Module):
    """A function of the program as a module: its members are sub-modules, its forward runs its statements."""

    def __init__(self, function: Function, layer: int = 0):
        super().__init__()
        self.__dict__["_function"] = function  # a member may have any name that does not start with _
        for member in function.members:
            self.add_module(member.name, _made(member, layer))
        for factor in function.per_layer:
            setattr(self, factor.name, value_at(factor.text, layer))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the parameters of the function say -> what it returns."""
        function: Function = self.__dict__["_function"]
        names = [p.name for p in function.parameters]
        given = dict(zip(names, args, strict=False)) | kwargs
        if unknown := given.keys() - set(names):
            raise TypeError(f"forward takes {', '.join(names)}, found {', '.join(sorted(unknown))}")
        run = _Run(self, {"None": None} | dict.fromkeys(names) | given)
        for statement in function.statements:
            run.statement(statement)
        result = run.value(function.result)
        return (result, *(run.values[name] for name in function.gives)) if function.gives else result


class _Run:
    """One call of a function: its values by name."""

    def __init__(self, module: nn.Module, values: dict[str, Any]):
        self.module, self.values = module, values

    def statement(self, statement: Assign | Each) -> None:
        """Run one statement."""
        if isinstance(statement, Assign):
            value, targets = self.value(statement.value), statement.target.split(", ")
            self.values.update(zip(targets, value if len(targets) > 1 else (value,), strict=True))
            return
        x = self.values[statement.target]
        layers = self.module.get_submodule(statement.member)
        assert isinstance(layers, nn.ModuleList)
        between = [passed for run in statement.runs for passed in run.layers * run.repeat]
        for i, layer in enumerate(layers):  # one that stands in several places is called in each
            given = {name: self.value(value, i) for name, value in statement.named}
            if not between:
                x = layer(x, **given)
                continue
            x = layer(x, **{name: self.values[name] for name in between[i].reads}, **given)
            if between[i].gives:
                x, *values = x
                self.values.update(zip(between[i].gives, values, strict=True))
        self.values[statement.target] = x

    def value(self, expression: Expression, number: int = 0) -> Any:
        """What an expression comes to; `number` is that of the layer that is called with it."""
        match expression:
            case Value(name=name):
                return self.values[name]
            case Number(value=constant):
                return constant
            case PerLayer(name=name):
                return getattr(self.module, name)
            case Negate(operand=operand):
                return -self.value(operand)
            case Binary(operator=operator, left=left, right=right):
                a, b = self.value(left), self.value(right)
                return a + b if operator == "+" else a - b if operator == "-" else a * b
            case Call(member=member, argument=argument, named=named, by_rows=by_rows):
                x, given = self.value(argument), {name: self.value(value) for name, value in named}
                layer = self.module.get_submodule(member)
                return padding.by_document(layer, x, self.values["rows"], **given) if by_rows else layer(x, **given)
            case Apply(function=function, arguments=arguments):
                return getattr(padding, function)(*(self.value(argument) for argument in arguments))
            case Substate(key=key):
                return substate(self.values["state"], number if key is None else key)
            case Collect():
                return collect(self.values["aux"])
            case Scoped(key=key, numbered=numbered):
                return scope(self.values["aux"], f"{key}.{number}" if numbered else key)
            case Once(key=key, value=value):
                return once(self.values["state"], key, lambda: self.value(value))
            case ByName(items=items):
                return {name: self.value(value) for name, value in items}


def _made(member: Member, layer: int) -> nn.Module:
    match member.made:
        case Function() as function:
            return Interpreted(function)
        case Dropout(rate=rate):
            return nn.Dropout(rate)
        case Layers(periods=periods):
            return nn.ModuleList(module for p in periods for module in _period(p))
        case Component() as c:
            return submodule(c, *(() if member.width is None else (member.width,)), *((layer,) if c.numbered else ()))
    raise TypeError(f"{member.name} cannot be made")


def _period(period: Period) -> list[Interpreted]:
    if period.shared:
        return [Interpreted(layer) for layer in period.layers] * period.repeat
    return [Interpreted(layer, period.start + i) for i, layer in enumerate(period.layers * period.repeat)]


class Model(Interpreted):
    """The program of a spec, with tied tensors and started weights."""

    def __init__(self, spec: Spec):
        super().__init__(lower_model(spec))
        self.__dict__[SPEC] = spec
        self._tie()
        self._init_weights()

    def _init_weights(self) -> None:
        spec: Spec = self.__dict__[SPEC]
        import_module(f"archspec.modules.inits.{spec.init.kind}").init_weights(self, spec.init)

    forward = atomic(Interpreted.forward)

    def _tie(self) -> None:
        spec: Spec = self.__dict__[SPEC]
        for replaced, used in spec.ties:
            module, _, leaf = replaced.rpartition(".")
            setattr(self.get_submodule(module), leaf, self.get_parameter(used))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Model":
        """Tied tensors stay one, also when `to_empty` makes others of them."""
        super()._apply(fn, recurse)
        self._tie()
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Tied tensors stay one, also when `load_state_dict(assign=True)` takes others for them."""
        spec: Spec = self.__dict__[SPEC]
        for tied in spec.tied:
            names = [prefix + name for name in tied]
            if names[0] in state_dict:
                state_dict.update(dict.fromkeys(names, nn.Parameter(state_dict[names[0]])))
        super()._load_from_state_dict(state_dict, prefix, *args)

    def loss(self, answers: dict[str, Tensor], targets: dict[str, Tensor]) -> dict[str, Tensor]:
        """The loss of each of `heads` by name, and as "total" their weighted sum."""
        spec: Spec = self.__dict__[SPEC]
        losses: dict[str, Tensor] = {}
        for head in spec.heads:
            answer, target = answers[head.name], targets[head.name]
            of_classes = head.component.learns == "classes"
            losses[head.name] = (
                class_loss(answer, target, spec.ahead(head)) if of_classes else number_loss(answer, target)
            )
        first, *others = (head.loss_weight * losses[head.name] for head in spec.heads)
        return losses | {"total": sum(others, first)}

    def aux_loss(self, aux: dict[str, Tensor], group: Any = None) -> Tensor:
        """The losses of the routers in one forward pass, which was given `aux`."""
        return router_loss(aux, group)

    def update_bias(self, *collected: dict[str, Tensor], group: Any = None) -> None:
        """Move every router's correction bias, by the `aux` of each forward pass of a training step."""
        move_biases(self, collected, group)


def eager(spec: Spec) -> Model:
    """The model of a spec, interpreted."""
    return Model(spec)
