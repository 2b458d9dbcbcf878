"""From a file, text or plain data to a `Spec`: read, extend, override, write out the layers, resolve, check."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from archspec.errors import Fault, Mark, Problem, SpecError, suggest
from archspec.spec.assemble import Assembler
from archspec.spec.document import TOP_KEYS
from archspec.spec.model import Spec
from archspec.spec.source import Node, assign, from_plain, merge, parse, read

MOST_EXTENDS = 16


def load(source: str | Path | Mapping[str, Any], *, set: Iterable[str] = ()) -> Spec:
    """The spec that a file, or a mapping of the same form, describes.

    Args:
        source: the path of a YAML file, or its content as a mapping.
        set: overrides such as "define.attn.mixer.n_heads=4"; the value is read as YAML.

    Raises:
        SpecError: with every problem of the file, each with its line and column.
    """
    if isinstance(source, Mapping):
        file, document = "<python>", from_plain(dict(source), Mark("<python>"))
    else:
        file = str(source)
        document = read_extended(Path(source), file)
    return assemble(with_settings(document, set), file)


def loads(text: str, file: str = "<text>", *, set: Iterable[str] = ()) -> Spec:
    """The spec of a YAML text; `extends` needs a file and is refused here."""
    document = parse(text, file)
    if isinstance(document.value, dict) and "extends" in document.value:
        raise SpecError([Problem(document.value["extends"].mark, "extends", "only a file can extend another")], file)
    return assemble(with_settings(document, set), file)


def assemble(document: Node, file: str) -> Spec:
    """The spec of a document, or a SpecError with all of its problems."""
    assembler = Assembler(document, file)
    spec = assembler.spec()
    if spec is None or assembler.problems:
        raise SpecError(assembler.problems, file)
    return spec


def read_extended(path: Path, file: str) -> Node:
    """The document of a file over those that it extends, nearest last."""
    folder = path.resolve().parent
    seen: list[Path] = []
    chain: list[Node] = []
    here, name = path, file
    while True:
        document = read(here, name)
        chain.append(document)
        seen.append(here.resolve())
        if not isinstance(document.value, dict) or "extends" not in document.value:
            break
        node = document.value["extends"]
        here = _base(node, here, folder, seen, file)
        name = str(Path(name).parent / str(node.value))
    merged = chain.pop()
    while chain:
        merged = merge(merged, chain.pop())
    if isinstance(merged.value, dict):
        merged.value.pop("extends", None)
    return merged


def _base(node: Node, here: Path, folder: Path, seen: list[Path], file: str) -> Path:
    def refuse(message: str) -> SpecError:
        return SpecError([Problem(node.mark, "extends", message)], file)

    if not isinstance(node.value, str) or not node.value:
        raise refuse(f"must be the path of another spec, not {node.kind_name()}")
    path = here.parent / node.value
    target = path.resolve()
    if Path(node.value).is_absolute() or not target.is_relative_to(folder):
        raise refuse(f"{node.value!r} leaves the folder of the spec; extend only files in it or below it")
    if target in seen:
        raise refuse(f"the files extend one another in a circle: {' -> '.join(p.name for p in [*seen, target])}")
    if len(seen) >= MOST_EXTENDS:
        raise refuse(f"more than {MOST_EXTENDS} files extend one another")
    if not target.is_file():
        raise refuse(f"no file {node.value!r} beside {here.name}")
    return path


def with_settings(document: Node, settings: Iterable[str]) -> Node:
    """The document after `path=value` overrides."""
    for text in settings:
        path, equals, value = text.partition("=")
        mark = Mark("--set")
        if not equals or not path.strip():
            raise SpecError([Problem(mark, "", f"{text!r} must be path=value, such as d_model=512")], "--set")
        try:
            document = assign(document, path.strip(), parse(value, "--set") if value.strip() else Node(None, mark))
        except Fault as fault:
            raise SpecError([Problem(mark, path.strip(), str(fault))], "--set") from None
        top = path.strip().partition(".")[0].partition("[")[0]
        if top not in TOP_KEYS:
            raise SpecError([Problem(mark, top, f"a spec has no {top!r}{suggest(top, TOP_KEYS)}")], "--set")
    return document
