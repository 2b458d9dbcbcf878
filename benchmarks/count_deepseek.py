"""Counting DeepSeek-V3 (671B): `archspec count` as a whole process against transformers on the meta device.

python benchmarks/count_deepseek.py [--runs 5]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SPEC = ROOT / "specs" / "deepseek_v3.yaml"
THEIRS = """
import torch
from transformers import DeepseekV3Config
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3ForCausalLM
with torch.device("meta"):
    model = DeepseekV3ForCausalLM(DeepseekV3Config())
print(sum(p.numel() for p in model.parameters()))
"""
IN_PROCESS = f"""
import time, json
from archspec.language.load import load
from archspec.passes.count import count
count(load({str(SPEC)!r}))
times = []
for _ in range(20):
    start = time.perf_counter()
    count(load({str(SPEC)!r}))
    times.append(time.perf_counter() - start)
print(json.dumps(sorted(times)))
"""


def run(command: list[str]) -> tuple[float, float, float, str]:
    """Wall seconds, CPU seconds, peak memory in MiB and output of a process."""
    start = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    assert child.stdout is not None
    text = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{command[:3]} failed")
    return time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    commands = {
        "archspec count": [sys.executable, "-m", "archspec", "count", str(SPEC), "--format", "json"],
        "transformers, meta": [sys.executable, "-c", THEIRS],
    }
    found: dict[str, list[tuple[float, float, float, str]]] = {name: [] for name in commands}
    for _ in range(args.runs):
        for name, command in commands.items():
            found[name].append(run(command))
    print(f"| {'way':20} | wall s | CPU s | peak MiB | parameters |")
    print("|---|---|---|---|---|")
    middle = {}
    for name, runs in found.items():
        wall, cpu, memory = (statistics.median(r[i] for r in runs) for i in range(3))
        middle[name] = (wall, cpu, memory)
        text = runs[0][3]
        total = json.loads(text)["total"] if name.startswith("archspec") else int(text)
        print(f"| {name:20} | {wall:.2f} | {cpu:.2f} | {memory:.0f} | {total:,} |")
    ours, theirs = middle.values()
    print(f"\nwall {theirs[0] / ours[0]:.1f} times faster, CPU {theirs[1] / ours[1]:.1f} times, ", end="")
    print(f"memory {ours[2] / theirs[2]:.2f} of theirs")
    times = json.loads(run([sys.executable, "-c", IN_PROCESS])[3])
    print(f"in process, load to count: median {1000 * times[10]:.1f} ms, best {1000 * times[0]:.1f} ms")


if __name__ == "__main__":
    main()
