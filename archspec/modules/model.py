"""A whole model run straight from its spec, without generated code: what generated files are compared with."""

from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from archspec.kernels.state import once, substate
from archspec.language.model import Segment, Spec
from archspec.language.model import Stack as StackConfig
from archspec.modules import submodule
from archspec.modules.block import Block


class Stack(nn.Module):
    """Embedding, layers and final norm."""

    def __init__(self, c: StackConfig):
        super().__init__()
        self.c = c
        self.embedding = submodule(c.embedding)
        if c.position_bias is not None:
            self.position_bias = submodule(c.position_bias)
        self.blocks = nn.ModuleList(b for s in c.segments for b in segment_blocks(s, c.d_model))
        if c.final_norm is not None:
            self.norm = submodule(c.final_norm, c.d_model)

    def forward(self, x: Tensor, state: Any = None, **inputs: Any) -> Tensor:
        """The stack's input -> (B, T, d_model)."""
        takes = {i: inputs.get(i) for i in self.c.embedding.arguments if i != "state"}
        if "state" in self.c.embedding.arguments and self.c.has_state:
            takes["state"] = substate(state, "embedding")
        x = self.embedding(x, **takes)
        if self.c.position_bias is not None:
            start = 0 if state is None else state.get("tokens", 0)
            if state is not None:
                state["tokens"] = start + x.shape[1]
            inputs["bias"] = self.position_bias(x.shape[1], start + x.shape[1])
        for i, block in enumerate(self.blocks):
            x = block(x, state=substate(state, i), **inputs)
        return self.norm(x) if self.c.final_norm is not None else x


def segment_blocks(segment: Segment, d_model: int) -> list[Block]:
    """The blocks of a segment; a shared one holds the same modules again and again."""
    if segment.shared:
        return [Block(layer.block, d_model) for layer in segment.layers] * segment.repeat
    return [Block(layer.block, d_model) for _ in range(segment.repeat) for layer in segment.layers]


class Model(nn.Module):
    """All stacks, the last of which feeds the head."""

    def __init__(self, spec: Spec):
        super().__init__()
        self.spec = spec
        stacks = {s.name: Stack(s) for s in spec.stacks}
        if len(stacks) == 1:
            for name, child in stacks[spec.main.name].named_children():
                self.add_module(name, child)
            self.__dict__["single"] = stacks[spec.main.name]
        else:
            for name, stack in stacks.items():
                self.add_module(name, stack)
        self.head = submodule(spec.head)
        for replaced, used in spec.ties:
            module, _, leaf = replaced.rpartition(".")
            setattr(self.get_submodule(module), leaf, self.get_parameter(used))
        kind = getattr(spec.init, "kind")  # noqa: B009 - every init has one, the base class does not know
        import_module(f"archspec.modules.inits.{kind}").init_weights(self, spec.init)

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """As `Spec.arguments` says; returns what the head gives."""
        names = [a.name for a in self.spec.arguments]
        given = dict(zip(names, args, strict=False)) | kwargs
        if len(self.spec.stacks) == 1:
            single: Stack = self.__dict__["single"]
            return self.head(single(given.pop(names[0]), **given), **self.pooling(given))
        state = given.get("state")
        outputs: dict[str, Tensor] = {}
        for stack in self.spec.stacks:
            run = _Run(self, stack, given, outputs)
            last = stack is self.spec.main
            outputs[stack.name] = run() if last else once(state, f"{stack.name}_output", run)
        return self.head(outputs[self.spec.main.name], **self.pooling(given))

    def pooling(self, given: dict[str, Any]) -> dict[str, Any]:
        """What the head takes beside the hidden states: the mask of the main stack, where it pools over tokens."""
        own = {a.of: a.name for a in self.spec.arguments if a.stack == self.spec.main.name}
        return {i: given.get(own[i]) for i in self.spec.head.arguments}

    def aux_loss(self) -> Tensor:
        """The sum of the routers' losses of the last forward pass in training."""
        found = [loss for m in self.modules() if isinstance(loss := getattr(m, "aux_loss", None), Tensor)]
        return torch.stack(found).sum() if found else torch.zeros(())

    def update_bias(self) -> None:
        """Move every router's correction bias against its load: call once after each training step."""
        for module in self.modules():
            if hasattr(module, "correction_bias"):
                module.update_bias()  # type: ignore[operator]


class _Run:
    """One stack of several, with its own arguments picked out."""

    def __init__(self, model: Model, stack: StackConfig, given: dict[str, Any], outputs: dict[str, Tensor]):
        self.model, self.stack, self.given, self.outputs = model, stack, given, outputs

    def __call__(self) -> Tensor:
        arguments = [a for a in self.model.spec.arguments if a.stack == self.stack.name]
        x, *rest = [self.given.get(a.name) for a in arguments]
        inputs = dict(zip([a.of for a in arguments[1:]], rest, strict=True))
        if self.stack.memory:
            inputs["memory"] = self.outputs[self.stack.memory]
            inputs["memory_mask"] = self.given.get(f"{self.stack.memory}_mask")
        if self.model.spec.decodes(self.stack):
            inputs["state"] = substate(self.given.get("state"), self.stack.name)
        return self.model.get_submodule(self.stack.name)(x, **inputs)


def eager(spec: Spec) -> Model:
    """The model of a spec, interpreted."""
    return Model(spec)
