"""Helpers before the first class that needs them, now that fewer do."""

from archspec.codegen.shorten.program import Program


def order(program: Program) -> None:
    """Move each helper to just before what reads it first; all else keeps its order."""
    placed: dict[str, str] = {}

    def place(name: str) -> None:
        if name in placed or name in waiting:
            return
        waiting.add(name)
        read = program.reads(name)
        for other in program.parts:
            if other in read and other in program.helpers:
                place(other)
        placed[name] = program.parts[name]

    waiting: set[str] = set()
    for name in program.parts:
        if name not in program.helpers:
            place(name)
    program.parts = placed
