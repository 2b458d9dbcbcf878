"""What gives a model storage and moves it leaves its numbers and its ties: to_empty, assignment, casts, copies."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from contract_models import models
from contract_specs import Document, cases, double, example, host, inputs, name, redraw, run
from contract_texts import Texts
from torch import Tensor, nn

from archspec import build, init_weights
from archspec.codegen import generate
from archspec.codegen.load import load_text
from archspec.language.load import load
from archspec.language.model import Spec
from archspec.modules.model import eager

TIED = ("tied_stacks", "shared", "bert", "albert")
WHOLE = models()
DOCUMENTS: dict[str, Document] = {name(case): host(case[0], example(*case))[0] for case in cases()} | WHOLE
COMPUTED = [name(case) for case in cases("position", "rope_scaling", "absolute_position")] + list(TIED)
FORMS = ("interpreted", "package", "plain", "fast")
# Every kind of component is interpreted, as its text would run; what computes numbers or ties is tried in every form.
PAIRS = [(d, "interpreted") for d in DOCUMENTS] + [(d, form) for d in COMPUTED for form in FORMS[1:3]]
PAIRS += [
    (d, "fast") for d in ("position-rope-0", "position-alibi-0", "tied_stacks")
]  # in which modules are the package's

Maker = Callable[[], Any]


def maker(spec: Spec, form: str, texts: Texts) -> Maker:
    """What makes the model of a spec in a form."""
    if form == "interpreted":
        return lambda: eager(spec)
    if form == "plain":
        return load_text(generate(spec, standalone="plain"), f"{spec.name}_{spec.digest}_plain").Model
    text = texts.text(spec, standalone=form == "fast")
    return load_text(text, f"{spec.name}_{spec.digest}_{form}").Model  # type: ignore[no-any-return]


@pytest.fixture(params=PAIRS, ids="-".join, scope="module")
def made(request: pytest.FixtureRequest, texts: Texts) -> tuple[Spec, Maker]:
    document, form = request.param
    spec = load(DOCUMENTS[document])
    return spec, maker(spec, form, texts)


@pytest.fixture(params=[pair for pair in PAIRS if pair[0] in TIED], ids="-".join, scope="module")
def tied(request: pytest.FixtureRequest, texts: Texts) -> tuple[Spec, Maker]:
    spec = load(DOCUMENTS[request.param[0]])
    assert spec.ties
    return spec, maker(spec, request.param[1], texts)


@pytest.fixture(autouse=True)
def fill_what_is_not_set() -> Iterator[None]:
    """Memory that nobody wrote holds NaN, and the largest integers."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


def from_meta(make: Maker) -> nn.Module:
    with torch.device("meta"):
        found: nn.Module = make()
    return found


def emptied(make: Maker, state: dict[str, Tensor]) -> nn.Module:
    model = from_meta(make).to_empty(device="cpu")
    model.load_state_dict(state)
    return model


def assigned(make: Maker, state: dict[str, Tensor]) -> nn.Module:
    model = from_meta(make)
    model.load_state_dict({name: value.clone() for name, value in state.items()}, assign=True)
    return model


def assigned_within(make: Maker, state: dict[str, Tensor]) -> nn.Module:
    """As part of another module, which alone is loaded."""
    whole = nn.ModuleDict({"model": from_meta(make)})
    whole.load_state_dict({f"model.{name}": value.clone() for name, value in state.items()}, assign=True)
    return whole["model"]


def moved(make: Maker, state: dict[str, Tensor]) -> nn.Module:
    """There and back: to the device without numbers, and to storage again."""
    model = make().to("meta").to_empty(device="cpu")
    model.load_state_dict(state)
    return model  # type: ignore[no-any-return]


def moved_and_assigned(make: Maker, state: dict[str, Tensor]) -> nn.Module:
    model = make().to("meta")
    model.load_state_dict({name: value.clone() for name, value in state.items()}, assign=True)
    return model  # type: ignore[no-any-return]


def copied(make: Maker, state: dict[str, Tensor]) -> nn.Module:
    model = copy.deepcopy(from_meta(make)).to_empty(device="cpu")
    model.load_state_dict(state)
    return copy.deepcopy(model)


def cast(make: Maker, state: dict[str, Tensor]) -> nn.Module:
    """To 16 bits and back, and then the weights again."""
    model = make().bfloat16().to("cpu").float()
    model.load_state_dict(state)
    return model  # type: ignore[no-any-return]


WAYS = (emptied, assigned, assigned_within, moved, moved_and_assigned, copied, cast)


def outputs(model: nn.Module, spec: Spec) -> Tensor:
    torch.manual_seed(0)
    with torch.no_grad():
        return run(model.eval(), spec, inputs(spec))[0]


def parameters(model: nn.Module) -> list[tuple[str, tuple[int, ...]]]:
    return [(name, tuple(p.shape)) for name, p in model.named_parameters()]


def test_numbers_and_ties_are_those_of_the_original(made: tuple[Spec, Maker]) -> None:
    spec, make = made
    original = redraw(make())
    state, wanted = original.state_dict(), outputs(original, spec)
    assert wanted.isfinite().all()
    for way in WAYS:
        found = way(make, state)
        assert parameters(found) == parameters(original), way.__name__
        assert not [name for name, x in (*found.named_parameters(), *found.named_buffers()) if x.is_meta], way.__name__
        assert torch.equal(outputs(found, spec), wanted), way.__name__
        assert list(found.state_dict()) == list(state), way.__name__
        assert all(p.requires_grad for p in found.parameters()), way.__name__


def test_ties_last_through_casts_and_training(tied: tuple[Spec, Maker]) -> None:
    spec, make = tied
    original = make()
    model = assigned(make, original.state_dict()).double()
    loss = run(model.train(), spec, double(inputs(spec)))[0].square().mean()
    loss.backward()
    torch.optim.SGD(model.parameters(), lr=1.0).step()
    for first, *others in spec.tied:
        for other in others:
            assert model.get_parameter(other) is model.get_parameter(first)
    assert not torch.equal(model.get_parameter(spec.tied[0][0]).float(), original.get_parameter(spec.tied[0][0]))


def test_a_checkpoint_without_the_doubles_of_tied_tensors_will_do(tied: tuple[Spec, Maker]) -> None:
    """As safetensors stores them."""
    spec, make = tied
    state = make().state_dict()
    doubles = {other for _, *others in spec.tied for other in others}
    single = {name: value for name, value in state.items() if name not in doubles}
    for assign in (False, True):
        model = from_meta(make).to_empty(device="cpu")
        model.load_state_dict(single, assign=assign)
        assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_init_weights_sets_every_number(made: tuple[Spec, Maker]) -> None:
    """In storage that held none, and by the names alone: in any form, of any order."""
    spec, make = made
    model, wanted = from_meta(make).to_empty(device="cpu"), eager(spec)
    for m in (model, wanted):
        init_weights(m, seed=7)
    assert list(model.state_dict()) == list(wanted.state_dict())
    unset = [name for name, value in wanted.state_dict().items() if not value.isfinite().all()]
    assert not unset
    different = [
        name for name, value in model.state_dict().items() if not torch.equal(value, wanted.state_dict()[name])
    ]
    assert not different
    before = {name: value.clone() for name, value in model.state_dict().items()}
    init_weights(model, seed=8)
    assert any(not torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_without_a_seed_weights_come_from_pytorchs_generator() -> None:
    spec = load(WHOLE["hybrid"])
    models = [from_meta(lambda: eager(spec)).to_empty(device="cpu") for _ in range(3)]
    for i, model in enumerate(models):
        torch.manual_seed(i // 2)
        init_weights(model)
    first, again, other = (model.get_parameter("head.proj.weight") for model in models)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("document", ["position-rope-0", "position-alibi-0", "rope_scaling-longrope-0", "tied_stacks"])
def test_it_exports_and_compiles_after_assignment(document: str, texts: Texts) -> None:
    spec = load(DOCUMENTS[document])
    make = maker(spec, "package", texts)
    original = redraw(make()).eval()
    model, given = assigned(make, original.state_dict()).eval(), inputs(spec)
    wanted = outputs(original, spec)
    torch.testing.assert_close(torch.export.export(model, (), given).module()(**given), wanted)
    torch.testing.assert_close(torch.compile(model, backend="aot_eager", fullgraph=True)(**given), wanted)


@pytest.mark.parametrize("drawing", [True, False])
def test_build_draws_or_does_not(drawing: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without `init` nothing is drawn, be it by the init or by PyTorch's modules."""
    spec, drawn = load(WHOLE["hybrid"]), []
    for function in ("uniform_", "normal_"):
        draw = getattr(Tensor, function)
        monkeypatch.setattr(
            Tensor, function, lambda x, *a, draw=draw, **k: (drawn.append(x.device.type), draw(x, *a, **k))[1]
        )
    model = build(spec, init=drawing)
    assert ("cpu" in drawn) == drawing
    assert {p.device.type for p in model.parameters()} == {"cpu"}
    assert [name for name, p in model.named_parameters() if p.isfinite().all()] == (
        [name for name, _ in model.named_parameters()] if drawing else []
    )
    model.load_state_dict(build(spec, seed=3).state_dict())
    assert torch.equal(outputs(model, spec), outputs(build(spec, seed=3), spec))


def test_a_seed_and_no_init_contradict_each_other() -> None:
    with pytest.raises(ValueError, match="a seed draws weights, and init=False does not"):
        build(load(WHOLE["hybrid"]), seed=1, init=False)


def test_only_models_of_archspec_are_started() -> None:
    with pytest.raises(TypeError, match="a Linear is no model of archspec"):
        init_weights(nn.Linear(2, 2))
