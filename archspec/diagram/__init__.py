"""Pictures of a model: `draw` lays the figure out, `to_dot` writes it as DOT text with every place fixed."""

from archspec.diagram.dot import to_dot
from archspec.diagram.figure import draw

__all__ = ["draw", "to_dot"]
