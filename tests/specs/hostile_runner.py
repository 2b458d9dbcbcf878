"""Runs `archspec validate` on one file after another, each in a process of its own, and says what it cost.

The server imports everything and validates a good spec once; each file is then validated in a fork of it. So the CPU
time of a fork is that of the file alone, and its memory grows from that of a process that is ready to work.
"""

import contextlib
import io
import json
import os
import resource
import signal
import sys
from collections.abc import Callable

from archspec.cli import main
from archspec.layers.registry import everything

SECONDS = 20  # after which a fork is killed


def validated(path: str) -> dict[str, object]:
    """Exit code, output and costs of one file."""
    start = resource.getrusage(resource.RUSAGE_SELF)
    out, err = io.StringIO(), io.StringIO()
    code: object = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main(["validate", path])
    except SystemExit as leaving:
        code = leaving.code
    except BaseException as error:  # what a user would see as a traceback
        code = f"{type(error).__name__}: {error}"[:500]
    end = resource.getrusage(resource.RUSAGE_SELF)
    cpu = end.ru_utime + end.ru_stime - start.ru_utime - start.ru_stime
    told = {"out": out.getvalue()[:100_000], "err": err.getvalue()[:100_000]}
    return {"code": code, **told, "cpu": cpu, "mib": (end.ru_maxrss - start.ru_maxrss) / 1024}


def in_a_fork(work: Callable[[], dict[str, object]]) -> dict[str, object]:
    """What `work` returns in a process of its own."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        signal.alarm(SECONDS)
        with os.fdopen(writing, "w") as pipe:
            json.dump(work(), pipe)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    os.waitpid(pid, 0)
    return json.loads(text) if text else {"code": "killed", "out": "", "err": "", "cpu": SECONDS, "mib": 0}


def serve(good: str) -> None:
    """One line of JSON for each path on standard input."""
    everything()
    assert validated(good)["code"] == 0
    for line in sys.stdin:
        path = line.rstrip("\n")
        print(json.dumps(in_a_fork(lambda path=path: validated(path))), flush=True)


if __name__ == "__main__":
    serve(sys.argv[1])
