"""A model with heads by name: what forward gives, what `loss` comes to, and tensors that stay tied."""

import copy
import pickle
from functools import cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import archspec
from archspec.codegen.load import load_text
from archspec.kernels.loss.answers import class_loss, number_loss
from archspec.kernels.plain import answers as plain
from archspec.modules.model import eager
from archspec.passes.memory import memory

DOCUMENT: dict[str, Any] = {
    "name": "named",
    "d_model": 16,
    "vocab_size": 11,
    "max_seq_len": 32,
    "blocks": [{"mixer": {"kind": "attention", "n_heads": 2, "position": "rope"}}],
    "heads": {
        "near": {"kind": "lm", "tied": True},
        "far": {"kind": "lm", "tied": True, "ahead": 3, "scale": 0.5, "loss_weight": 0.25},
        "label": {"kind": "classification", "n_classes": 3, "pool": "last"},
        "value": {"kind": "regression", "pool": "none"},
    },
}
T = 9


@cache
def spec() -> archspec.Spec:
    return archspec.load(DOCUMENT)


@cache
def model() -> nn.Module:
    return archspec.build(spec(), seed=0).double()


def given() -> tuple[Tensor, dict[str, Tensor]]:
    """Tokens and targets, of which some are left out."""
    g = torch.Generator().manual_seed(1)
    tokens = torch.randint(11, (2, T), generator=g)
    near = tokens.clone()
    near[0, :4] = -100
    value = torch.randn(2, T, 1, generator=g, dtype=torch.float64)
    return tokens, {"near": near, "far": tokens, "label": torch.tensor([2, -100]), "value": value}


def expected(answers: dict[str, Tensor], targets: dict[str, Tensor]) -> dict[str, Tensor]:
    """The losses of the document, place by place."""
    found = {}
    for name, ahead in (("near", 1), ("far", 3)):
        pairs = [
            (answers[name][b, t], targets[name][b, t + ahead])
            for b in range(2)
            for t in range(T - ahead)
            if targets[name][b, t + ahead] != -100
        ]
        found[name] = torch.stack([-z.log_softmax(-1)[y] for z, y in pairs]).mean()
    found["label"] = -answers["label"][0].log_softmax(-1)[2]
    found["value"] = (answers["value"] - targets["value"]).square().mean()
    return found | {"total": found["near"] + 0.25 * found["far"] + found["label"] + found["value"]}


def test_forward_gives_a_dict_in_the_order_written() -> None:
    tokens, _ = given()
    answers = model()(tokens)
    assert {name: tuple(answer.shape) for name, answer in answers.items()} == {
        "near": (2, T, 11),
        "far": (2, T, 11),
        "label": (2, 3),
        "value": (2, T, 1),
    }
    assert list(answers) == ["near", "far", "label", "value"]
    torch.testing.assert_close(answers["far"], 0.5 * answers["near"])


@pytest.mark.parametrize("form", ["eager", "package", "plain", "fast"])
def test_the_loss_is_what_each_head_loses_and_their_weighted_sum(form: str) -> None:
    if form == "eager":
        ours: Any = eager(spec()).double()
    elif form == "package":
        ours = model()
    else:
        text = archspec.generate(spec(), standalone=form)  # type: ignore[arg-type]
        ours = load_text(text, f"named_{form}").Model().double()
    ours.load_state_dict(model().state_dict())
    tokens, targets = given()
    answers = ours(tokens)
    losses, wanted = ours.loss(answers, targets), expected(answers, targets)
    assert list(losses) == [*spec_names(), "total"]
    for name, want in wanted.items():
        torch.testing.assert_close(losses[name], want)
    gradients = [torch.autograd.grad(x["total"], ours.embedding.token.weight, retain_graph=True)[0]
                 for x in (losses, wanted)]  # fmt: skip
    torch.testing.assert_close(*gradients)


def spec_names() -> list[str]:
    return [head.name for head in spec().heads]


def test_a_head_whose_targets_are_all_left_out_loses_nothing() -> None:
    tokens, targets = given()
    answers = model()(tokens)
    losses = model().loss(answers, {**targets, "near": torch.full_like(tokens, -100)})
    assert losses["near"].item() == 0
    short = {name: answer[:, :2] if answer.dim() == 3 else answer for name, answer in answers.items()}
    own = {name: target[:, :2] if target.dim() > 1 else target for name, target in targets.items()}
    assert model().loss(short, own)["far"].item() == 0  # no token stands three places further


def test_targets_of_another_shape_or_type_are_refused() -> None:
    scores, numbers = torch.randn(2, 5, 7), torch.randn(2, 5, 1)
    for targets, message in ((torch.zeros(2, 4).long(), r"\(2, 4\), expected \(2, 5\)"),
                             (torch.zeros(2, 5), "float32, expected whole numbers")):  # fmt: skip
        with pytest.raises((TypeError, ValueError), match=message):
            class_loss(scores, targets)
    for targets, message in ((torch.zeros(2, 5), r"\(2, 5\), expected \(2, 5, 1\)"),
                             (torch.zeros(2, 5, 1).long(), "int64, expected a floating type")):  # fmt: skip
        with pytest.raises((TypeError, ValueError), match=message):
            number_loss(numbers, targets)


def test_losses_of_16_bits_are_summed_in_32() -> None:
    scores, targets = torch.randn(4, 64, 50).bfloat16(), torch.randint(50, (4, 64))
    wanted = F.cross_entropy(scores.float().flatten(0, 1), targets.flatten())
    for function in (class_loss, plain.class_loss):
        found = function(scores, targets)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, wanted)


def tied(found: Any) -> bool:
    table = found.embedding.token.weight
    return found.near_head.proj.weight is table and found.far_head.proj.weight is table


def test_all_ties_survive_what_people_do_with_a_model(tmp_path: Any) -> None:
    built = archspec.build(spec(), seed=0)
    assert tied(built)
    assert tied(copy.deepcopy(built))
    assert tied(pickle.loads(pickle.dumps(built)))
    assert tied(built.to(torch.float64))
    for make in (lambda: archspec.build(spec(), device="meta"), lambda: eager(spec()).to("meta")):
        empty: Any = make()
        assert tied(empty.to_empty(device="cpu"))
        empty.load_state_dict(built.state_dict(), assign=True)
        assert tied(empty)
        assert torch.equal(empty.near_head.proj.weight, built.embedding.token.weight)
    assert sum(p.numel() for p in built.parameters()) == archspec.count(spec()).total


def test_decoding_gives_what_the_whole_does() -> None:
    per_token = {**DOCUMENT, "heads": {k: v for k, v in DOCUMENT["heads"].items() if k != "label"}}
    decoder = archspec.build(archspec.load(per_token), seed=0).double().eval()
    tokens, state = given()[0], archspec.new_state(decoder, batch=2)
    with torch.no_grad():
        pieces = [decoder(piece, state=state) for piece in tokens.split([4, 1, 4], dim=1)]
        for name, answer in decoder(tokens).items():
            torch.testing.assert_close(torch.cat([piece[name] for piece in pieces], dim=1), answer)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_the_loss_keeps_is_counted_to_the_byte(dtype: str) -> None:
    tokens, targets = given()
    trained = archspec.build(spec(), seed=0).to(getattr(torch, dtype))
    answers = {name: answer.detach().requires_grad_() for name, answer in trained(tokens).items()}
    targets["value"] = targets["value"].float()
    mine = {t.untyped_storage().data_ptr() for t in targets.values()}
    kept: dict[int, int] = {}

    def keep(t: Tensor) -> Tensor:
        storage = t.untyped_storage()
        if storage.data_ptr() not in mine:
            kept[storage.data_ptr()] = storage.nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        losses = trained.loss(answers, targets)
    held = memory(spec(), batch=2, seq=T, dtype=dtype)
    assert sum(kept.values()) == held.loss_bytes
    assert losses["total"].dtype == torch.float32


def test_t5s_init_starts_every_output_layer_alike() -> None:
    heads = {"one": "lm", "two": {"kind": "lm", "ahead": 2}, "three": {"kind": "lm", "tied": True}}
    wide = {**DOCUMENT, "d_model": 64, "vocab_size": 400, "heads": heads, "init": {"kind": "t5", "factor": 0.5}}
    found = archspec.build(archspec.load(wide), seed=0)
    for head in (found.one_head, found.two_head, found.three_head):
        assert 0.45 < head.proj.weight.std().item() < 0.55
