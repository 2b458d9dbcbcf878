"""Time of the generator and size of its files, for one architecture at growing depth.

python benchmarks/generator.py
"""

import statistics
import time

import archspec

KINDS = """
name: depth
d_model: 1024
vocab_size: 32000
max_seq_len: 4096
define:
  ssm: {{mixer: {{kind: mamba}}, ffn: {{kind: gated_mlp}}}}
  local: {{mixer: {{kind: attention, n_heads: 16, window: 512, position: rope}}, ffn: {{kind: gated_mlp}}}}
  moe: {{mixer: {{kind: attention, n_heads: 16}}, ffn: {{kind: moe, n_experts: 8, top_k: 2, d_ff: 1024}}}}
blocks: {blocks}
head: {{kind: lm}}
"""


def main() -> None:
    archspec.generate(archspec.loads(KINDS.format(blocks="(ssm)x2 (local)x2 (moe)x2")))  # parse the sources once
    print("| kinds | layers | CPU seconds | lines |\n|---|---|---|---|")
    for kinds in (["local"], ["ssm", "local"], ["ssm", "local", "moe"]):
        for layers in (6, 12, 48, 96):
            text = KINDS.format(blocks=f"({' '.join(kinds)})x{layers // len(kinds)}")
            used = [
                line for line in text.splitlines() if not line.startswith("  ") or line.split(":")[0].strip() in kinds
            ]
            spec = archspec.loads("\n".join(used))
            times = []
            for _ in range(3):
                start = time.process_time()
                code = archspec.generate(spec)
                times.append(time.process_time() - start)
            print(f"| {len(kinds)} | {layers} | {statistics.median(times):.2f} | {len(code.splitlines())} |")


if __name__ == "__main__":
    main()
