"""The commented specs that `archspec init` writes: files of `templates/`, each a spec that validates."""

from pathlib import Path

FOLDER = Path(__file__).parent / "templates"
USUAL = "starter"
SCHEMA = "archspec.schema.json"  # which the first line of every template names, for editors
STANDS_FOR = "model.yaml"  # how a template calls its own file


def templates() -> tuple[str, ...]:
    """The names of the templates, in alphabetical order; what is written without a name comes first."""
    names = sorted(path.stem for path in FOLDER.glob("*.yaml"))
    return (USUAL, *(name for name in names if name != USUAL))


def template(name: str = USUAL, file: str = STANDS_FOR) -> str:
    """The text of a template; the commands in its comments are about `file`, as a shell spells it."""
    return (FOLDER / f"{name}.yaml").read_text(encoding="utf-8").replace(STANDS_FOR, file)
