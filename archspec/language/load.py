"""From a file, text or plain data to a `Spec`: read, extend, override, write out the layers, resolve, check."""

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from archspec.errors import Fault, Mark, Problem, SpecError, suggest
from archspec.language.assemble import Assembler
from archspec.language.document import TOP_KEYS
from archspec.language.keys import clipped
from archspec.language.model import Spec
from archspec.language.source import Node, assign, from_plain, merge, parse, read
from archspec.language.values import shown

MOST_EXTENDS = 16
LONGEST_PATH = 1000
SETTING = "--set"  # how the file of a mark begins that stands in no file, but in a setting


Settings = Iterable[str] | Mapping[str, Any]


def load(source: str | Path | Mapping[str, Any], *, set: Settings = ()) -> Spec:
    """The spec that a file, or a mapping of the same form, describes.

    Args:
        source: the path of a YAML file, or its content as a mapping.
        set: overrides such as "define.attn.mixer.n_heads=4", where the value is read as YAML; or a mapping such as
            {"define.attn.mixer.n_heads": 4}, of paths to plain data.

    Raises:
        SpecError: with every problem of the file, each with its line and column.
    """
    if isinstance(source, Mapping):
        file = "<python>"
        document = _alone(from_plain(dict(source), Mark(file)), file)
    else:
        file = str(source)
        document = read_extended(Path(source), file)
    return assemble(with_settings(document, set), file)


def loads(text: str, file: str = "<text>", *, set: Settings = ()) -> Spec:
    """The spec of a YAML text; `extends` needs a file and is refused here."""
    return assemble(with_settings(_alone(parse(text, file), file), set), file)


def _alone(document: Node, file: str) -> Node:
    """The document, which has no folder from which it could extend another file."""
    if isinstance(document.value, dict) and "extends" in document.value:
        raise SpecError([Problem(document.value["extends"].mark, "extends", "only a file can extend another")], file)
    return document


def assemble(document: Node, file: str) -> Spec:
    """The spec of a document, or a SpecError with all of its problems."""
    assembler = Assembler(document, file)
    spec = assembler.spec()
    if spec is None or assembler.problems:
        raise SpecError(assembler.problems, file)
    return spec


def read_extended(path: Path, file: str) -> Node:
    """The document of a file over those that it extends, nearest last."""
    folder = _resolved(path).parent
    seen: list[Path] = []
    chain: list[Node] = []
    here, name = path, file
    while True:
        document = _read(here, name, file)
        chain.append(document)
        seen.append(_resolved(here))
        if not isinstance(document.value, dict) or "extends" not in document.value:
            break
        node = document.value["extends"]
        here = _base(node, here, folder, seen, file)
        name = str(Path(name).parent / str(node.value))
    if len(chain) > 1 and not isinstance(document.value, dict):
        message = f"a spec is a mapping (name, d_model, blocks, ...), not {document.kind_name()}"
        raise SpecError([Problem(document.mark, "", message)], file)
    merged = chain.pop()
    while chain:
        over = chain.pop()
        merged = _without_removed(merged, merge(merged, over))
    return _without_extends(merged)


def _read(path: Path, name: str, file: str) -> Node:
    """One file of the chain; what is wrong with it is a problem of the spec that extends it."""
    try:
        return read(path, name)
    except SpecError as error:
        raise SpecError(error.problems, file) from None


def _without_extends(document: Node) -> Node:
    if not isinstance(document.value, dict):
        return document
    value = {key: child for key, child in document.value.items() if key != "extends"}
    return Node(value, document.mark, document.keys)


def _without_removed(before: Node, after: Node) -> Node:
    """The document without the definitions that were there before and are null now."""
    old, new = (_definitions(document) for document in (before, after))
    gone = {name for name, body in new.items() if body.value is None and name in old}
    if not gone:
        return after
    assert isinstance(after.value, dict)
    define = after.value["define"]
    kept = Node({k: v for k, v in new.items() if k not in gone}, define.mark, define.keys)
    return Node({**after.value, "define": kept}, after.mark, after.keys)


def _definitions(document: Node) -> dict[str, Node]:
    define = document.value.get("define") if isinstance(document.value, dict) else None
    return define.value if define is not None and isinstance(define.value, dict) else {}


def _resolved(path: Path) -> Path:
    """The path without links; one that goes round in a circle, or is none at all, stays as it is."""
    try:
        return path.resolve()
    except (OSError, RuntimeError, ValueError):
        return path.absolute()


def _base(node: Node, here: Path, folder: Path, seen: list[Path], file: str) -> Path:
    """The path of the file that a spec extends; refused where it leaves the folder of the first one."""

    def refuse(message: str) -> SpecError:
        return SpecError([Problem(node.mark, "extends", message)], file)

    if not isinstance(node.value, str) or not node.value:
        raise refuse(f"must be the path of another spec, not {node.kind_name()}")
    if len(node.value) > LONGEST_PATH:
        raise refuse(f"a path has at most {LONGEST_PATH} characters, found {len(node.value)}")
    path = here.parent / node.value
    target, said = _resolved(path), clipped(node.value)
    if Path(node.value).is_absolute() or not target.is_relative_to(folder):
        raise refuse(f"{said!r} leaves the folder of the spec; extend only files in it or below it")
    if target in seen:
        raise refuse(f"the files extend one another in a circle: {' -> '.join(p.name for p in [*seen, target])}")
    if len(seen) > MOST_EXTENDS:
        raise refuse(f"more than {MOST_EXTENDS} files extend one another")
    if not _is_file(target):
        raise refuse(f"no file {said!r} beside {here.name}")
    return path


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def with_settings(document: Node, settings: Settings) -> Node:
    """The document after `path=value` overrides; raises SpecError with all that cannot be applied."""
    problems: list[Problem] = []
    mapped = isinstance(settings, Mapping)
    for path, value in settings.items() if isinstance(settings, Mapping) else _pairs(settings, problems):
        said = value if isinstance(value, str) else shown(value)
        mark = Mark(f"{SETTING} {clipped(' '.join(f'{path}={said}'.split()))}")
        try:
            node = from_plain(value if mapped else _read_value(value), mark)
            document = _without_removed(document, _set(document, path, node))
        except Fault as fault:
            problems.append(Problem(mark, clipped(path), str(fault)))
        except SpecError as error:
            problems += [Problem(mark, clipped(path), p.message) for p in error.problems]
    if problems:
        raise SpecError(problems, SETTING)
    return document


def _pairs(settings: Iterable[str], problems: list[Problem]) -> Iterator[tuple[str, str]]:
    """Path and value of each setting; one that has none of them is told."""
    for text in settings:
        path, equals, value = (part.strip() for part in text.partition("="))
        if equals and path:
            yield path, value
        else:
            message = f"{clipped(text)!r} must be path=value, such as d_model=512"
            problems.append(Problem(Mark(SETTING), "", message))


def _read_value(text: str) -> Any:
    """The value of a setting, as YAML has it; nothing where there is no text."""
    return parse(text, SETTING).plain() if text else None


def _set(document: Node, path: str, node: Node) -> Node:
    """The document after one setting; raises Fault where there is no such place."""
    top = re.split(r"[.\[]", path)[0]
    if top == "extends":
        raise Fault("only a file can extend another")
    if top and top not in TOP_KEYS:
        raise Fault(f"a spec has no {clipped(top)!r}{suggest(top, TOP_KEYS)}")
    if not isinstance(document.value, dict):
        return document  # which is told when it is assembled
    return assign(document, path, node)
