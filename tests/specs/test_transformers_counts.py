"""Specs against the same models of the transformers library, built without weights from sizes written out here."""

import re
from collections import Counter
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn

from archspec.language.load import load
from archspec.passes.count import Count, count

SPECS = Path(__file__).parents[2] / "specs"
LAYER = re.compile(r"(?:^|\.)(?:blocks?|layers?|h|attentions|ffns|layer_norm[12])\.(\d+)\.")


class Model(NamedTuple):
    folder: str
    cls: str
    sizes: dict[str, Any]


LLAMA = {"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "tie_word_embeddings": False}
MODELS = {
    "bert_base": Model(
        "bert",
        "BertForMaskedLM",
        {
            "vocab_size": 30522,
            "hidden_size": 768,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "intermediate_size": 3072,
            "max_position_embeddings": 512,
            "type_vocab_size": 2,
        },
    ),
    "bert_pretraining": Model(
        "bert",
        "BertForPreTraining",
        {
            "vocab_size": 30522,
            "hidden_size": 768,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "intermediate_size": 3072,
            "max_position_embeddings": 512,
            "type_vocab_size": 2,
        },
    ),
    "xlm_15": Model(
        "xlm",
        "XLMWithLMHeadModel",
        {
            "vocab_size": 95000,
            "emb_dim": 1024,
            "n_layers": 12,
            "n_heads": 8,
            "n_langs": 15,
            "max_position_embeddings": 512,
        },
    ),
    "dnabert_6mer": Model(
        "bert",
        "BertForMaskedLM",
        {
            "vocab_size": 4101,
            "hidden_size": 768,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "intermediate_size": 3072,
            "max_position_embeddings": 512,
            "type_vocab_size": 2,
        },
    ),
    "gpt2": Model(
        "gpt2",
        "GPT2LMHeadModel",
        {"vocab_size": 50257, "n_positions": 1024, "n_embd": 768, "n_layer": 12, "n_head": 12},
    ),
    "llama2_7b": Model(
        "llama",
        "LlamaForCausalLM",
        {**LLAMA, "vocab_size": 32000, "num_key_value_heads": 32, "intermediate_size": 11008},
    ),
    "llama3_8b": Model(
        "llama",
        "LlamaForCausalLM",
        {**LLAMA, "vocab_size": 128256, "num_key_value_heads": 8, "intermediate_size": 14336},
    ),
    "mistral_7b": Model(
        "mistral",
        "MistralForCausalLM",
        {**LLAMA, "vocab_size": 32000, "num_key_value_heads": 8, "intermediate_size": 14336, "sliding_window": 4096},
    ),
    "gemma2_2b": Model(
        "gemma2",
        "Gemma2ForCausalLM",
        {
            "vocab_size": 256000,
            "hidden_size": 2304,
            "intermediate_size": 9216,
            "num_hidden_layers": 26,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "head_dim": 256,
            "tie_word_embeddings": True,
        },
    ),
    "mixtral_8x7b": Model(
        "mixtral",
        "MixtralForCausalLM",
        {
            **LLAMA,
            "vocab_size": 32000,
            "num_key_value_heads": 8,
            "intermediate_size": 14336,
            "num_local_experts": 8,
            "num_experts_per_tok": 2,
        },
    ),
    "qwen1_5_moe_a2_7b": Model(
        "qwen2_moe",
        "Qwen2MoeForCausalLM",
        {
            "vocab_size": 151936,
            "hidden_size": 2048,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "num_key_value_heads": 16,
            "num_experts": 60,
            "num_experts_per_tok": 4,
            "moe_intermediate_size": 1408,
            "shared_expert_intermediate_size": 5632,
            "tie_word_embeddings": False,
        },
    ),
    "deepseek_v2_lite": Model(
        "deepseek_v2",
        "DeepseekV2ForCausalLM",
        {
            "vocab_size": 102400,
            "hidden_size": 2048,
            "intermediate_size": 10944,
            "moe_intermediate_size": 1408,
            "num_hidden_layers": 27,
            "num_attention_heads": 16,
            "num_key_value_heads": 16,
            "q_lora_rank": None,
            "kv_lora_rank": 512,
            "qk_nope_head_dim": 128,
            "qk_rope_head_dim": 64,
            "v_head_dim": 128,
            "n_routed_experts": 64,
            "num_experts_per_tok": 6,
            "n_shared_experts": 2,
            "first_k_dense_replace": 1,
            "tie_word_embeddings": False,
        },
    ),
    "deepseek_v3": Model(
        "deepseek_v3",
        "DeepseekV3ForCausalLM",
        {
            "vocab_size": 129280,
            "hidden_size": 7168,
            "intermediate_size": 18432,
            "moe_intermediate_size": 2048,
            "num_hidden_layers": 61,
            "num_attention_heads": 128,
            "num_key_value_heads": 128,
            "q_lora_rank": 1536,
            "kv_lora_rank": 512,
            "qk_nope_head_dim": 128,
            "qk_rope_head_dim": 64,
            "v_head_dim": 128,
            "n_routed_experts": 256,
            "num_experts_per_tok": 8,
            "n_shared_experts": 1,
            "n_group": 8,
            "topk_group": 4,
            "first_k_dense_replace": 3,
            "tie_word_embeddings": False,
        },
    ),
    "t5_small": Model(
        "t5",
        "T5ForConditionalGeneration",
        {
            "vocab_size": 32128,
            "d_model": 512,
            "d_kv": 64,
            "d_ff": 2048,
            "num_layers": 6,
            "num_decoder_layers": 6,
            "num_heads": 8,
            "relative_attention_num_buckets": 32,
        },
    ),
    "switch_base_8": Model(
        "switch_transformers",
        "SwitchTransformersForConditionalGeneration",
        {
            "vocab_size": 32128,
            "d_model": 768,
            "d_kv": 64,
            "d_ff": 3072,
            "num_layers": 12,
            "num_decoder_layers": 12,
            "num_heads": 12,
            "num_experts": 8,
            "num_sparse_encoder_layers": 6,
            "num_sparse_decoder_layers": 6,
        },
    ),
    "mamba_130m": Model(
        "mamba",
        "MambaForCausalLM",
        {
            "vocab_size": 50280,
            "hidden_size": 768,
            "num_hidden_layers": 24,
            "state_size": 16,
            "conv_kernel": 4,
            "expand": 2,
            "tie_word_embeddings": True,
        },
    ),
    "mamba2_130m": Model(
        "mamba2",
        "Mamba2ForCausalLM",
        {
            "vocab_size": 50288,
            "hidden_size": 768,
            "num_hidden_layers": 24,
            "state_size": 128,
            "num_heads": 24,
            "head_dim": 64,
            "n_groups": 1,
            "conv_kernel": 4,
            "expand": 2,
            "tie_word_embeddings": True,
        },
    ),
    "rwkv4_169m": Model(
        "rwkv",
        "RwkvForCausalLM",
        {"vocab_size": 50277, "hidden_size": 768, "num_hidden_layers": 12},
    ),
    "falcon_mamba_7b": Model(
        "falcon_mamba",
        "FalconMambaForCausalLM",
        {
            "vocab_size": 65024,
            "hidden_size": 4096,
            "num_hidden_layers": 64,
            "state_size": 16,
            "conv_kernel": 4,
            "intermediate_size": 8192,
            "time_step_rank": 256,
            "tie_word_embeddings": False,
        },
    ),
    "jamba_v0_1": Model(
        "jamba",
        "JambaForCausalLM",
        {
            "vocab_size": 65536,
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "num_experts": 16,
            "num_experts_per_tok": 2,
            "attn_layer_period": 8,
            "attn_layer_offset": 4,
            "expert_layer_period": 2,
            "expert_layer_offset": 1,
            "mamba_d_state": 16,
            "mamba_d_conv": 4,
            "mamba_expand": 2,
            "mamba_dt_rank": 256,
            "tie_word_embeddings": False,
        },
    ),
    "vit_base": Model(
        "vit",
        "ViTForImageClassification",
        {
            "hidden_size": 768,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "intermediate_size": 3072,
            "image_size": 224,
            "patch_size": 16,
            "num_labels": 1000,
        },
    ),
}


def built(model: Model) -> nn.Module:
    cls = getattr(import_module(f"transformers.models.{model.folder}"), model.cls)
    with torch.device("meta"):
        net = cls(cls.config_class(**model.sizes))
    assert isinstance(net, nn.Module)
    return net


def size(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())  # a tied tensor comes once


def by_layer(sizes: Iterable[tuple[str, int]]) -> Counter[str]:
    """Elements of each layer, "decoder 3" or " 3", and of all that is in none."""
    found: Counter[str] = Counter()
    for name, elements in sizes:
        layer = LAYER.search(name)
        stack = next((s for s in ("encoder", "decoder") if name.startswith(f"{s}.")), "")
        found[f"{stack} {layer[1]}" if layer else "rest"] += elements
    return found


def ours(found: Count) -> Counter[str]:
    return by_layer((t.name, t.count) for t in found.tensors if not t.buffer)


@pytest.mark.parametrize("name", MODELS)
def test_every_layer_and_the_total(name: str) -> None:
    net, found = built(MODELS[name]), count(load(SPECS / f"{name}.yaml"))
    theirs = by_layer((n, p.numel()) for n, p in net.named_parameters())
    if name in ("t5_small", "switch_base_8"):
        # There the first layer of a stack holds the table of position biases that all of its layers use; here the stack
        # itself does.
        table = 32 * MODELS[name].sizes["num_heads"]
        for layer in ("encoder 0", "decoder 0"):
            theirs[layer] -= table
            theirs["rest"] += table
    if name == "rwkv4_169m":  # there the first layer holds the norm of the embedding
        theirs[" 0"] -= 2 * 768
        theirs["rest"] += 2 * 768
    assert ours(found) == theirs
    assert found.total == size(net)


def test_the_balancing_bias_of_deepseek_v3_is_a_buffer() -> None:
    found = count(load(SPECS / "deepseek_v3.yaml"))
    net = built(MODELS["deepseek_v3"])
    saved = set(net.state_dict())
    assert found.buffers == sum(b.numel() for n, b in net.named_buffers() if n in saved) == 14_848


def test_one_layer_of_each_stack_of_switch_c() -> None:
    # All thirty layers would be 61,440 modules of experts; they are alike, so one of each stack says as much.
    sizes = {**MODELS["switch_base_8"].sizes, "d_model": 2080, "d_ff": 6144, "num_heads": 32, "num_experts": 2048}
    sizes |= dict.fromkeys(("num_layers", "num_decoder_layers"), 1)
    sizes |= dict.fromkeys(("num_sparse_encoder_layers", "num_sparse_decoder_layers"), 1)
    one = count(load(SPECS / "switch_c.yaml", set=["stacks.encoder.blocks=enc x1", "stacks.decoder.blocks=dec x1"]))
    assert one.total == size(built(MODELS["switch_base_8"]._replace(sizes=sizes)))
    layers = ours(one)
    whole = one.total + 14 * (layers["encoder 0"] + layers["decoder 0"])
    assert count(load(SPECS / "switch_c.yaml")).total == whole == 1_571_308_972_448


def test_the_original_transformer_and_that_of_pytorch() -> None:
    # nn.Transformer has no embedding; it has biases in each of its 18 attentions and a norm after each stack.
    with torch.device("meta"):
        theirs = size(nn.Transformer(512, 8, 6, 6, 2048, batch_first=True))
    total = count(load(SPECS / "transformer_base.yaml")).total
    assert total == theirs - 18 * 4 * 512 - 2 * 2 * 512 + 37_000 * 512


def test_the_lstm_language_model_and_that_of_pytorch() -> None:
    with torch.device("meta"):
        parts = nn.Embedding(10_000, 1500), nn.LSTM(1500, 1500, 2), nn.Linear(1500, 10_000)
    assert count(load(SPECS / "lstm_lm.yaml")).total == sum(map(size, parts))
