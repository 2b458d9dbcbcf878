"""CPU time of whole commands, as processes, in this checkout and in another one, turn by turn in one run.

git worktree add ../before HEAD~9
python benchmarks/startup.py ../before --runs 20
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
SPEC = "specs/jamba_v0_1.yaml"
COMMANDS = (["--help"], ["validate", SPEC], ["count", SPEC], ["show", SPEC], ["layers"], ["layers", "attention"])


def cpu_seconds(checkout: Path, command: list[str], cache: str) -> float:
    """User and system time of one process that runs a command; modules are compiled beforehand, as when installed."""
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    env |= {"PYTHONPATH": str(checkout), "PYTHONPYCACHEPREFIX": cache, "OMP_NUM_THREADS": "1"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    line = [sys.executable, "-m", "archspec", *command]
    subprocess.run(line, cwd=checkout, env=env, stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def modules(checkout: Path, command: list[str], cache: str) -> int:
    """How many modules a command imports."""
    code = (
        "import atexit, sys\natexit.register(lambda: print('\\n', len(sys.modules)))\n"
        f"from archspec.cli import main\nmain({command!r}, standalone_mode=False)"
    )
    env = os.environ | {"PYTHONPATH": str(checkout), "PYTHONPYCACHEPREFIX": cache}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=checkout, env=env, capture_output=True, text=True, check=True
    )
    return int(done.stdout.split()[-1])


def compare(before: Path, command: list[str], runs: int, cache: str) -> str:
    """A row of the table: the medians, and the median of the ratios of pairs of runs."""
    pairs = [(cpu_seconds(before, command, cache), cpu_seconds(HERE, command, cache)) for _ in range(runs + 1)][1:]
    old, new = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(b / a for a, b in pairs)
    found = [modules(checkout, command, cache) for checkout in (before, HERE)]
    return f"| `{' '.join(command)}` | {old:.3f} s | {new:.3f} s | {ratio:.2f} | {found[0]} | {found[1]} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path, help="another checkout")
    parser.add_argument("--runs", type=int, default=20)
    asked = parser.parse_args()
    print("| command | before | after | after / before | modules before | after |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as cache:
        for command in COMMANDS:
            print(compare(asked.before.resolve(), command, asked.runs, cache), flush=True)


if __name__ == "__main__":
    main()
