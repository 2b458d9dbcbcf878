"""Standalone files in plain form against the package's own, on a CPU: what leaving the kernels out costs.

Both models have the same weights and take turns in one process, float32, one thread; a ratio is the package's CPU time
over that of the standalone file (1: as fast; 0.3: it takes three times as long). Outputs are compared before anything
is timed.

    python benchmarks/standalone.py [--rounds 5] [--length 512] [--only llama]
"""

import argparse
from typing import Any

import torch
from cpu_models import GPT2, LLAMA
from side_by_side import cpu_seconds, relative_error
from torch import Tensor, nn

import archspec
from archspec.codegen.load import load_text


def stack(name: str, mixer: dict[str, Any], ffn: Any = "none") -> dict[str, Any]:
    """Six layers of one kind."""
    blocks = [{"repeat": 6, "mixer": mixer, "ffn": ffn}]
    sizes = {"d_model": 512, "vocab_size": 8000, "max_seq_len": 4096}
    return {"name": name, **sizes, "blocks": blocks, "head": {"kind": "lm"}}


SWIGLU = {"kind": "gated_mlp", "d_ff": 1408}
MOE = {"kind": "moe", "n_experts": 8, "top_k": 2, "d_ff": 704, "renormalise": True}
ATTENTION = {"kind": "attention", "n_heads": 8, "n_kv_heads": 4, "position": "rope"}
MLA = {"kind": "mla", "n_heads": 8, "kv_lora_rank": 128, "qk_nope_head_dim": 64, "qk_rope_head_dim": 32}
MODELS = {
    "gpt2": GPT2,
    "llama": LLAMA,
    "llama, window 128": stack("window", {**ATTENTION, "window": 128}, SWIGLU),
    "llama, soft-cap 50": stack("softcap", {**ATTENTION, "softcap": 50.0}, SWIGLU),
    "mixtral": stack("moe", ATTENTION, MOE),
    "mla": stack("mla", {**MLA, "position": "rope"}, SWIGLU),
    "mamba": stack("mamba", {"kind": "mamba"}),
    "mamba2": stack("mamba2", {"kind": "mamba2"}),
    "hyena": stack("hyena", {"kind": "hyena"}),
    "lstm": stack("lstm", {"kind": "lstm"}),
}


def pair(document: dict[str, Any]) -> dict[str, nn.Module]:
    """The package's model and that of the standalone file, with the same weights."""
    spec = archspec.load(document)
    package = archspec.build(spec)
    standalone = load_text(archspec.generate(spec, standalone=True), f"{spec.name}_standalone").Model()
    standalone.load_state_dict(package.state_dict())
    return {"package": package, "standalone": standalone}


def training(model: nn.Module, tokens: Tensor) -> object:
    """Forward and backward."""
    model.zero_grad()
    loss = model.train()(tokens).square().mean()
    loss.backward()
    return loss


@torch.no_grad()
def prefill(model: nn.Module, tokens: Tensor) -> Tensor:
    """Forward alone."""
    found: Tensor = model.eval()(tokens)
    return found


@torch.no_grad()
def decoding(model: nn.Module, tokens: Tensor) -> object:
    """A prompt, then 32 tokens one by one."""
    state: dict[str, Any] = {}
    model.eval()(tokens[:, :-32], state=state)
    for t in range(tokens.shape[1] - 32, tokens.shape[1]):
        model(tokens[:, t : t + 1], state=state)
    return state


def main() -> None:
    """Print one row a model."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    torch.set_num_threads(1)
    tokens = torch.randint(8000, (1, options.length), generator=torch.Generator().manual_seed(0))
    print("| model | lines | training | forward | decoding | difference |")
    print("|---|---|---|---|---|---|")
    for name, document in MODELS.items():
        if options.only in name:
            models = pair(document)
            lines = len(archspec.generate(archspec.load(document), standalone=True).splitlines())
            error = relative_error(*(prefill(m, tokens) for m in models.values()))
            assert error < 1e-4, f"{name}: outputs differ by {error:.1e}"
            ratios = []
            for work in (training, prefill, decoding):
                runs = {k: (lambda m=m, work=work: work(m, tokens)) for k, m in models.items()}
                times = cpu_seconds(runs, options.rounds)
                ratios.append(f"{times['package'] / times['standalone']:.2f}")
            print(f"| {name} | {lines} | {' | '.join(ratios)} | {error:.0e} |", flush=True)


if __name__ == "__main__":
    main()
