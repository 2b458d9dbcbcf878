"""States in files: whole or not at all, and refused where they do not fit."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from decoding_models import model_of, spec_of, tokens
from torch import nn

from archspec import State, StateError, WriteError, new_state
from archspec.decoding.file import _checksum as checksum
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
    with pytest.raises(WriteError, match=r"cannot write .*state.safetensors: no space left"):
        state.save(path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_loaded_state_does_not_hold_on_to_its_file(attention: nn.Module, path: Path) -> None:
    state = saved(attention, path)
    loaded = State.load(path, attention)
    path.write_bytes(b"\0" * path.stat().st_size)
    with torch.no_grad():
        assert torch.equal(attention(tokens(2, 1), state=loaded), attention(tokens(2, 1), state=state))


# Places that take no file


@pytest.mark.parametrize(
    "name", ["none/state", "file/state", "", "folder", ".", "/dev/null", "/dev/full", "a" * 300, "a\0b"]
)
def test_where_no_file_can_be_is_one_clear_error(
    attention: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    state = new_state(attention, 2)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("kept")
    with pytest.raises(WriteError, match=r"^cannot write "):
        state.save(name)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["file", "folder"]
    assert (tmp_path / "file").read_text() == "kept"
    with pytest.raises(
        (OSError, StateError), match=r"No such file|Not a directory|too long|expected a file|no file name"
    ):
        State.load(name, attention)


@pytest.mark.skipif(os.geteuid() == 0, reason="who may do all is refused nothing")
def test_without_permission_what_was_there_stays(attention: nn.Module, path: Path) -> None:
    state = saved(attention, path)
    before = path.read_bytes()
    path.parent.chmod(0o500)
    try:
        with pytest.raises(WriteError, match=r"cannot write .*: Permission denied"):
            state.save(path)
    finally:
        path.parent.chmod(0o700)
    assert path.read_bytes() == before


@pytest.mark.parametrize("given", [None, 3, [], 2.5], ids=repr)
def test_a_path_is_a_path(attention: nn.Module, given: Any) -> None:
    state = new_state(attention, 2)
    with pytest.raises(TypeError, match="expected the path of a file, found "):
        state.save(given)
    with pytest.raises(TypeError, match="expected the path of a file, found "):
        State.load(given, attention)


def test_links_lead_to_the_file_whose_mode_stays(attention: nn.Module, path: Path) -> None:
    saved(attention, path)
    path.chmod(0o640)
    link = path.with_name("link")
    link.symlink_to(path)
    state = saved(attention, link, 3)
    assert link.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o640
    assert State.load(path, attention).length == state.length == 3


# Files that State.save does not write, though whole


def rewritten(path: Path, change: Any) -> None:
    """The file with other tensors and another header, and the checksum of those."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(path, "pt") as file:
        tensors, metadata = {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118
    header = json.loads(metadata["state"])
    other = change(tensors, header)
    text = other if isinstance(other, str) else json.dumps(header)
    save_file(tensors, path, {**metadata, "state": text, "checksum": checksum(text, tensors)})


K = "0.mixer.k"
CHANGES: dict[str, tuple[Any, str]] = {
    "missing": (lambda x, h: x.pop(K), f"header and its tensors disagree on {K}"),
    "more": (lambda x, h: x.update(y=torch.zeros(2)), "header and its tensors disagree on y"),
    "renamed": (lambda x, h: x.update({"0.mixer.q": x.pop(K)}), "header and its tensors disagree on 0.mixer.k"),
    "shape": (lambda x, h: x.update({K: x[K][:1].clone()}), rf"{K} has the shape \(1, 2, 64, 4\), expected"),
    "axes": (lambda x, h: x.update({K: x[K].flatten()}), rf"{K} has the axes \[0, 1, 2, 3\], expected those of its"),
    "dtype": (lambda x, h: x.update({K: x[K].float()}), f"{K} is torch.float32, expected torch.float64"),
    "tokens": (lambda x, h: h["tree"]["0"]["mixer"].update(k=[0, 3, 64]), "expected 3 tokens of a buffer for 64"),
    "room": (lambda x, h: h["tree"]["0"]["mixer"].update(k=[0, 9, 8]), "does not say its tree as State.save does"),
    "no place": (lambda x, h: h["tree"]["0"]["mixer"].pop("k"), f"does not say where {K} goes"),
    "other place": (lambda x, h: h["tree"]["0"]["mixer"].update(q=None), "it has no tensor 0.mixer.q"),
    "leaf": (lambda x, h: h["tree"]["0"]["mixer"].update(k=2.5), "does not say its tree"),
    "batch": (lambda x, h: h.update(batch=2.5), "does not say its batch"),
    "other batch": (lambda x, h: h.update(batch=3), "expected .* with B = 3"),
    "max_len": (lambda x, h: h.update(max_len=-1), "does not say its max_len"),
    "no dtype": (lambda x, h: h.update(dtype="tensor"), "does not say its dtype"),
    "other dtype": (lambda x, h: h.update(dtype="float32"), "expected a state of torch.float64, found one of torch.fl"),
    "orders": (lambda x, h: h.update(orders=[]), "does not say its orders"),
    "order": (lambda x, h: h["orders"].update({K: [0, 0, 1, 2]}), rf"{K} has the axes \[0, 0, 1, 2\]"),
    "no header": (lambda x, h: "null", "its header is no JSON object"),
    "no json": (lambda x, h: "{", "its header is no JSON object"),
    "deep": (lambda x, h: "[" * 100_000, "its header is no JSON object"),
    "no digest": (lambda x, h: h.update(digest=None), r"expected a state of attention \(hash .*, found one of att"),
    "a count": (lambda x, h: h["tree"]["0"]["mixer"].update(seen=-2), "0.mixer.seen is -2, expected a number of tok"),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_a_whole_file_of_wrong_contents_is_one_clear_error(attention: nn.Module, path: Path, name: str) -> None:
    saved(attention, path)
    change, error = CHANGES[name]
    rewritten(path, change)
    with pytest.raises(StateError, match=error):
        State.load(path, attention)


def test_a_rewritten_file_is_read(attention: nn.Module, path: Path) -> None:
    """That the changes above are what is refused."""
    state = saved(attention, path)
    rewritten(path, lambda x, h: None)
    assert State.load(path, attention).length == state.length


def test_a_file_says_what_was_asked_of_it(attention: nn.Module, path: Path) -> None:
    saved(attention, path)
    for wrong in (0, 2.5, True, "2"):
        with pytest.raises(StateError, match="expected at least 1 sequence, found batch = "):
            State.load(path, attention, batch=wrong)  # type: ignore[arg-type]
    with pytest.raises(StateError, match="expected a device"):
        State.load(path, attention, device="nowhere")
    with pytest.raises(StateError, match="expected a floating dtype"):
        State.load(path, attention, dtype="float32")  # type: ignore[arg-type]
