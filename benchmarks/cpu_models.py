"""Training step and decoding of GPT-2 and Llama shapes of about 50M parameters, against transformers on a CPU.

Both sides take turns in one process with the same weights' shapes, float32; ratios are of CPU time, which other work on
the machine disturbs less than wall time does.

    python benchmarks/cpu_models.py [--threads 1] [--rounds 7] [--only gpt2]
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

import archspec

GPT2 = {
    "name": "gpt2_50m",
    "d_model": 512,
    "vocab_size": 32000,
    "max_seq_len": 1024,
    "norm": {"kind": "layernorm", "eps": 1e-5},
    "embedding": {"kind": "token", "position": "learned"},
    "blocks": [
        {
            "repeat": 10,
            "mixer": {"kind": "attention", "n_heads": 8, "qkv_bias": True, "out_bias": True},
            "ffn": {"kind": "mlp", "activation": "gelu_tanh", "bias": True},
        }
    ],
    "head": {"kind": "lm", "tied": True},
}
LLAMA = {
    "name": "llama_50m",
    "d_model": 512,
    "vocab_size": 32000,
    "max_seq_len": 1024,
    "norm": {"kind": "rmsnorm", "eps": 1e-5},
    "blocks": [
        {
            "repeat": 8,
            "mixer": {"kind": "attention", "n_heads": 8, "n_kv_heads": 4, "position": "rope"},
            "ffn": {"kind": "gated_mlp", "d_ff": 1408},
        }
    ],
    "head": {"kind": "lm", "tied": False},
}


def theirs(name: str) -> nn.Module:
    """The same shape in transformers."""
    if name == "gpt2":
        none = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
        return GPT2LMHeadModel(GPT2Config(vocab_size=32000, n_positions=1024, n_embd=512, n_layer=10, n_head=8, **none))
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=32000, hidden_size=512, intermediate_size=1408, num_hidden_layers=8, num_attention_heads=8,
            num_key_value_heads=4, max_position_embeddings=1024, rms_norm_eps=1e-5, tie_word_embeddings=False,
        )
    )  # fmt: skip


def training_step(forward: Callable[[Tensor], Tensor], model: nn.Module, tokens: Tensor) -> None:
    """Forward, loss and backward."""
    logits = forward(tokens)
    nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()).backward()
    model.zero_grad()


def logits_of(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """Their forward, without a cache, down to the logits."""
    return lambda tokens: model(tokens, use_cache=False).logits


@torch.no_grad()
def decode_ours(model: nn.Module, prompt: Tensor, n: int) -> None:
    """A prompt, then n greedy tokens."""
    state: dict[str, Any] = {}
    token = model(prompt, state=state)[:, -1:].argmax(-1)
    for _ in range(n):
        token = model(token, state=state).argmax(-1)


@torch.no_grad()
def decode_theirs(model: nn.Module, prompt: Tensor, n: int) -> None:
    """The same with their cache."""
    out = model(prompt, use_cache=True)
    for _ in range(n):
        token = out.logits[:, -1:].argmax(-1)
        out = model(token, past_key_values=out.past_key_values, use_cache=True)


def side_by_side(pair: dict[str, Callable[[], None]], rounds: int) -> dict[str, float]:
    """The median CPU seconds of each, taking turns."""
    times: dict[str, list[float]] = {name: [] for name in pair}
    for run in pair.values():
        run()
    for _ in range(rounds):
        for name, run in pair.items():
            start = time.process_time()
            run()
            times[name].append(time.process_time() - start)
    return {name: statistics.median(t) for name, t in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", choices=("gpt2", "llama"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, {args.threads} thread(s), CPU seconds\n")
    print("| model | parameters | work | archspec | transformers | theirs / ours |\n|---|---|---|---|---|---|")
    for name, spec in (("gpt2", GPT2), ("llama", LLAMA)):
        if args.only not in (None, name):
            continue
        ours, other = archspec.build(archspec.load(spec)), theirs(name)
        total = sum(p.numel() for p in ours.parameters())
        assert total == sum(p.numel() for p in other.parameters()), "the two models differ"
        tokens = torch.randint(32000, (2, 256))
        train = {
            "ours": lambda m=ours, x=tokens: training_step(m, m, x),
            "theirs": lambda m=other, x=tokens: training_step(logits_of(m), m, x),
        }
        decode = {
            "ours": lambda m=ours, x=tokens[:1, :128]: decode_ours(m.eval(), x, 64),
            "theirs": lambda m=other, x=tokens[:1, :128]: decode_theirs(m.eval(), x, 64),
        }
        for work, pair in (("training step, 2 x 256", train), ("prompt of 128, then 64 tokens", decode)):
            t = side_by_side(pair, args.rounds)
            ratio = t["theirs"] / t["ours"]
            print(f"| {name} | {total:,} | {work} | {t['ours']:.3f} | {t['theirs']:.3f} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
