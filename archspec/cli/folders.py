"""The specs that some names stand for: files as they are, folders with every YAML file in and below them."""

import os
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from archspec.errors import Mark, Problem

SUFFIXES = (".yaml", ".yml")


class Found(NamedTuple):
    """A file to read; or a folder that gives none, and why."""

    name: str
    problem: Problem | None = None


def found(names: Iterable[str]) -> list[Found]:
    """What stands at some names, each file once whatever it is called; hidden folders below a folder are passed over.

    Links to folders below one are not followed, so none is walked twice; a folder that cannot be read, or that holds
    no YAML file, is a problem.
    """
    seen: set[str] = set()
    every: list[Found] = []
    for name in names:
        for each in _below(name) if os.path.isdir(name) else [Found(name)]:
            real = os.path.realpath(each.name) if os.path.exists(each.name) else each.name
            if real not in seen:
                every.append(each)
            seen.add(real)
    return every


def _below(folder: str) -> Iterator[Found]:
    """The YAML files of a folder, by name; and what is wrong with it."""
    errors: list[OSError] = []
    any_file = False
    for here, folders, files in os.walk(folder, onerror=errors.append):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(name for name in files if name.lower().endswith(SUFFIXES)):
            any_file = True
            yield Found(os.path.normpath(os.path.join(here, name)))
    for error in errors:
        yield _wrong(str(error.filename), f"cannot be read: {error.strerror}")
    if not any_file and not errors:
        yield _wrong(folder, f"holds no YAML file ({', '.join(SUFFIXES)})")


def _wrong(folder: str, message: str) -> Found:
    return Found(folder, Problem(Mark(folder), "", message))
