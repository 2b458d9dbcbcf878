"""What holds for every operation family, whatever it computes: how it compiles, exports, counts, fails and batches."""

import importlib
from typing import Any

import pytest
import torch
from kernel_checks import assert_close
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

FAMILIES = {  # file -> its public function
    "pointwise.activation": "swiglu",
    "attention.softmax": "attention",
    "memory.delta_rule": "delta_rule",
    "memory.dplr": "dplr",
    "moe.experts": "experts_gated",
    "moe.grouped_linear": "grouped_linear",
    "attention.latent": "latent_attention",
    "loss.linear_cross_entropy": "linear_cross_entropy",
    "scans.linear_scan": "linear_scan",
    "convolutions.long_conv": "long_conv",
    "attention.lsh": "lsh_attention",
    "memory.matrix_memory": "matrix_memory",
    "pointwise.norm": "rms_norm",
    "pointwise.rope": "rotate",
    "scans.selective_scan": "selective_scan",
    "convolutions.short_conv": "short_conv",
    "memory.ssd": "ssd",
    "scans.wkv": "wkv",
}
SETTINGS = {"attention.lsh": {"chunk": 8, "look_back": 1}}  # what has no default and is no tensor
every_family = pytest.mark.parametrize("family", FAMILIES)


class Call(nn.Module):
    """The public function of a family as a module of its tensors; other arguments are part of it."""

    def __init__(self, family: str, dtype: torch.dtype = torch.float32):
        super().__init__()
        module = importlib.import_module(f"archspec.kernels.{family}")
        self.function = getattr(module, FAMILIES[family])
        given = module.example(**next(sizes for sizes in module.EXAMPLES if not {0, 1} & set(sizes.values())))
        self.plain = {k: v for k, v in given.items() if not isinstance(v, Tensor)} | SETTINGS.get(family, {})
        self.names = [k for k, v in given.items() if isinstance(v, Tensor)]
        self.tensors = [cast(given[name], dtype) for name in self.names]

    def forward(self, *tensors: Tensor) -> Any:
        """The first result, where there are several."""
        y = self.function(**dict(zip(self.names, tensors, strict=True)), **self.plain)
        return y if isinstance(y, Tensor) else y[0]

    def leaves(self) -> list[Tensor]:
        return [x.clone().requires_grad_(x.is_floating_point()) for x in self.tensors]

    def gradients(self, y: Tensor, leaves: list[Tensor]) -> list[Tensor]:
        trained = [x for x in leaves if x.requires_grad]
        found = torch.autograd.grad(y.float().square().sum(), trained, allow_unused=True)  # tables of angles have none
        return [g for g in found if g is not None]


def cast(x: Tensor, dtype: torch.dtype) -> Tensor:
    return x.to(dtype) if x.is_floating_point() else x


@every_family
def test_compiles_as_one_graph_and_gradients_agree(family):
    torch.compiler.reset()
    call = Call(family)
    leaves = call.leaves()
    wanted, got = call(*leaves), torch.compile(call, fullgraph=True, backend="aot_eager")(*leaves)
    assert_close("output", got, wanted, 1e-5)
    for ours, theirs in zip(call.gradients(got, leaves), call.gradients(wanted, leaves), strict=True):
        assert_close("gradient", ours, theirs, 1e-4)
    for before, after in zip(call.tensors, leaves, strict=True):
        assert torch.equal(before, after), "an input was changed"


@every_family
def test_exports(family):
    call = Call(family)
    exported = torch.export.export(call, tuple(call.tensors)).module()
    assert_close("output", exported(*call.tensors), call(*call.tensors), 1e-5)


@every_family
def test_a_graph_exported_without_gradients_can_be_trained(family):
    call = Call(family)
    exported = torch.export.export(call, tuple(call.tensors)).module()
    leaves, others = call.leaves(), call.leaves()
    wanted, got = call.gradients(call(*leaves), leaves), call.gradients(exported(*others), others)
    for ours, theirs in zip(got, wanted, strict=True):
        assert_close("gradient", ours, theirs, 1e-4)


@every_family
def test_flops_do_not_depend_on_the_device(family):
    call = Call(family)
    totals = []
    for device in ("cpu", "meta"):
        tensors = [x.detach().to(device).requires_grad_(x.is_floating_point()) for x in call.tensors]
        with FlopCounterMode(display=False) as counter:
            call(*tensors).float().sum().backward()
        totals.append(counter.get_total_flops())
    assert totals[0] == totals[1]


@every_family
def test_runs_under_autocast(family):
    call = Call(family)
    leaves = call.leaves()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = call(*leaves)
    assert_close("output", y, call(*leaves), 5e-2)
    assert all(g.isfinite().all() for g in call.gradients(y, leaves))


@every_family
def test_checkpointing_changes_nothing(family):
    call = Call(family)
    leaves = call.leaves()
    plain = call.gradients(call(*leaves), leaves)
    again = call.gradients(checkpoint(call, *leaves, use_reentrant=False), leaves)
    assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))


@every_family
@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_vmap_is_a_loop(family):
    call = Call(family)
    first, rest = torch.stack([call.tensors[0], call.tensors[0].flip(0)]), call.tensors[1:]
    mapped = torch.vmap(lambda x: call(x, *rest))(first)
    assert_close("output", mapped, torch.stack([call(x, *rest) for x in first]), 1e-5)


@every_family
def test_strides_do_not_matter(family):
    call = Call(family)
    spread = [torch.stack((x, x), dim=-1)[..., 0] for x in call.tensors]
    assert_close("output", call(*spread), call(*call.tensors), 1e-5)
    a, b = ([x.requires_grad_(x.is_floating_point()) for x in some] for some in (spread, call.leaves()))
    for ours, theirs in zip(call.gradients(call(*a), a), call.gradients(call(*b), b), strict=True):
        assert_close("gradient", ours, theirs, 1e-4)


@every_family
def test_an_empty_batch(family):
    module = importlib.import_module(f"archspec.kernels.{family}")
    empty = next((sizes for sizes in module.EXAMPLES if 0 in sizes.values()), None)
    assert empty is not None, "EXAMPLES has no empty batch"
    given = {k: cast(v, torch.float32) if isinstance(v, Tensor) else v for k, v in module.example(**empty).items()}
    leaves = [v.requires_grad_() for v in given.values() if isinstance(v, Tensor) and v.is_floating_point()]
    y = getattr(module, FAMILIES[family])(**given, **SETTINGS.get(family, {}))
    y = y if isinstance(y, Tensor) else y[0]
    if y.requires_grad:
        y.float().nansum().backward()
        assert all(x.grad is None or x.grad.isfinite().all() for x in leaves)


@every_family
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_16_bit_inputs_give_16_bit_outputs(family, dtype):
    call = Call(family, dtype)
    y = call(*call.tensors)
    exact = Call(family, torch.float64)
    exact.tensors = [cast(x, torch.float64) for x in call.tensors]
    assert_close("output", y, exact(*exact.tensors), 2e-2 if dtype == torch.float16 else 6e-2)
    assert y.dtype in (dtype, torch.float32)


@every_family
def test_a_wrong_type_is_named(family):
    call = Call(family)
    for index, name in enumerate(call.names):
        if not call.tensors[index].is_floating_point():
            continue
        wrong = [x.long() if i == index else x for i, x in enumerate(call.tensors)]
        with pytest.raises(TypeError, match=rf"{name} is torch.int64, expected a floating type"):
            call(*wrong)


@every_family
def test_a_wrong_shape_is_named(family):
    call = Call(family)
    for index in range(1, len(call.names)):
        wrong = [x[..., None, None, None] if i == index else x for i, x in enumerate(call.tensors)]
        with pytest.raises(ValueError, match=rf"\w+: {call.names[index]} (has shape|must)"):
            call(*wrong)


@every_family
def test_a_wrong_device_is_named(family):
    call = Call(family)
    if len(call.tensors) < 2:
        return
    wrong = [call.tensors[0].to("meta"), *call.tensors[1:]]
    with pytest.raises(ValueError, match="is on cpu, expected meta, where"):
        call(*wrong)


@every_family
def test_nan_does_not_vanish(family):
    call = Call(family)
    broken = torch.full_like(call.tensors[0], torch.nan)
    assert call(broken, *call.tensors[1:]).isnan().any()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_memory_of_what_is_given_stays_its_owners(family):
    """FSDP frees parameters after use by resizing their storage, which `Tensor.numpy` forbids for good."""
    call = Call(family)
    leaves = call.leaves()
    call.gradients(call(*leaves), leaves)
    assert all(leaf.untyped_storage().resizable() for leaf in leaves)
