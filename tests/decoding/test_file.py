"""States in files: whole or not at all, and refused where they do not fit."""

from pathlib import Path
from typing import Any

import pytest
import torch
from decoding_models import model_of, spec_of, tokens
from torch import nn

from archspec import State, StateError, new_state
from archspec.decoding.tree import leaves


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.safetensors"


def saved(model: nn.Module, path: Path, n: int = 9, **options: Any) -> State:
    state = new_state(model, 2, **options)
    if n:
        with torch.no_grad():
            model(tokens(2, n), state=state)
    state.save(path)
    return state


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_it_comes_back_as_it_was(model: nn.Module, path: Path, dtype: torch.dtype) -> None:
    typed = model_of(model._spec.name, dtype)
    state = saved(typed, path, max_len=200)
    assert path.stat().st_size < state.bytes_used + 6000  # not the room
    loaded = State.load(path, typed)
    assert (loaded.batch, loaded.length, loaded.dtype, loaded.max_len) == (2, state.length, dtype, 200)
    assert (loaded.bytes, loaded.bytes_used) == (state.bytes, state.bytes_used)
    with torch.no_grad():
        for i in range(5):
            x = tokens(2, 1, i)
            assert torch.equal(typed(x, state=loaded), typed(x, state=state))


def test_an_empty_state_comes_back(attention: nn.Module, path: Path) -> None:
    saved(attention, path, 0)
    assert State.load(path, attention) == {}
    state = saved(attention, path, 0, max_len=100)
    assert State.load(path, attention).bytes == state.bytes
    assert all(held.unused for held in leaves(State.load(path, attention)))


def test_a_file_that_does_not_fit_is_refused(attention: nn.Module, path: Path) -> None:
    saved(attention, path)
    with pytest.raises(StateError, match=r"expected a state of hybrid \(hash \w{12}\), found one of attention"):
        State.load(path, spec_of("hybrid"))
    with pytest.raises(StateError, match="expected a state of 3 sequences, found one of 2"):
        State.load(path, attention, batch=3)
    with pytest.raises(
        StateError, match=r"of torch.float32, found one of torch.float64; load it with dtype=torch.float64"
    ):
        State.load(path, model_of("attention", torch.float32))
    with pytest.raises(StateError, match=r"expected a state of torch.bfloat16, found one of torch.float64"):
        State.load(path, spec_of("attention"), dtype=torch.bfloat16)
    assert State.load(path, spec_of("attention")).dtype == torch.float64
    with pytest.raises(FileNotFoundError):
        State.load(path.with_name("nothing"), attention)


def test_every_damage_is_one_clear_error(attention: nn.Module, path: Path) -> None:
    saved(attention, path)
    whole = path.read_bytes()
    header = int.from_bytes(whole[:8], "little")
    flipped = [
        bytes([*whole[:i], whole[i] ^ 4, *whole[i + 1 :]]) for i in (0, 7, 8, 60, header, header + 9, len(whole) - 1)
    ]
    for damaged in (b"", b"nothing", whole[:40], whole[:-1], whole[: header + 50], *flipped):
        path.write_bytes(damaged)
        with pytest.raises(
            StateError, match=r"state.safetensors: (the file is damaged|expected a state that State.save)"
        ):
            State.load(path, attention)


def test_another_file_of_safetensors_is_none_of_a_state(attention: nn.Module, path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(2)}, path)
    with pytest.raises(StateError, match=r"expected a state that State.save wrote, found another file of safetensors"):
        State.load(path, attention)


def test_a_failed_write_leaves_the_earlier_file(
    attention: nn.Module, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = saved(attention, path)
    before = path.read_bytes()

    def fails(tensors: Any, target: Path, metadata: Any) -> None:
        target.write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr("safetensors.torch.save_file", fails)
    with pytest.raises(OSError, match="no space left"):
        state.save(path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_loaded_state_does_not_hold_on_to_its_file(attention: nn.Module, path: Path) -> None:
    state = saved(attention, path)
    loaded = State.load(path, attention)
    path.write_bytes(b"\0" * path.stat().st_size)
    with torch.no_grad():
        assert torch.equal(attention(tokens(2, 1), state=loaded), attention(tokens(2, 1), state=state))
