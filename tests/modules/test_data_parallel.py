"""Two processes that share each batch learn what one process learns from the whole of it."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing import spawn  # type: ignore[attr-defined]
from torch.nn.parallel import DistributedDataParallel

import archspec
from archspec.modules.model import eager

MOE = {"kind": "moe", "n_experts": 4, "top_k": 2, "d_ff": 6, "score": "sigmoid", "correction_bias": True,
       "bias_update_rate": 0.05, "z_loss": 0.1, "balance_loss": 1.0}  # fmt: skip
LOSSES: dict[str, dict[str, Any]] = {
    "batch": {},
    "pooled": {"balance_pooled": True},
    "sequence": {"balance_over": "sequence", "balance_sum": "one"},
}
STEPS, PARTS, ROWS = 3, 2, 4  # training steps, forward passes of each, sequences of a pass over all processes


def model(losses: str) -> Any:
    torch.manual_seed(0)
    block = {"mixer": {"kind": "attention", "n_heads": 2}, "ffn": MOE | LOSSES[losses]}
    sizes = {"name": "parallel", "d_model": 8, "vocab_size": 11, "max_seq_len": 16, "head": {"kind": "lm"}}
    made = eager(archspec.load({**sizes, "blocks": [{"repeat": 2, **block}]}))
    for p in made.parameters():
        nn.init.normal_(p, std=0.5)
    return made.double()


def train(m: Any, forward: Any, rank: int, ranks: int) -> dict[str, Tensor]:
    """A few steps of gradient descent on this rank's rows; the state that the model is left in."""
    optimizer = torch.optim.SGD(m.parameters(), lr=0.1)
    data = torch.randint(11, (STEPS, PARTS, ROWS, 9), generator=torch.Generator().manual_seed(1))
    for parts in data[:, :, rank * ROWS // ranks : (rank + 1) * ROWS // ranks]:
        collected: list[dict[str, Tensor]] = []
        for part in parts:
            collected.append({})
            logits = forward(part[:, :-1], aux=collected[-1])
            loss = nn.functional.cross_entropy(logits.flatten(0, 1), part[:, 1:].flatten())
            ((loss + m.aux_loss(collected[-1])) / PARTS).backward()
        optimizer.step()
        optimizer.zero_grad()
        m.update_bias(*collected)
    return m.state_dict()


def run(rank: int, folder: str, losses: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    m = model(losses)
    torch.save(train(m, DistributedDataParallel(m), rank, 2), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("losses", LOSSES)
def test_two_processes_are_one(tmp_path: Path, losses: str) -> None:
    spawn(run, (str(tmp_path), losses), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    m = model(losses)
    start = {name: value.clone() for name, value in m.state_dict().items()}
    whole = train(m, m, 0, 1)
    for name, value in whole.items():
        assert not torch.equal(value, start[name]), name
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], value, rtol=0, atol=1e-12, msg=name)
