"""Losses and counts that models collect: the same whatever checkpoints, copies, compiles or shares the model."""

import copy
import io
import pickle
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import archspec
from archspec.codegen.load import load_text
from archspec.kernels.collect import collect
from archspec.language.model import Spec
from archspec.modules.model import eager

SIZES = {"name": "collected", "d_model": 8, "vocab_size": 11, "max_seq_len": 16, "head": {"kind": "lm"}}
ATTENTION = {"kind": "attention", "n_heads": 2}
MOE = {"kind": "moe", "n_experts": 4, "top_k": 2, "d_ff": 6, "score": "sigmoid", "correction_bias": True}
LOSSES = {
    "batch": {"balance_loss": 1.0, "z_loss": 0.5},
    "sequence": {"balance_loss": 1.0, "balance_over": "sequence", "balance_sum": "one", "balance_counts": "raw"},
    "pooled": {"balance_loss": 1.0, "balance_pooled": True},
}
FORMS = ("eager", "package", "plain", "fast")
MODES = ("reentrant", "not reentrant", "whole, reentrant", "whole, not reentrant", "nested", "nested, not reentrant")


def spec(losses: str, **blocks: Any) -> Spec:
    block = {"mixer": ATTENTION, "ffn": MOE | LOSSES[losses]}
    return archspec.load({**SIZES, "blocks": [{"repeat": 3, **blocks, "pattern": [block]}]})


@cache
def maker(spec: Spec, form: str) -> Callable[[], nn.Module]:
    """What makes a model: the interpreter, or a generated file."""
    if form == "eager":
        return partial(eager, spec)
    text = archspec.generate(spec, standalone=False if form == "package" else form)  # type: ignore[arg-type]
    return load_text(text, f"{spec.digest}_{form}").Model  # type: ignore[no-any-return]


def model(spec: Spec, form: str = "eager") -> Any:
    torch.manual_seed(0)
    made = maker(spec, form)()
    for p in made.parameters():
        nn.init.normal_(p, std=0.5)
    return made.double()


def tokens(B: int = 3) -> Tensor:
    return torch.randint(11, (B, 7), generator=torch.Generator().manual_seed(1))


class Checkpointed(nn.Module):
    """A block that is computed again; a reentrant checkpoint takes no arguments by name."""

    def __init__(self, block: nn.Module, reentrant: bool):
        super().__init__()
        self.block, self.reentrant = block, reentrant

    def forward(self, x: Tensor, **named: Any) -> Any:
        return checkpoint(partial(self.block, **named), x, use_reentrant=self.reentrant)


def checkpointed(m: Any, mode: str) -> Callable[[Tensor, dict[str, Tensor]], Any]:
    """The model as a function of tokens and aux, with checkpoints around its blocks, all of it, or both."""
    if not mode.startswith("whole"):
        again = {id(b): Checkpointed(b, mode != "not reentrant") for b in m.blocks}
        m.blocks = nn.ModuleList(again[id(b)] for b in m.blocks)
    if mode in ("reentrant", "not reentrant"):
        return lambda x, aux: m(x, aux=aux)
    reentrant = mode in ("whole, reentrant", "nested")
    anchor = torch.zeros((), requires_grad=True)  # without an input that needs a gradient, none is computed
    return lambda x, aux: checkpoint(lambda x, _: m(x, aux=aux), x, anchor, use_reentrant=reentrant)


def step(m: Any, forward: Callable[..., Any], x: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What is collected, and the gradients of the loss with what the routers add to it."""
    aux: dict[str, Tensor] = {}
    loss = forward(x, aux).square().mean() + m.aux_loss(aux)
    loss.backward()
    grads = {name.replace(".block.", "."): p.grad for name, p in m.named_parameters()}
    return {name: value.detach() for name, value in flat(aux).items()}, grads


def same(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert list(found) == list(wanted)
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-12, msg=name)


def flat(aux: dict[str, Any], path: str = "") -> dict[str, Tensor]:
    """What is collected, by name; plain files collect in nested dicts."""
    nested = [flat(v, f"{path}{k}.") if isinstance(v, dict) else {path + k: v} for k, v in aux.items()]
    return {name: value for found in nested for name, value in found.items()}


CASES = [("eager", losses, shared) for losses in LOSSES for shared in (False, True)]


@pytest.mark.parametrize(("form", "losses", "shared"), [*CASES, *((form, "batch", True) for form in FORMS[1:])])
def test_checkpoints_change_nothing(form: str, losses: str, shared: bool) -> None:
    made = spec(losses, share=shared)
    m = model(made, form)
    wanted = step(m, lambda x, aux: m(x, aux=aux), tokens())
    assert all(g.abs().sum() > 0 for name, g in wanted[1].items() if "router" in name)
    for mode in MODES if form != "plain" else ("not reentrant", "whole, not reentrant"):
        other = model(made, form)
        found = step(other, checkpointed(other, mode), tokens())
        for a, b in zip(found, wanted, strict=True):
            same(a, b)


def test_a_shared_block_counts_each_of_its_uses() -> None:
    made = spec("batch", share=True)
    m = model(made)
    aux: dict[str, Tensor] = {}
    m(tokens(), aux=aux)
    assert [name for name in aux if name.endswith("load")] == [f"blocks.{i}.ffn.load" for i in range(3)]
    separate = model(spec("batch"))
    for block in separate.blocks:
        block.load_state_dict(m.blocks[0].state_dict())
    separate.embedding.load_state_dict(m.embedding.state_dict())
    other: dict[str, Tensor] = {}
    separate(tokens(), aux=other)
    same(aux, other)
    torch.testing.assert_close(m.aux_loss(aux), separate.aux_loss(other))
    before = m.blocks[0].ffn.correction_bias.clone()
    load = sum(aux[f"blocks.{i}.ffn.load"] for i in range(3))
    m.update_bias(aux)
    moved = m.blocks[0].ffn.correction_bias - before
    torch.testing.assert_close(moved, 0.001 * torch.sign(load.double().mean() - load).float())


@pytest.mark.parametrize("form", FORMS)
def test_a_model_that_has_trained_is_copied_and_saved(form: str) -> None:
    m = model(spec("batch"), form)
    step(m, lambda x, aux: m(x, aux=aux), tokens())
    stream = io.BytesIO()
    torch.save(m.state_dict(), stream)
    stream.seek(0)
    others = [copy.deepcopy(m), *([pickle.loads(pickle.dumps(m))] if form == "eager" else [])]
    others[0].load_state_dict(torch.load(stream))
    for other in others:
        torch.testing.assert_close(other(tokens()), m(tokens()), rtol=0, atol=0)


@pytest.mark.parametrize(("form", "losses"), [*(("package", losses) for losses in LOSSES), ("plain", "batch")])
def test_compiles_as_one_graph(form: str, losses: str) -> None:
    m = model(spec(losses), form)
    wanted = step(m, lambda x, aux: m(x, aux=aux), tokens())
    m.zero_grad()
    torch.compiler.reset()
    compiled = torch.compile(m, fullgraph=True, backend="aot_eager")
    found = step(m, lambda x, aux: compiled(x, aux=aux), tokens())
    for a, b in zip(found, wanted, strict=True):
        same(a, b)
    if form == "plain":
        return
    with pytest.raises(Exception, match="give each pass an empty dict"):
        compiled(tokens(), aux={"blocks.0.ffn.load": torch.zeros(4)})


class Trained(nn.Module):
    """A model with its losses, as a function of tokens alone."""

    def __init__(self, m: Any):
        super().__init__()
        self.m = m

    def forward(self, x: Tensor) -> tuple[Any, Any]:
        aux: dict[str, Tensor] = {}
        return self.m(x, aux=aux), self.m.aux_loss(aux)


@pytest.mark.parametrize("losses", LOSSES)
def test_exports(losses: str) -> None:
    m = Trained(model(spec(losses), "package"))
    exported = torch.export.export(m, (tokens(),))
    for found, wanted in zip(exported.module()(tokens()), m(tokens()), strict=True):
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("reentrant", [False, True])
def test_compiled_blocks_in_checkpoints(reentrant: bool) -> None:
    m = model(spec("batch"))
    wanted = step(m, lambda x, aux: m(x, aux=aux), tokens())
    m.zero_grad()
    torch.compiler.reset()
    blocks = [torch.compile(b, backend="aot_eager") for b in m.blocks]
    m.blocks = nn.ModuleList(Checkpointed(b, reentrant) for b in blocks)  # type: ignore[arg-type]
    if reentrant:
        with pytest.raises(RuntimeError, match="use use_reentrant=False around compiled code"):
            step(m, lambda x, aux: m(x, aux=aux), tokens())
        return
    found = step(m, lambda x, aux: m(x, aux=aux), tokens())
    same({name.replace("._orig_mod", ""): g for name, g in found[1].items()}, wanted[1])


def test_without_aux_nothing_is_computed_or_left() -> None:
    m = model(spec("batch"))
    before = {name: set(vars(module)) for name, module in m.named_modules()}
    m(tokens())
    step(m, lambda x, aux: m(x, aux=aux), tokens())
    assert {name: set(vars(module)) for name, module in m.named_modules()} == before
    with torch.no_grad():
        aux: dict[str, Tensor] = {}
        torch.testing.assert_close(m(tokens(), aux=aux), m(tokens()), rtol=0, atol=0)
    assert {name.rpartition(".")[2] for name in aux} == {"load", "z_loss", "balance_fraction", "balance_weight"}
    assert aux["blocks.0.ffn.load"].dtype == torch.int64
    assert aux["blocks.0.ffn.load"].sum() == 3 * 7 * 2


@pytest.mark.parametrize("form", [form for form in FORMS if form != "plain"])
def test_mistakes_are_told(form: str) -> None:
    m = model(spec("batch"), form)
    aux: dict[str, Tensor] = {}
    m(tokens(), aux=aux)
    with pytest.raises(ValueError, match="aux holds 12 tensors of an earlier forward pass; give each pass an empty"):
        m(tokens(), aux=aux)
    with pytest.raises(ValueError, match=r"aux is empty: call the model with aux=\{\}"):
        m.aux_loss({})
    with pytest.raises(ValueError, match="give update_bias the aux of each forward pass since the last update"):
        m.update_bias()


def test_mistakes_of_a_plain_file_count_nothing_twice_and_do_not_pass() -> None:
    m = model(spec("batch"), "plain")
    aux: dict[str, Any] = {}
    m(tokens(), aux=aux)
    wanted = m.aux_loss(aux)
    m(tokens(), aux=aux)
    torch.testing.assert_close(m.aux_loss(aux), wanted, rtol=0, atol=0)
    for call in (lambda: m.aux_loss({}), m.update_bias, lambda: m.update_bias({})):
        with pytest.raises(RuntimeError, match="stack expects a non-empty TensorList"):
            call()


STACKED = {"pattern": [{"mixer": ATTENTION, "ffn": MOE | LOSSES["pooled"] | more} for more in (
    {"z_loss": 0.5}, {"n_experts": 6, "correction_bias": False}, {"balance_pooled": False})], "repeat": 2}  # fmt: skip
PLAIN = {
    **{losses: [{"repeat": 3, "pattern": [{"mixer": ATTENTION, "ffn": MOE | LOSSES[losses]}]}] for losses in LOSSES},
    "shared": [{"repeat": 3, "share": True, "pattern": [{"mixer": ATTENTION, "ffn": MOE | LOSSES["batch"]}]}],
    "pooled by sequence": [{"repeat": 2, "mixer": ATTENTION, "ffn": MOE | LOSSES["sequence"] | LOSSES["pooled"]}],
    "mixed": [STACKED],
}


@pytest.mark.parametrize("blocks", PLAIN)
def test_losses_and_biases_of_a_plain_file_are_the_packages(blocks: str) -> None:
    made = archspec.load({**SIZES, "blocks": PLAIN[blocks]})
    package, plain = model(made, "package"), model(made, "plain")
    plain.load_state_dict(package.state_dict())
    passes: list[list[dict[str, Any]]] = [[], []]
    for B in (3, 2):
        for m, collected in zip((package, plain), passes, strict=True):
            collected.append({})
            m(tokens(B), aux=collected[-1])
            m.aux_loss(collected[-1]).backward()
    for (name, p), q in zip(plain.named_parameters(), package.parameters(), strict=True):
        assert (p.grad is None) == (q.grad is None), name
        if p.grad is not None:
            torch.testing.assert_close(p.grad, q.grad, rtol=0, atol=1e-12)
    torch.testing.assert_close(*(m.aux_loss(aux[0]) for m, aux in zip((package, plain), passes, strict=True)))
    loads = [{n: v for n, v in flat(aux[1]).items() if n.endswith("load")} for aux in passes]
    same(*loads)
    for m, collected in zip((package, plain), passes, strict=True):
        m.update_bias(*collected)
    biases = [{n: b for n, b in m.named_buffers() if n.endswith("correction_bias")} for m in (package, plain)]
    assert all(b.abs().max() > 0 for b in biases[0].values())
    same(*biases)


def test_a_model_without_routers_knows_nothing_of_it() -> None:
    text = archspec.generate(archspec.load("specs/llama3_8b.yaml"))
    assert "aux" not in text
    assert "kernels.collect" not in text


def test_a_layer_by_itself_takes_a_scope() -> None:
    layer: Any = model(spec("batch")).blocks[0].ffn
    found: dict[str, Tensor] = {}
    layer(torch.randn(2, 5, 8, dtype=torch.double), aux=collect(found))
    assert list(found) == ["load", "balance_fraction", "balance_weight", "z_loss"]
