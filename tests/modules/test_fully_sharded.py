"""Two processes that divide every parameter (FSDP's `fully_shard`) compute what one process does."""

from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.multiprocessing import spawn  # type: ignore[attr-defined]

import archspec
from archspec.layers.registry import everything
from archspec.modules.model import eager

pytestmark = pytest.mark.slow

SIZES = {"d_model": 16, "vocab_size": 11, "max_seq_len": 32}
MLP = {"kind": "mlp", "d_ff": 24}
PLAIN = {"kind": "attention", "n_heads": 2}
RANKS, ROWS, LENGTH = 2, 4, 12
GENERATED = ("mamba-0", "moe-0", "rope", "tied stacks")  # by their text; the others are interpreted, which is the same


def one(block: dict[str, Any], **top: Any) -> dict[str, Any]:
    return {"name": "sharded", **SIZES, "blocks": [{"repeat": 2, **block}], "head": {"kind": "lm"}, **top}


def two(block: dict[str, Any], **top: Any) -> dict[str, Any]:
    encoder = {"mask": "bidirectional", "blocks": [{"mixer": PLAIN, "ffn": MLP}]}
    stacks = {"encoder": encoder, "decoder": {"memory": "encoder", "blocks": [block]}}
    return {"name": "sharded", **SIZES, "stacks": stacks, "head": {"kind": "lm"}, **top}


def documents() -> dict[str, dict[str, Any]]:
    """Every example of every mixer and feed-forward network, positions, and ties."""
    found: dict[str, dict[str, Any]] = {}
    for kind, cls in everything()["mixer"].items():
        for i, example in enumerate(cls.examples):
            block = {"mixer": {"kind": kind, **example}, "ffn": MLP}
            cross = example.get("mask") == "cross"
            found[f"{kind}-{i}"] = two({"mixer": PLAIN, "cross": block["mixer"]}) if cross else one(block)
    for kind, cls in everything()["ffn"].items():
        for i, example in enumerate(cls.examples):
            if example.get("choice_over") != "batch":  # which chooses otherwise in another batch
                found[f"{kind}-{i}"] = one({"mixer": PLAIN, "ffn": {"kind": kind, **example}})
    for kind in ("rope", "alibi", "t5"):
        found[kind] = one({"mixer": {**PLAIN, "position": {"kind": kind}}, "ffn": MLP})
    tied = {"kind": "lm", "tied": True}
    found["tied"] = one({"mixer": PLAIN, "ffn": MLP}, head=tied)
    found["tied stacks"] = two({"mixer": PLAIN, "cross": PLAIN}, head=tied)
    found["tied stacks"]["stacks"]["decoder"]["tie_embedding"] = "encoder"
    return found


def batch(spec: archspec.Spec) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(1)
    return {a.name: torch.randint(11, (ROWS, LENGTH), generator=g) for a in spec.arguments if not a.optional}


def step(model: Any, rows: slice) -> dict[str, Tensor]:
    """Outputs, loss, gradients and what one step of gradient descent makes of the parameters."""
    spec = model._spec
    given = {name: x[rows] for name, x in batch(spec).items()}
    aux: dict[str, Tensor] = {}
    logits = model(**given, **({"aux": aux} if any(a.of == "aux" for a in spec.arguments) else {}))
    target = next(reversed(given.values()))
    loss = nn.functional.cross_entropy(logits.flatten(0, 1), target.flatten())
    (loss + model.aux_loss(aux) if spec.aux_losses else loss).backward()
    found = {"logits": logits.detach(), "loss": loss.detach()}
    found |= {f"gradient of {name}": gathered(p.grad) for name, p in model.named_parameters() if p.grad is not None}
    torch.optim.SGD(model.parameters(), lr=0.5).step()
    return found | {f"{name} afterwards": gathered(p) for name, p in model.named_parameters()}


def gathered(x: Tensor) -> Tensor:
    return (x.full_tensor() if isinstance(x, DTensor) else x).detach().clone()


def shard(model: nn.Module) -> nn.Module:
    mesh = init_device_mesh("cpu", (RANKS,))
    for name, module in model.named_modules():
        if name.rpartition(".")[0].rpartition(".")[2] == "blocks":
            fully_shard(module, mesh=mesh)
    return fully_shard(model, mesh=mesh)  # type: ignore[return-value]


def run(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=RANKS)
    found: dict[str, Any] = {}
    for name, document in documents().items():
        spec = archspec.load(document)
        with torch.device("meta"):
            whole = archspec.build(spec) if name in GENERATED else eager(spec)
        model = shard(whole).to_empty(device="cpu").eval()
        archspec.init_weights(model, seed=0)
        try:
            found[name] = step(model, slice(rank * ROWS // RANKS, (rank + 1) * ROWS // RANKS))
        except Exception as error:  # told by the test, beside those of other kinds
            found[name] = f"{type(error).__name__}: {error}"
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("sharded")
    spawn(run, (str(folder),), nprocs=RANKS)
    return [torch.load(folder / f"{rank}.pt") for rank in range(RANKS)]


@pytest.mark.parametrize("name", documents())
def test_two_processes_that_divide_a_model_are_one(name: str, sharded: list[dict[str, Any]]) -> None:
    """Each starts from a model without storage, and draws its share of the weights from the same seed."""
    ours = [ranks[name] for ranks in sharded]
    assert not [error for error in ours if isinstance(error, str)]
    model = eager(archspec.load(documents()[name])).eval()
    archspec.init_weights(model, seed=0)
    wanted = step(model, slice(ROWS))
    joined = {
        "logits": torch.cat([found.pop("logits") for found in ours]),
        "loss": torch.stack([found.pop("loss") for found in ours]).mean(),
    }
    for found in ours:
        assert (joined | found).keys() == wanted.keys()
        for what, value in (joined | found).items():
            torch.testing.assert_close(value, wanted[what], rtol=1e-4, atol=1e-6, msg=lambda m, w=what: f"{w}: {m}")
