"""The folder is the registry: `layers/<role>s/<kind>.py` holds the component of that kind.

`ROLES` are those of what runs in a model. A vocabulary stands before it, and its kinds in `layers/vocabularies/`.
"""

from collections.abc import Iterable
from functools import cache
from importlib import import_module
from pathlib import Path

from archspec.layers.base import Component

ROLES = ("embedding", "absolute_position", "position", "rope_scaling", "norm", "scale", "mixer", "ffn", "head", "init")
DECLARED = (*ROLES, "vocabulary")  # all that a spec may declare


@cache
def kinds(role: str) -> tuple[str, ...]:
    """The kinds that a role has, in alphabetical order; nothing is imported."""
    folder = Path(__file__).parent / _plural(role)
    return tuple(sorted(p.stem for p in folder.glob("*.py") if not p.stem.startswith("_")))


@cache
def find(role: str, kind: str) -> type[Component]:
    """The class of a component; only its own file is imported."""
    module = import_module(f"archspec.layers.{_plural(role)}.{kind}")
    for value in vars(module).values():
        if isinstance(value, type) and issubclass(value, Component) and value.__module__ == module.__name__:
            return value
    raise LookupError(f"{module.__name__} declares no component")


def everything(roles: Iterable[str] = ROLES) -> dict[str, dict[str, type[Component]]]:
    """Every component of some roles, by role and kind."""
    return {role: {kind: find(role, kind) for kind in kinds(role)} for role in roles}


def _plural(role: str) -> str:
    return f"{role[:-1]}ies" if role.endswith("y") else f"{role}s"
