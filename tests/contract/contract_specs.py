"""Small specs around one component each, weights at unit gain, and inputs to run them."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from archspec.language.filling import kind_of
from archspec.language.load import load
from archspec.language.model import Spec
from archspec.language.resolve import make
from archspec.layers.base import Component, EmbeddingComponent
from archspec.layers.ops import Run
from archspec.layers.registry import everything

D_MODEL, VOCAB, LENGTH = 16, 11, 32
SIZES = {"d_model": D_MODEL, "vocab_size": VOCAB, "max_seq_len": LENGTH}
MLP = {"kind": "mlp", "d_ff": 24}
PLAIN = {"kind": "attention", "n_heads": 2}

Document = dict[str, Any]


def cases(*roles: str) -> list[tuple[str, str, int]]:
    """(role, kind, number of the example) of all components, or of those with these roles."""
    return [
        (role, kind, i)
        for role, kinds in everything().items()
        for kind, cls in kinds.items()
        for i in range(len(cls.examples))
        if not roles or role in roles
    ]


def kinds(*roles: str) -> list[tuple[str, str]]:
    """(role, kind) of all components, or of those with these roles."""
    return list(dict.fromkeys((role, kind) for role, kind, _ in cases(*roles)))


def name(case: tuple[Any, ...]) -> str:
    """A case as the name of a test."""
    return "-".join(map(str, case))


def example(role: str, kind: str, number: int) -> Document:
    """An example of a component as plain data that may be changed."""
    return {"kind": kind, **json.loads(json.dumps(everything()[role][kind].examples[number]))}


# A spec around one component. Each returns the document and the path of the component in it.


def host(role: str, component: Document) -> tuple[Document, tuple[str | int, ...]]:
    """A document in which the component stands and does something, and where it stands."""
    return HOSTS[role](component)


def one_block(block: Document, **top: Any) -> Document:
    return {"name": "one", **SIZES, "blocks": [block], "head": {"kind": "lm"}, **top}


def host_mixer(component: Document) -> tuple[Document, tuple[str | int, ...]]:
    if component.get("mask") == "cross":
        block = {"mixer": PLAIN, "cross": component}
        return two_stacks(block), ("stacks", "decoder", "blocks", 0, "cross")
    return one_block({"mixer": component, "ffn": MLP}), ("blocks", 0, "mixer")


def two_stacks(block: Document, **top: Any) -> Document:
    encoder = {"mask": "bidirectional", "d_model": 12, "blocks": [{"mixer": PLAIN, "ffn": MLP}]}
    decoder = {"memory": "encoder", "blocks": [block]}
    return {"name": "two", **SIZES, "stacks": {"encoder": encoder, "decoder": decoder}, "head": {"kind": "lm"}, **top}


def host_ffn(component: Document) -> tuple[Document, tuple[str | int, ...]]:
    # Twice, for what layers do together.
    return one_block({"repeat": 2, "mixer": PLAIN, "ffn": component}), ("blocks", 0, "ffn")


def host_norm(component: Document) -> tuple[Document, tuple[str | int, ...]]:
    return one_block({"mixer": {**PLAIN, "qk_norm": "head"}, "ffn": MLP}, norm=component), ("norm",)


def host_scale(component: Document) -> tuple[Document, tuple[str | int, ...]]:
    block = {"mixer": PLAIN, "modules": {"gain": component}, "wiring": ["x = x + gain(mixer(norm1(x)))"]}
    return one_block(block), ("blocks", 0, "modules", "gain")


def host_position(component: Document) -> tuple[Document, tuple[str | int, ...]]:
    mask = "bidirectional" if component.get("bidirectional") else "causal"
    mixer = {"kind": "attention", "n_heads": 3, "head_dim": 16, "mask": mask, "position": component}
    return one_block({"mixer": mixer}), ("blocks", 0, "mixer", "position")


def host_rope_scaling(component: Document) -> tuple[Document, tuple[str | int, ...]]:
    pairs = len(component.get("short_factor", range(8)))
    mixer: Document = {"kind": "mla", "n_heads": 2, "kv_lora_rank": 8, "qk_nope_head_dim": 6}
    mixer |= {"qk_rope_head_dim": 2 * pairs, "position": {"kind": "rope", "theta": 20.0, "scaling": component}}
    return one_block({"mixer": mixer}), ("blocks", 0, "mixer", "position", "scaling")


def host_embedding(component: Document) -> tuple[Document, tuple[str | int, ...]]:
    made = make("embedding", component, **SIZES)
    assert isinstance(made, EmbeddingComponent)
    read = "vocab_size" in type(made).model_fields
    head = {"kind": "lm"} if read else {"kind": "regression", "pool": "none"}
    document = one_block({"mixer": PLAIN}, embedding=component, head=head)
    if not read:
        del document["vocab_size"]
    if made.n_tokens != "T":  # an image, whole
        document["mask"] = "bidirectional"
        del document["max_seq_len"]
    return document, ("embedding",)


def host_absolute_position(component: Document) -> tuple[Document, tuple[str | int, ...]]:
    embedding = {"kind": "token", "position": component}
    return one_block({"mixer": PLAIN}, embedding=embedding), ("embedding", "position")


def host_head(component: Document) -> tuple[Document, tuple[str | int, ...]]:
    document = one_block({"mixer": PLAIN}, head=component)
    if "d_embed" in component and component.get("tied"):
        document["embedding"] = {"kind": "token", "d_factor": component["d_embed"]}
    return document, ("head",)


def host_init(component: Document) -> tuple[Document, tuple[str | int, ...]]:
    block = {
        "mixer": {"kind": "attention", "n_heads": 2, "qkv_bias": True, "position": {"kind": "t5"}},
        "ffn": {"kind": "moe", "n_experts": 4, "top_k": 2, "d_ff": 8},
    }
    return one_block(block, init=component), ("init",)


HOSTS = {role: globals()[f"host_{role}"] for role in everything()}


def hosted(role: str, kind: str, number: int) -> Spec:
    """The spec around an example."""
    return load(host(role, example(role, kind, number))[0])


def at(document: Any, path: tuple[str | int, ...]) -> Any:
    """What stands at a path."""
    for key in path:
        document = document[key]
    return document


def found_at(spec: Spec, role: str, kind: str) -> Component:
    """The component of that kind in a resolved spec: the last one, as hosts put it behind what surrounds it."""
    return [c for c in every_component(spec) if c.role == role and kind_of(type(c)) == kind][-1]


def every_component(spec: Spec) -> Iterator[Component]:
    """All components of a spec, those in slots included."""
    for stack in spec.stacks:
        yield from within(stack.embedding)
        for layer in stack.layers:
            for _, part in layer.block.parts:
                yield from within(part)
        for c in (stack.position_bias, stack.final_norm):
            if c is not None:
                yield from within(c)
    yield from within(spec.head)
    yield from within(spec.init)


def within(c: Component) -> Iterator[Component]:
    yield c
    for field in type(c).model_fields:
        if isinstance(child := getattr(c, field), Component):
            yield from within(child)


# Weights and inputs


@torch.no_grad()
def redraw(model: nn.Module, seed: int = 0) -> nn.Module:
    """Weights at unit gain: matrices N(0, 1 / fan_in), tables N(0, 1), anything else around its start.

    At the small values of a usual init a fault in a branch changes the output by a millionth and passes unseen.
    """
    g = torch.Generator().manual_seed(seed)
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    for path, p in model.named_parameters():
        noise = torch.randn(p.shape, generator=g, dtype=torch.float64).to(p.dtype)
        if id(p) in tables:
            p.copy_(noise)
        elif p.dim() < 2 or path.rpartition(".")[2] in ("A_log", "positions", "class_token"):
            p.add_(0.5 * noise)
        else:
            p.copy_(noise * (p.shape[-1] if p.dim() == 3 else p[0].numel()) ** -0.5)
    for path, buffer in model.named_buffers():
        if path.endswith("correction_bias"):
            buffer.copy_(0.3 * torch.randn(buffer.shape, generator=g, dtype=torch.float64))
    return model


def inputs(spec: Spec, optional: bool = False, T: int = LENGTH, B: int = 2, seed: int = 1) -> dict[str, Any]:
    """Arguments of the model's forward by name; with `optional` also masks, prefixes and segments."""
    g = torch.Generator().manual_seed(seed)
    length = {}
    given: dict[str, Any] = {}
    for a in spec.arguments:
        stack = next((s for s in spec.stacks if s.name == a.stack), spec.main)
        if not a.optional:
            given[a.name] = source(stack.embedding, T, B, g)
            if optional and getattr(stack.embedding, "other_sizes", False):
                given[a.name] = given[a.name].repeat(1, 1, 2, 1)
            length[a.stack] = T if stack.embedding.n_tokens == "T" else stack.embedding.n_tokens
        elif optional and a.of == "mask":
            given[a.name] = padding(B, length[a.stack])
        elif optional and a.of == "positions":
            given[a.name] = torch.arange(length[a.stack]).flip(0).expand(B, -1)
        elif optional and a.of == "documents":
            given[a.name] = (torch.arange(length[a.stack]) >= length[a.stack] // 3).long().expand(B, -1)
        elif optional and a.of == "global_mask":
            given[a.name] = (torch.arange(length[a.stack]) % 4 == 1).expand(B, -1)
        elif optional and a.of == "prefix_len":
            given[a.name] = 4
        elif optional and a.of in stack.embedding.ids:
            given[a.name] = torch.randint(stack.embedding.ids[a.of], (B, T), generator=g)
        elif optional and a.of == "token_types":
            given[a.name] = torch.randint(stack.embedding.token_types, (B, T), generator=g)  # type: ignore[attr-defined]
    return given


def source(embedding: EmbeddingComponent, T: int, B: int, g: torch.Generator) -> Tensor:
    """What an embedding reads."""
    shape = Run(B=B, T=T).shape(embedding.input_shape)
    return (
        torch.randn(shape, generator=g)
        if embedding.n_ids is None
        else torch.randint(embedding.n_ids, shape, generator=g)
    )


def padding(B: int, T: int) -> Tensor:
    """A mask of real tokens: the first sequence is whole, each next one two tokens shorter."""
    return torch.arange(T) < T - 2 * torch.arange(B).unsqueeze(1)


def double(given: Mapping[str, Any]) -> dict[str, Any]:
    """The same arguments in float64."""
    return {k: v.double() if isinstance(v, Tensor) and v.is_floating_point() else v for k, v in given.items()}


def run(model: Any, spec: Spec, given: Mapping[str, Any]) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """The output of a model, 0 at padding (where it means nothing), the losses of its routers, and all it collects.

    That of several heads is one row of numbers a sequence.
    """
    aux: dict[str, Tensor] = {}
    collects = any(a.of == "aux" for a in spec.arguments)
    y = model(**given, aux=aux) if collects else model(**given)
    if isinstance(y, dict):
        y = torch.cat([answer.flatten(1) for answer in y.values()], dim=1)
    mask = next((given.get(a.name) for a in spec.arguments if (a.of, a.stack) == ("mask", spec.main.name)), None)
    if mask is not None and y.shape[:2] == mask.shape:
        y = y.masked_fill(~mask.unsqueeze(-1), 0)
    return y, model.aux_loss(aux) if spec.aux_losses else torch.zeros(()), aux


def cut(spec: Spec, given: Mapping[str, Any], start: int, end: int) -> dict[str, Any]:
    """Tokens start .. end of the main stack's input (and of what goes with it), other stacks whole."""
    own = {a.name for a in spec.arguments if a.stack == spec.main.name}
    return {k: v[:, start:end] if k in own and isinstance(v, Tensor) else v for k, v in given.items()}


def remembers(c: Component) -> int:
    """The longest sequence that it takes, and for which decoding equals the whole."""
    return min(LENGTH, c.longest or LENGTH, c.exact_within or LENGTH)
