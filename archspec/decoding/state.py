"""`State`: the dict that a model fills while it decodes, with all that people do with it."""

from collections.abc import Iterable, Sequence
from os import PathLike
from typing import Any

import torch
from torch import Tensor, nn

from archspec.decoding.check import check_batch, check_file, check_model, check_place, check_tensors, dtype_of
from archspec.decoding.cut import length, truncated
from archspec.decoding.file import read, write
from archspec.decoding.given import device_of, type_of, whole
from archspec.decoding.layout import Layout, layout, spec_of
from archspec.decoding.padding import padding, shifted, trimmed
from archspec.decoding.room import reserve
from archspec.decoding.rows import joined, numbers, picked
from archspec.decoding.tree import Held, Tree, check_tree, leaves, rebuilt, refilled
from archspec.errors import StateError, in_tokens, many
from archspec.language.model import Spec


class State(dict[str, Any]):
    """What a model of one spec keeps of `batch` sequences while it decodes them; made by `new_state`.

    It is the dict that every model takes as `state=`, and holds what the model leaves there. `reorder` and `truncate`
    change it; what the other methods return shares no memory with it, and either can go on without the other.

    Attributes:
        layout: which tensors there are, and what each of their axes counts.
        batch: the number of sequences.
        max_len: the number of tokens for which there is room from the start; None where it grows.
    """

    def __init__(
        self,
        layout: Layout,
        batch: int,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
        max_len: int | None = None,
    ):
        super().__init__()
        self.layout = layout
        self.batch = whole(batch, "at least 1 sequence", "batch = ", least=1)
        self.max_len = None if max_len is None else whole(max_len, "max_len of at least 1 token", least=1)
        self._given = device, dtype
        self._first: tuple[torch.device | None, torch.dtype | None] = None, None  # those of the first call

    @classmethod
    def of(cls, of: Spec | nn.Module, filled: dict[str, Any]) -> "State":
        """A state of what a model has left in a plain dict, which it takes over: go on with the state alone.

        Args:
            of: the spec of the model, or a model that knows it.
            filled: the dict.

        Raises:
            StateError: the dict holds what such a model does not leave there.
        """
        found = layout(spec_of(of))
        check_tree(filled)
        held = [x for x in leaves(filled) if found.entry(x.path).batch_axis is not None]
        if not held:
            raise StateError("the dict is empty, so that nothing says how many sequences it is for; use new_state")
        batch = held[0].tensor.shape[found.entry(held[0].path).batch_axis or 0]
        model = [x.tensor.dtype for x in held if found.entry(x.path).kept.dtype == "model"]
        made = State(found, batch, held[0].tensor.device, type_of(model[0]) if model else None)
        check_tensors(filled, found, batch, made.dtype)
        made.update(filled)
        return made

    @property
    def device(self) -> torch.device | None:
        """Where its tensors are; None where nobody said so, before the first call."""
        return self._given[0] or self._first[0]

    @property
    def dtype(self) -> torch.dtype | None:
        """That of the model's first parameter; None where nobody said so, before the first call."""
        return self._given[1] or self._first[1]

    @property
    def length(self) -> int | None:
        """The tokens seen; None where nothing in the state says so, as in recurrences without positions."""
        return length(self, self.layout)

    @property
    def bytes(self) -> int:
        """Bytes of memory held, room for further tokens included."""
        storages = [held.tensor.untyped_storage() for held in leaves(self)]
        return sum({s.data_ptr(): s.nbytes() for s in storages}.values())

    @property
    def bytes_used(self) -> int:
        """Bytes of what is held of the tokens seen, without the room for further ones."""
        filled = [held.filled(self.layout.entry(held.path).token_axis) for held in leaves(self)]
        return sum(x.numel() * x.element_size() for x in filled)

    # What changes it

    def reorder(self, indices: Sequence[int] | Tensor) -> None:
        """Let sequence i go on from what is now sequence indices[i], for each of the batch: a step of beam search.

        Raises StateError for another number of indices than `batch`, or one that is no sequence.
        """
        rows = numbers(indices, self.batch)
        if len(rows) != self.batch:
            raise StateError(f"expected {self.batch} indices, one a sequence, found {len(rows)}; select() takes any")
        self._become(picked(self, self.layout, rows))

    def truncate(self, n: int) -> None:
        """Go back to the first n tokens, without a copy: what came after them was never there.

        Caches of attention can, within their window. With n = 0 every model starts again, with the memory it has.

        Raises:
            StateError: n is not among the tokens seen, or a layer keeps what cannot be taken apart again (a recurrence,
                a short convolution, a window that has dropped tokens), which is named; the state is left as it was.
        """
        self._become(truncated(self, self.layout, n))

    # What makes others

    def clone(self) -> "State":
        """A copy that goes on by itself, with room for as many tokens."""
        return self._with(rebuilt(self, lambda held: refilled(self.layout.entry(held.path), held, lambda x: x)))

    __copy__ = copy = clone  # a dict's own would share the buffers, into which both would write

    def repeat(self, n: int) -> "State":
        """Each sequence n times, one beside the other: a prompt for n answers."""
        n = whole(n, "to repeat each sequence at least 1 time", least=1)
        return self.select(torch.arange(self.batch).repeat_interleave(n))

    def select(self, indices: Sequence[int] | Tensor) -> "State":
        """The sequences of these numbers, in this order and as often as they are named.

        Columns that are padding in all of them are left out.
        """
        rows = numbers(indices, self.batch)
        return self._with(trimmed(picked(self, self.layout, rows), self.layout, len(rows)), batch=len(rows))

    def pad(self, n: int) -> "State":
        """The sequences behind n more columns of padding, as those of a longer state are that they are to join.

        Raises StateError where the model takes no mask, and so knows of no padding.
        """
        n = whole(n, "0 or more columns of padding")
        return self._with(shifted(self, self.layout, n, self.batch))

    @staticmethod
    def cat(states: Iterable["State"]) -> "State":
        """The sequences of several states of one model, one after another.

        Those of shorter states are padded, where the model takes masks; a recurrence without positions needs none.

        Raises:
            StateError: there is none, or they are of different models, devices, dtypes, memories, or of different
                lengths where the model takes no mask.
        """
        every = _listed(states)
        first = every[0]
        if other := next((s for s in every if s.layout.digest != first.layout.digest), None):
            raise StateError(f"a state of {first.layout.name} and one of {other.layout.name} cannot be joined")
        longest = max((s.length or 0 for s in every), default=0)
        if any(s.length != first.length or padding(s, s.layout) is not None for s in every):
            every = [s.pad(longest - (s.length or 0)) for s in every]
        return first._with(joined(every, first.layout), batch=sum(s.batch for s in every))

    def to(self, device: str | torch.device | None = None, dtype: torch.dtype | None = None) -> "State":
        """A copy on another device or for a model of another dtype; numbers kept wider than the model's stay so."""
        where = None if device is None else device_of(device)
        dtype = None if dtype is None else type_of(dtype)

        def moved(held: Held) -> Held:
            entry = self.layout.entry(held.path)
            wanted = held.tensor.dtype if dtype is None else dtype_of(entry.kept, dtype)
            return refilled(entry, held, lambda x: x.to(where, wanted))

        return self._with(rebuilt(self, moved), device=where or self.device, dtype=dtype or self.dtype)

    # Files

    def save(self, path: str | PathLike[str]) -> None:
        """Write it to a file of safetensors, which is there whole or not at all; needs the extra `[safetensors]`.

        Raises WriteError where it cannot be written; a file that was there is as it was.
        """
        kind = None if self.dtype is None else str(self.dtype).removeprefix("torch.")
        about = {"batch": self.batch, "dtype": kind, "max_len": self.max_len}
        write(path, self, self.layout, about)

    @staticmethod
    def load(
        path: str | PathLike[str],
        of: Spec | nn.Module,
        *,
        batch: int | None = None,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> "State":
        """The state in a file that `save` wrote.

        Args:
            path: of the file.
            of: the spec of the model that is to go on, or such a model that knows it.
            batch: the number of sequences that is expected.
            device: where to; by default that of the model, or the CPU.
            dtype: that is expected; by default that of the model.

        Raises:
            StateError: the file is damaged, or of another spec, batch or dtype.
        """
        found = layout(spec_of(of))
        first = _parameter(of)
        where = device_of(device if device is not None else "cpu" if first is None else first.device)
        wanted = type_of(dtype) if dtype is not None else None if first is None else first.dtype
        batch = None if batch is None else whole(batch, "at least 1 sequence", "batch = ", least=1)
        tree, about = read(path, found, where)
        check_file(path, about.batch, about.dtype, batch, wanted)
        check_tensors(tree, found, about.batch, about.dtype)
        made = State(found, about.batch, where, about.dtype, about.max_len)
        made.update(tree)
        if made.max_len is not None:
            reserve(made, found, made.batch, made.max_len, made.dtype, where)
        return made

    # What models ask

    def expect(self, model: nn.Module, *args: Any, **kwargs: Any) -> None:
        """Refuse arguments of a model's forward that do not go with this state.

        Models of the package ask by themselves; plain standalone files check nothing.

        Raises:
            StateError: the model is of another spec or dtype, or its input of another batch or on another device.
        """
        check_model(self.layout, model, padding(self, self.layout) is not None)
        place = self.layout.place
        x = args[place] if place < len(args) else kwargs.get(self.layout.reads)
        if not isinstance(x, Tensor):
            return
        check_batch(self.layout, self.batch, x)
        first = next(model.parameters(), None)
        dtype = None if first is None else first.dtype
        if not self:
            self._first = x.device, dtype
        check_place(self.layout, self.device, self.dtype, x, dtype)

    def __repr__(self) -> str:
        tokens = "tokens unknown" if self.length is None else in_tokens(self.length)
        return f"State({self.layout.name}: {many(self.batch, 'sequence')}, {tokens}, {many(self.bytes, 'byte')})"

    def _with(self, tree: Tree, **different: Any) -> "State":
        """A state of other contents."""
        about = {"batch": self.batch, "device": self.device, "dtype": self.dtype, "max_len": self.max_len}
        made = State(self.layout, **(about | different))
        made.update(tree)
        return made

    def _become(self, tree: Tree) -> None:
        if tree is not self:
            self.clear()
            self.update(tree)


def new_state(
    of: Spec | nn.Module,
    batch: int,
    max_len: int | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> State:
    """An empty state for `batch` sequences: what a model takes as `state=` at their start.

    Args:
        of: a spec, or a model that knows its own (of `archspec.build`, or interpreted). With a spec, any model of it
            goes: generated, standalone, loaded by hand.
        batch: the number of sequences.
        max_len: tokens for which caches get room at once, so that without gradients none is copied or moved until
            there are more; then they grow as they do without. A window has room for itself alone and moves on once in
            64 tokens. Plain standalone files put tensors together anew for every token and leave the room unused.
        device: where the tensors are to be; by default where the model is, and for a spec where its first input is
            (PyTorch's default, with max_len).
        dtype: of the model; by default that of its first parameter, and for a spec the same of its first call
            (PyTorch's default, with max_len).

    Raises:
        TypeError: `of` is neither a spec nor a model that knows its own.
        StateError: batch or max_len is no whole number of at least 1, or device or dtype is none, or there is no memory
            for so much room.
    """
    found, first = layout(spec_of(of)), _parameter(of)
    where = None if device is None else device_of(device)
    kind = None if dtype is None else type_of(dtype)
    if first is not None:
        where, kind = where or first.device, kind or first.dtype
    elif max_len is not None:
        where, kind = where or device_of(torch.get_default_device()), kind or torch.get_default_dtype()
    made = State(found, batch, where, kind, max_len)
    if made.max_len is not None:
        reserve(made, found, made.batch, made.max_len, made.dtype, made.device)
    return made


def _listed(states: Any) -> list[State]:
    """At least one state, in a list."""
    if isinstance(states, dict | Tensor) or not isinstance(states, Iterable):
        raise StateError(f"expected a list of states to join, found a {type(states).__name__}")
    every = list(states)
    if odd := [type(state).__name__ for state in every if not isinstance(state, State)]:
        raise StateError(f"expected states to join, found a {odd[0]} among them")
    if not every:
        raise StateError("expected at least one state to join, found none")
    return every


def _parameter(of: Spec | nn.Module) -> Tensor | None:
    """The first parameter of a model."""
    return None if isinstance(of, Spec) else next(of.parameters(), None)
