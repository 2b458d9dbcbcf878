"""Plain forms against the families whose names they bear: outputs, gradients and states, whole and in pieces."""

import ast
import inspect
from pathlib import Path

import pytest
import torch
from kernel_checks import assert_close, normal, pieces
from plain_cases import SEQUENCES, TABLES, WHOLES, length, plain, public, tensors, trained
from torch import Tensor

from archspec.kernels import backend

FILES = [path for path in sorted(Path("kernels/plain").glob("*.py")) if path.stem != "__init__"]
HELPERS = {"decay", "collect", "packed"}  # no families of their own, or with dicts that are nested
# A file that is made to be read puts no state back, collects in nested dicts, and knows of one process.
WITHOUT = {"atomic", "Scope", "collect", "record", "scope", "router_loss", "move_biases"}
# It checks nothing, and keeps no constants: what stands in these files is asked for under `not c.plain` alone.
PACKAGE_ALONE = {"inputs", "computed"}
LIBRARIES = {"math", "typing", "collections.abc"} | {
    "torch", "torch.nn.functional", "torch.nn.utils.rnn", "torch.utils.checkpoint", "torch.distributed"
}  # fmt: skip


@pytest.fixture(autouse=True)
def nothing_is_compiled_first(monkeypatch):
    """The families run in their PyTorch, which is what a plain form replaces."""
    monkeypatch.setattr(backend, "CPU_DEVICES", ())


def functions(module):
    return {name: f for name, f in inspect.getmembers(module, inspect.isfunction) if f.__module__ == module.__name__}


def signature(f):
    """What it takes and gives; each form has a class of its own for what is given from layer to layer."""
    return str(inspect.signature(f)).replace(".kernels.plain.", ".kernels.")


# What each file is


def imported_by_modules():
    """(family, name) of all that the modules of archspec import from kernels."""
    found = set()
    for path in Path("archspec/modules").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("archspec.kernels."):
                found |= {(str(node.module).rpartition(".")[2], alias.name) for alias in node.names}
    return sorted((family, name) for family, name in found if family not in PACKAGE_ALONE and name not in WITHOUT)


@pytest.mark.parametrize(("family", "name"), imported_by_modules())
def test_what_modules_use_has_a_plain_form(family, name):
    original, twin = getattr(public(family), name), getattr(plain(family), name)
    if inspect.isfunction(original):
        assert signature(twin) == signature(original)
    else:
        assert twin == original


@pytest.mark.parametrize("family", [path.stem for path in FILES if path.stem not in HELPERS])
def test_functions_of_the_same_name_have_the_same_signature(family):
    ours, theirs = functions(plain(family)), functions(public(family))
    shared = ours.keys() & theirs.keys()
    assert shared
    for name in shared:
        assert signature(ours[name]) == signature(theirs[name]), name


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_needs_torch_alone_and_registers_nothing(path):
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.module in LIBRARIES or str(node.module).startswith("archspec.kernels.plain."), node.module
        elif isinstance(node, ast.Import):
            assert {alias.name for alias in node.names} <= LIBRARIES
        elif isinstance(node, ast.ClassDef):
            assert [base.id for base in node.bases] == ["NamedTuple"]  # what is handed on whole
        elif isinstance(node, ast.FunctionDef):
            assert not node.decorator_list
    assert not any(isinstance(node, ast.Try | ast.Raise) for node in ast.walk(tree))


def agree(ours, theirs, tolerance=1e-10):
    assert len(ours[0]) == len(theirs[0])
    for got, wanted in zip([*ours[0], *ours[1]], [*theirs[0], *theirs[1]], strict=True):
        torch.testing.assert_close(got, wanted, rtol=tolerance, atol=tolerance, equal_nan=True)


@pytest.mark.parametrize("case", SEQUENCES, ids=repr)
def test_sequences_whole_and_in_pieces(case):
    for sizes in case.every_size():
        given = case.arguments(sizes)
        agree(case.run(plain(case.family), given), case.run(public(case.family), given))
        T = length(case, given)
        ways = [[slice(0, T)], *pieces(T)]
        for cuts in ways[: 1 if 0 in sizes.values() else 2 if T > 63 else 3]:
            agree(case.run(plain(case.family), given, cuts), case.run(public(case.family), given, cuts))


@pytest.mark.parametrize("case", WHOLES, ids=repr)
def test_calls_without_a_state(case):
    for sizes in case.every_size():
        given = case.arguments(sizes)
        agree(case.run(plain(case.family), given), case.run(public(case.family), given))


def network(gates, depth=1, ways=1, bias=True, B=2, T=9, D_in=5, D=4):
    def layer(width):
        shapes = [(gates * D, width), (gates * D, D), *([(gates * D,)] * 2 if bias else [])]
        return [normal(*shape) / 2 for shape in shapes]

    weights = [w for i in range(depth) for _ in range(ways) for w in layer(ways * D if i else D_in)]
    return normal(B, T, D_in), weights


@pytest.mark.parametrize("cuts", [None, [slice(0, 4), slice(4, 5), slice(5, 9)]])
@pytest.mark.parametrize(
    ("name", "gates", "settings"), [("lstm", 4, {}), ("gru", 3, {}), ("rnn", 1, {}), ("rnn", 1, {"relu": True})]
)
@pytest.mark.parametrize("bias", [True, False])
def test_recurrent(name, gates, settings, bias, cuts):
    for depth, ways in ((1, 1), (2, 1), *(() if cuts else ((2, 2),))):
        x, weights = network(gates, depth, ways, bias)
        results = []
        for module in (plain("recurrent"), public("recurrent")):
            leaves = [w.clone().requires_grad_() for w in (x, *weights)]
            state, options = {}, {**settings, "depth": depth, "bidirectional": ways == 2}
            run = [
                getattr(module, name)(leaves[0][:, now], leaves[1:], state if cuts else None, **options)
                for now in cuts or [slice(0, 9)]
            ]
            outputs = [torch.cat(run, dim=1), *(state[k] for k in sorted(state))]
            gradients = torch.autograd.grad(sum(y.square().sum() for y in outputs), leaves)
            results.append(([y.detach() for y in outputs], list(gradients)))
        agree(*results)


PRIORITY = torch.rand(2, 12, generator=torch.Generator().manual_seed(0))
PLACES = {
    "in order": {},
    "first choices first": {"first_choices": True},
    "by priority": {"priority": PRIORITY},
    "first choices by priority": {"priority": PRIORITY, "first_choices": True},
}


@pytest.mark.parametrize("settings", PLACES.values(), ids=PLACES)
def test_admitted(settings):
    experts = torch.randint(-1, 4, (2, 12, 2))
    ours, theirs = (m.admitted(experts, 4, 3, **settings) for m in (plain("router"), public("router")))
    assert torch.equal(ours, theirs)
    assert (ours != experts).any()
    if not settings:
        states = {}, {}
        for now in (slice(0, 5), slice(5, 6), slice(6, 12)):
            ours, theirs = (
                m.admitted(experts[:, now], 4, 3, state)
                for m, state in zip((plain("router"), public("router")), states, strict=True)
            )
            assert torch.equal(ours, theirs)
        assert torch.equal(states[0]["asked"], states[1]["asked"])


@pytest.mark.parametrize("tokens", [0.2, 1.0, 2.5, 3.0000000001])
def test_places(tokens):
    assert plain("router").places(tokens) == public("router").places(tokens)


@pytest.mark.parametrize(("family", "name", "arguments"), TABLES, ids=lambda x: x if isinstance(x, str) else "")
def test_tables_are_the_same_to_the_bit(family, name, arguments):
    ours, theirs = (getattr(module, name)(*arguments) for module in (plain(family), public(family)))
    if isinstance(ours, Tensor):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    else:
        assert ours == theirs


def test_wide_type():
    x, y, z = (torch.ones(1, dtype=d) for d in (torch.bfloat16, torch.float64, torch.complex64))
    for some in ((x,), (x, y), (x, z), (y, z)):
        assert plain("precision").wide_type(*some) == public("precision").wide_type(*some)


def every_function():
    return {(path.stem, name) for path in FILES if path.stem not in HELPERS for name in functions(plain(path.stem))}


def test_every_twin_is_compared():
    compared = {(case.family, case.name) for case in (*SEQUENCES, *WHOLES)} | {(f, name) for f, name, _ in TABLES}
    compared |= {("recurrent", name) for name in ("lstm", "gru", "rnn")} | {
        ("router", "admitted"),
        ("router", "places"),
    }
    twins = {(f, name) for f, name in every_function() if name in functions(public(f))}
    seen_inside = {("precision", "wide_type"), ("lsh", "random_rotations"), ("lsh", "keys_of")}
    in_models = {("balance", name) for name in ("expert_load",)}
    compared |= {("answers", "class_loss"), ("answers", "number_loss")}
    left = twins - compared - seen_inside - in_models
    elsewhere = ("state", "collect", "padding", "packed")  # below, in `test_plain_padding` and with models
    apart = {("position_bias", "place_distances")}
    assert {(f, name) for f, name in left - apart if f not in elsewhere} == set()


# The losses of answers


@pytest.mark.parametrize("ahead", [0, 1, 4])
def test_losses_are_those_of_the_package(ahead):
    scores, targets = normal(2, 5, 7), torch.randint(0, 7, (2, 5))
    targets[0, 2] = targets[1, 4] = -100
    found = [family("answers").class_loss(scores, targets, ahead) for family in (plain, public)]
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-12)
    numbers = [family("answers").number_loss(scores, scores.flip(1)) for family in (plain, public)]
    torch.testing.assert_close(*numbers, rtol=1e-12, atol=1e-12)


# The state


@pytest.mark.parametrize("keep", [None, 0, 1, 5])
def test_append_is_that_of_the_package(keep):
    states, seen = ({}, {}), normal(2, 3, 9, 4)
    for now in (slice(0, 4), slice(4, 5), slice(5, 9)):
        new = {"k": seen[:, :, now], "v": -seen[:, :, now]}
        results = [
            m.append(state, keep, **new) for m, state in zip((plain("state"), public("state")), states, strict=True)
        ]
        for ours, theirs in zip(*results, strict=True):
            assert torch.equal(ours, theirs)
    start, end = states[1]["k_span"]
    assert torch.equal(states[0]["k"], states[1]["k"][:, :, start:end])
    assert plain("state").append(None, keep, k=seen) == (seen,)


def test_the_rest_of_the_state_is_that_of_the_package():
    for module in (plain("state"), public("state")):
        state = {}
        assert [module.advance(state, n) for n in (3, 1)] == [0, 3]
        assert module.advance(None, 3) == 0
        assert [module.once(state, "memory", lambda n=n: n) for n in (7, 8)] == [7, 7]
        assert module.once(None, "memory", lambda: 9) == 9
        child = module.substate(state, 3)
        child["x"] = 1
        assert module.substate(state, "3") is child
        assert module.substate(None, 3) is None
        assert state["seen"] == 4


# Types and compilation


ONCE = list(
    {
        (case.family, case.name): case
        for case in reversed((*SEQUENCES, *WHOLES))
        if case.family not in ("router", "balance")
    }.values()
)


def usual(case):
    """Arguments of the first example that is neither empty nor of one token."""
    return case.arguments(next(s for s in case.every_size() if not {0, 1} & set(s.values())))


@pytest.mark.parametrize("case", ONCE, ids=repr)
def test_16_bit_types_are_those_of_the_family(case):
    kept = ("inv_freq",)  # frequencies are float32 whatever the model is
    given = {
        k: v.to(v.dtype if v.is_complex() else torch.bfloat16) if trained(v) and k not in kept else v
        for k, v in usual(case).items()
    }
    cuts = [slice(0, length(case, given))] if case.along else None
    ours, theirs = (case.run(module(case.family), given, cuts) for module in (plain, public))
    exact = case.run(
        plain(case.family), {k: v.double() if trained(v) and not v.is_complex() else v for k, v in given.items()}, cuts
    )
    for i, (got, wanted, right) in enumerate(zip(ours[0], theirs[0], exact[0], strict=True)):
        if i == 0 or case.name != "short_conv":  # which keeps gated inputs in their own type
            assert got.dtype == wanted.dtype
        assert_close("output", got, right, 6e-2)


@pytest.mark.parametrize("case", ONCE, ids=repr)
@torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True)  # what older versions want for experts
def test_compiles_as_one_graph(case):
    torch.compiler.reset()
    given, function = usual(case), getattr(plain(case.family), case.name)
    compiled = torch.compile(lambda **given: function(**given, **case.settings), fullgraph=True, backend="eager")
    for ours, theirs in zip(tensors(compiled(**given)), tensors(function(**given, **case.settings)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
