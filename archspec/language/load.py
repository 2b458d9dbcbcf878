"""From a file, text or plain data to a `Spec`: read, extend, override, write out the layers, resolve, check."""

import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from archspec.errors import Fault, Mark, Problem, SpecError, SpecWarning, suggest
from archspec.language.assemble import Assembler
from archspec.language.document import TOP_KEYS
from archspec.language.model import Spec
from archspec.language.rules import shown
from archspec.language.source import MISSING, no_plain_file, parse, read
from archspec.language.topics import see
from archspec.language.tree import Node, assign, clipped, from_plain, merge, remove

MOST_EXTENDS = 16
LONGEST_PATH = 1000
SETTING = "--set"  # how the file of a mark begins that stands in no file, but in a setting


Settings = str | Iterable[str] | Mapping[str, Any]


def load(source: str | Path | Mapping[str, Any], *, set: Settings = ()) -> Spec:
    """The spec that a file, or a mapping of the same form, describes.

    Args:
        source: the path of a YAML file, or its content as a mapping.
        set: an override such as "define.attn.mixer.n_heads=4", where the value is read as YAML, or a list of them; or a
            mapping such as {"define.attn.mixer.n_heads": 4}, of paths to plain data. No value (null) removes what
            stands there.

    Raises:
        SpecError: with every problem of the file, each with its line and column.

    Warns:
        SpecWarning: for each setting that is accepted, but has no effect, or hardly the one that was meant; they are
            also the `warnings` of the spec.
    """
    if not isinstance(source, Mapping):
        document, files = read_extended(Path(source), str(source))
        return _assembled(document, str(source), set, files)
    file = "<python>"
    return _assembled(_alone(from_plain(dict(source), Mark(file)), file), file, set)


def loads(text: str, file: str = "<text>", *, set: Settings = ()) -> Spec:
    """The spec of a YAML text; `extends` needs a file and is refused here."""
    if not isinstance(text, str):
        raise TypeError(f"expected the text of a spec, found {type(text).__name__}; load takes a path or a mapping")
    return _assembled(_alone(parse(text, file), file), file, set)


def _alone(document: Node, file: str) -> Node:
    """The document, which has no folder from which it could extend another file."""
    if "extends" in document.fields:
        raise SpecError([Problem(document.fields["extends"].mark, "extends", "only a file can extend another")], file)
    return document


def _assembled(document: Node, file: str, settings: Settings, files: tuple[str, ...] = ()) -> Spec:
    """The spec of a document, or a SpecError with all of its problems."""
    assembler = Assembler(with_settings(document, settings), file, files)
    spec = assembler.spec()
    if spec is None or assembler.problems:
        raise SpecError(assembler.in_place(assembler.problems), file)
    for warning in spec.warnings:
        warnings.warn(SpecWarning(str(warning)), stacklevel=3)
    return spec


# Files that extend one another


def read_extended(path: Path, file: str) -> tuple[Node, tuple[str, ...]]:
    """The document of a file over those that it extends, nearest last; and the paths of all of them."""
    folder = _resolved(path).parent
    seen: list[Path] = []
    chain: list[Node] = []
    name = file
    while True:
        try:
            chain.append(read(path, name))
        except SpecError as error:  # what is wrong with one of the chain is a problem of the spec that extends it
            raise SpecError(error.problems, file) from None
        seen.append(_resolved(path))
        node = chain[-1].fields.get("extends")
        if node is None:
            break
        try:
            path, name = _extended(node, path, folder, seen), str(Path(name).parent / str(node.value))
        except Fault as fault:
            raise SpecError([Problem(node.mark, "extends", str(fault))], file) from None
    merged = chain.pop()
    if chain and not isinstance(merged.value, dict):
        message = f"a spec is a mapping (name, d_model, blocks, ...), not {merged.kind_name()}"
        raise SpecError([Problem(merged.mark, "", message)], file)
    while chain:
        merged = _without_removed(merged, merge(merged, chain.pop()))
    return merged.without(("extends",)), tuple(map(str, seen))


def _extended(node: Node, here: Path, folder: Path, seen: list[Path]) -> Path:
    """The path of the file that a spec extends; refused where it leaves the folder of the first one."""
    if not isinstance(node.value, str) or not node.value:
        raise Fault(f"must be the path of another spec, not {node.kind_name()}")
    if len(node.value) > LONGEST_PATH:
        raise Fault(f"a path has at most {LONGEST_PATH} characters, found {len(node.value)}")
    path, said = here.parent / node.value, clipped(node.value)
    target = _resolved(path)
    if Path(node.value).is_absolute() or not target.is_relative_to(folder):
        raise Fault(f"{said!r} leaves the folder of the spec; extend only files in it or below it")
    if target in seen:
        raise Fault(f"the files extend one another in a circle: {' -> '.join(p.name for p in [*seen, target])}")
    if len(seen) > MOST_EXTENDS:
        raise Fault(f"more than {MOST_EXTENDS} files extend one another")
    wrong = no_plain_file(path)
    if wrong == MISSING:
        raise Fault(f"no file {said!r} beside {here.name}")
    if wrong:
        raise Fault(f"{said!r} {wrong}")
    return path


def _resolved(path: Path) -> Path:
    """The path without links; one that goes round in a circle, or is none at all, stays as it is."""
    try:
        return path.resolve()
    except (OSError, RuntimeError, ValueError):
        return path.absolute()


def _without_removed(before: Node, after: Node) -> Node:
    """The document without the definitions that were there before and are null now."""
    define, old = after.fields.get("define"), before.fields.get("define")
    if define is None or old is None:
        return after
    gone = [name for name, body in define.fields.items() if body.value is None and name in old.fields]
    return Node({**after.fields, "define": define.without(gone)}, after.mark, after.keys) if gone else after


# Settings


def with_settings(document: Node, settings: Settings) -> Node:
    """The document after `path=value` overrides; raises SpecError with all that cannot be applied."""
    problems: list[Problem] = []
    if isinstance(settings, str):
        settings = [settings]
    elif isinstance(settings, Iterable) and not isinstance(settings, Mapping):
        settings = list(settings)
    paths = settings if isinstance(settings, Mapping) else ()
    if not isinstance(settings, list | Mapping) or not all(isinstance(path, str) for path in paths):
        raise TypeError(f"set = {settings!r} must be 'path=value', several of these, or a mapping from paths to values")
    for path, value in settings.items() if isinstance(settings, Mapping) else map(_pair, settings):
        said = value if isinstance(value, str) else shown(value)
        mark = Mark(f"{SETTING} {clipped(' '.join(f'{path}={said}'.split()))}")
        try:
            if isinstance(settings, Mapping):
                node = from_plain(value, mark)
            elif path:
                node = from_plain(parse(value, SETTING).plain() if value else None, mark)
            else:
                mark = Mark(SETTING)
                raise Fault(f"{clipped(value)!r} must be path=value, such as d_model=512{see('set')}")
            document = _without_removed(document, _set(document, path, node))
        except Fault as fault:
            problems.append(Problem(mark, clipped(path), str(fault)))
        except SpecError as error:
            problems += [Problem(mark, clipped(path), p.message) for p in error.problems]
    if problems:
        raise SpecError(problems, SETTING)
    return document


def _pair(text: str) -> tuple[str, str]:
    """Path and value of a setting; no path, and the whole text, where it has not both."""
    if not isinstance(text, str):
        raise TypeError(f"a setting is text such as 'd_model=512', found one of type {type(text).__name__}")
    path, equals, value = (part.strip() for part in text.partition("="))
    return (path, value) if equals and path else ("", text)


def _set(document: Node, path: str, node: Node) -> Node:
    """The document after one setting; raises Fault where there is no such place."""
    top = re.split(r"[.\[]", path)[0]
    if top == "extends":
        raise Fault("only a file can extend another")
    if top and top not in TOP_KEYS:
        raise Fault(f"a spec has no {clipped(top)!r}{suggest(top, TOP_KEYS)}")
    if not isinstance(document.value, dict):
        return document  # which is told when it is assembled
    if node.value is not None:
        return assign(document, path, node)
    return document if path in TOP_KEYS and path not in document.fields else remove(document, path)
