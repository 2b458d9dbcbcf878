"""A sign of life on a terminal, while something takes its time."""

import sys
import threading
from contextlib import ExitStack
from itertools import cycle

import click

from archspec.cli.streams import tell
from archspec.cli.voice import QUIET, voice


class Steps:
    """What is being done now, as a `Progress` that is another with each step; lines may be printed between two."""

    def __init__(self, what: str):
        self.what, self.now = what, ExitStack()

    def __enter__(self) -> "Steps":
        self.next(self.what)
        return self

    def __exit__(self, *_: object) -> None:
        self.now.close()

    def next(self, what: str) -> None:
        """Begin the next step."""
        self.now.close()
        self.now.enter_context(Progress(what))

    def put(self, line: str) -> None:
        """Print a line at once, when a step is done."""
        self.now.close()
        click.echo(line)


class Progress:
    """A line on a terminal that says what takes so long; nothing in a pipe or file, or for the first `wait` seconds."""

    def __init__(self, what: str, wait: float = 0.5):
        self.what, self.wait = what, wait
        self.done = threading.Event()
        shown = sys.stderr.isatty() and voice() > QUIET
        self.thread = threading.Thread(target=self._turn, daemon=True) if shown else None

    def __enter__(self) -> None:
        if self.thread is not None:
            self.thread.start()

    def __exit__(self, *_: object) -> None:
        self.done.set()
        if self.thread is not None:
            self.thread.join()

    def _turn(self) -> None:
        if self.done.wait(self.wait):
            return
        for sign in cycle("|/-\\"):
            tell(f"\r{sign} {self.what}", nl=False)
            if self.done.wait(0.1):
                break
        tell(f"\r{' ' * (len(self.what) + 2)}\r", nl=False)
