"""A spec as a picture: `diagram` gives DOT text, `render` a file that Graphviz draws from it."""

import shutil
import subprocess
from pathlib import Path

from archspec.diagram.dot import to_dot
from archspec.diagram.figure import draw
from archspec.errors import RenderError, WriteError
from archspec.files import write
from archspec.language.model import Spec

FORMATS = ("dot", "svg", "png", "pdf")
SECONDS = 120


def diagram(spec: Spec) -> str:
    """The figure of a spec as DOT text; every place in it is fixed, so draw it with `neato -n2`."""
    return to_dot(draw(spec), spec.name)


def svg(spec: Spec) -> str:
    """The figure of a spec as SVG text.

    Raises:
        RenderError: when Graphviz is missing or fails.
    """
    return _graphviz(diagram(spec).encode(), "svg").decode()


def render(spec: Spec, path: str | Path) -> Path:
    """Draw the figure of a spec into a file.

    Args:
        spec: what to draw.
        path: the file; its suffix is one of .dot, .svg, .png, .pdf. The first needs no Graphviz.

    Raises:
        RenderError: for another suffix, when Graphviz is missing or fails, or when the file cannot be written.
    """
    target = Path(path)
    kind = target.suffix.lower().removeprefix(".")
    if kind not in FORMATS:
        found = f"the suffix {target.suffix!r}" if kind else "no suffix"
        raise RenderError(f"{target} has {found}; supported are {', '.join(f'.{f}' for f in FORMATS)}")
    picture = diagram(spec).encode()
    try:
        write(path, picture if kind == "dot" else _graphviz(picture, kind), spec.files)
    except WriteError as error:
        raise RenderError(str(error)) from None
    return target


def _graphviz(text: bytes, kind: str) -> bytes:
    """What Graphviz makes of the text."""
    command = _command()
    resolution = ["-Gdpi=160"] if kind == "png" else []
    try:
        done = subprocess.run([*command, *resolution, f"-T{kind}"], input=text, capture_output=True, timeout=SECONDS)
    except (OSError, subprocess.TimeoutExpired) as problem:
        raise RenderError(f"Graphviz could not be run: {problem}") from None
    if done.returncode or not done.stdout:
        raise RenderError(f"Graphviz failed: {done.stderr.decode(errors='replace').strip() or done.returncode}")
    return done.stdout


def _command() -> list[str]:
    for program, options in (("neato", ["-n2"]), ("dot", ["-Kneato", "-n2"])):
        found = shutil.which(program)
        if found:
            return [found, *options]
    raise RenderError(
        "Graphviz is not installed: neither `neato` nor `dot` is on the PATH. Install it (`apt install graphviz`, "
        "`brew install graphviz`, `conda install graphviz`), or write a .dot file, which does not need it"
    )
