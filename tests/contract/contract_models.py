"""Whole specs beyond single components: wirings, sharing, overrides, several stacks, ties, embeddings and heads."""

from contract_specs import LENGTH, MLP, PLAIN, SIZES, Document, two_stacks

from archspec.language.wirings import BUILTINS

ATTENTION = {"kind": "attention", "n_heads": 4, "n_kv_heads": 2, "position": {"kind": "rope"}}
MAMBA = {"kind": "mamba", "d_state": 4}
MOE = {"kind": "moe", "n_experts": 4, "top_k": 2, "d_ff": 8, "renormalise": True, "balance_loss": 0.01}
T5 = {"kind": "attention", "n_heads": 2, "position": {"kind": "t5", "n_buckets": 8, "max_distance": 16}}
BOTH = {"mixer": ATTENTION, "ffn": MLP}

WIRINGS: dict[str, list[str]] = {
    "one_line": ["x = x + mixer(norm1(x)) + ffn(norm1(x))"],
    "scaled": ["h = norm1(x)", "x = x + 0.5 * mixer(h) - 0.25 * ffn(norm2(h))"],
    "precedence": ["a = mixer(norm1(x))", "b = ffn(norm2(x))", "x = x - (a - b) * (2 - a) - (b + a) + -b * 3"],
    "negative": ["x = -mixer(norm1(x)) - -ffn(norm2(x))"],
    "nested": ["x = norm3(x + scale1(norm2(ffn(norm1(mixer(x))))))"],
    "gated": ["g = ffn(norm1(x))", "x = x + g * mixer(norm2(x))"],
    "bare": ["x = ffn(mixer(x))"],
    "reused": ["h = norm1(mixer(norm1(x)))", "x = x + norm1(ffn(h))"],
}


def model(blocks: object, **top: object) -> Document:
    return {"name": "whole", **SIZES, "blocks": blocks, "head": {"kind": "lm"}, **top}


def with_modules() -> Document:
    gain, gate = {"kind": "layer_scale", "initial": 0.5}, {"kind": "gated_mlp", "d_ff": 12}
    block = {
        "mixer": ATTENTION,
        "modules": {"ssm": MAMBA, "gain": gain, "gate": gate, "calm": {"kind": "layernorm"}},
        "wiring": ["h = calm(x)", "m = ssm(h) + mixer(h)", "x = x + gain(m) + 0.5 * gate(norm1(x + m))"],
    }
    return model([{"repeat": 2, **block}])


def encoder_decoder(**top: object) -> Document:
    decoder = {"mixer": T5, "cross": {"kind": "attention", "n_heads": 2}, "ffn": MOE}
    document = two_stacks(decoder, **top)
    mixer = {**T5, "position": {**T5["position"], "bidirectional": True}}  # type: ignore[dict-item]
    document["stacks"]["encoder"]["blocks"] = [{"repeat": 2, "mixer": mixer, "ffn": MLP}]
    return document


def tied_stacks() -> Document:
    document = encoder_decoder(dropout=0.1, head={"kind": "lm", "tied": True, "scale": 0.25}, init={"kind": "t5"})
    del document["stacks"]["encoder"]["d_model"]
    document["stacks"]["decoder"]["tie_embedding"] = "encoder"
    return document


def three_stacks() -> Document:
    image = {"kind": "patch", "image_size": 8, "patch_size": 4, "position": {"kind": "learned", "n_positions": 5}}
    cross = {"mixer": PLAIN, "cross": {"kind": "attention", "n_heads": 2, "qk_norm": "whole"}}
    stacks = {
        "image": {"mask": "bidirectional", "d_model": 8, "embedding": image, "blocks": [BOTH]},
        "text": {"memory": "image", "d_model": 12, "blocks": [cross]},
        "out": {"memory": "text", "blocks": [{**cross, "ffn": MLP}]},
    }
    return {"name": "three", **SIZES, "stacks": stacks, "head": {"kind": "lm"}}


def overrides() -> Document:
    changes = [
        {"at": "layers[0:4:2].ffn", "replace": MOE},
        {"at": "layers[1].mixer", "set": {"window": 5}},
        {"at": "layers[-1]", "replace": {"mixer": {"kind": "lstm"}}},
    ]
    return model([{"repeat": 5, **BOTH}], overrides=changes)


def hybrid() -> Document:
    define = {
        "ssm": {"mixer": MAMBA},
        "ssd": {"mixer": {"kind": "mamba2", "head_dim": 8, "d_state": 4, "chunk": 8}, "wiring": "post"},
        "attn": {**BOTH, "wiring": "sandwich"},
        "local": {"extends": "attn", "mixer": {"window": 4, "position": {"theta": 100.0}}},
        "moe": {"extends": "attn", "ffn": {**MOE, "__replace__": True}},
        "conv": {"mixer": {"kind": "hyena", "filter_order": 4}, "ffn": {"kind": "gated_mlp", "d_ff": 8}},
    }
    return model("(ssm local ssd moe)x2 conv attn", define=define, dropout=0.1)


def shared() -> Document:
    blocks = [
        {"repeat": 3, "share": True, **BOTH},
        {"repeat": 2, "share": True, "pattern": ["a", "b"]},
        {"repeat": 2, **BOTH, "mixer": MAMBA},
    ]
    return model(blocks, define={"a": {"mixer": {"kind": "gru"}}, "b": {"ffn": MOE}}, head={"kind": "lm", "tied": True})


def bert() -> Document:
    embedding = {"kind": "token", "position": {"kind": "learned"}, "token_types": 2, "norm": {"kind": "layernorm"}}
    return model(
        [{"repeat": 2, **BOTH, "mixer": {**PLAIN, "qkv_bias": True, "out_bias": True}}],
        embedding=embedding, mask="bidirectional", wiring="post", dropout=0.1, norm={"kind": "layernorm", "eps": 1e-12},
        head={"kind": "masked_lm", "tied": True}, init={"kind": "normal", "truncated": True},
    )  # fmt: skip


def albert() -> Document:
    embedding = {"kind": "token", "d_factor": 6, "position": {"kind": "learned", "dim": 6}}
    return model(
        [{"repeat": 3, "share": True, **BOTH, "mixer": PLAIN}],
        embedding=embedding, mask="bidirectional", head={"kind": "masked_lm"},
    )  # fmt: skip


def vit() -> Document:
    embedding = {"kind": "patch", "image_size": 8, "patch_size": 4, "position": {"kind": "learned", "n_positions": 5}}
    document = model([BOTH], embedding=embedding, mask="bidirectional", head={"kind": "classification", "n_classes": 3})
    del document["vocab_size"], document["max_seq_len"]
    return document


def signal() -> Document:
    embedding = {"kind": "features", "d_input": 3, "position": {"kind": "sinusoidal"}}
    document = model([{"mixer": {"kind": "lstm", "bidirectional": True}}, BOTH], embedding=embedding)
    del document["vocab_size"]
    return {**document, "head": {"kind": "regression", "pool": "mean", "n_outputs": 2}, "dropout": 0.1}


def shared_keys() -> Document:
    """Local and global layers that read keys and values of the last of their kind, one of them in a period of two."""
    local = {**ATTENTION, "window": 5, "qk_norm": "head"}
    alibi = {"kind": "attention", "n_heads": 4, "position": {"kind": "alibi"}, "v_head_dim": 2}
    read = {name: {"mixer.keys": f"{name}k", "mixer.values": f"{name}v"} for name in ("l", "g")}
    give = {name: {value: key for key, value in links.items()} for name, links in read.items()}
    define = {
        "first_l": {"mixer": local, "ffn": MOE, "gives": give["l"]},
        "first_g": {"mixer": alibi, "ffn": MLP, "gives": give["g"]},
        "l": {"mixer": local, "ffn": MLP, "reads": read["l"]},
        "g": {"mixer": alibi, "ffn": MOE, "reads": read["g"]},
    }
    return model("first_l first_g (l g)x2 l x2", define=define)


def handed() -> Document:
    """Values of wirings: from one layer to the next over a repeat, and over others to the last."""
    first = {**BOTH, "gives": ["a", "b"], "wiring": ["a = mixer(norm1(x))", "b = ffn(norm2(x + a))", "x = x + a + b"]}
    chain = {**BOTH, "reads": ["a"], "gives": ["a"], "mixer": MAMBA,
             "wiring": ["a = a * mixer(norm1(x))", "x = x + a", "x = x + ffn(norm2(x))"]}  # fmt: skip
    last = {"ffn": MLP, "reads": ["a", "b"], "wiring": ["x = x + ffn(norm1(x - a) + b)"]}
    return model("first chain x3 last", define={"first": first, "chain": chain, "last": last}, dropout=0.0)


def streams() -> Document:
    """Three streams, of which a layer leaves one and only some write another; a value beside them, a period of two."""
    a = {**BOTH, "wiring": ["a = a + mixer(norm1(b))", "b = b + ffn(norm2(a)) + 0.1 * c1"]}
    lines = ["m = mixer(norm1(a + b))", "c1 = c1 - m", "a = a + ffn(c1)"]
    b = {"mixer": MAMBA, "ffn": MOE, "gives": ["m"], "wiring": lines}
    last = {"ffn": MLP, "reads": ["m"], "wiring": ["b = b + ffn(norm1(b * m))"]}
    said = {"start": ["a = x", "b = 0.5 * x", "c1 = x * b"], "end": ["y = a + b", "x = y - c1"]}
    return model("a b a b a last", define={"a": a, "b": b, "last": last}, streams=said)


def names() -> dict[str, Document]:
    """Names that could be taken for others in the generated file: of kinds, of what it imports, of one another."""
    small = {"kind": "mlp", "d_ff": 20}
    labels = {"gated": {"ffn": MLP}, "b": {"ffn": small}, "c": {"ffn": {"kind": "gated_mlp", "d_ff": 8}}}
    alike = {"aB": {**BOTH, "ffn": small}, "ab": {**BOTH, "mixer": PLAIN}, "a_b": {"mixer": MAMBA}}
    found = {"names_labels": model(list(labels), define=labels), "names_alike": model(list(alike), define=alike)}
    for encoder, decoder in (("tensor", "attention"), ("enc_", "Enc"), ("callable", "block"), ("mlp", "t5_bias")):
        two = encoder_decoder()["stacks"]
        stacks = {encoder: two["encoder"], decoder: {**two["decoder"], "memory": encoder}}
        found[f"names_{encoder}"] = {"name": "a name", **SIZES, "stacks": stacks, "head": {"kind": "lm"}}
    lines = ["torch_ = mixer(norm1(x))", "i = F(torch_)", "block = x + i", "x = block + tensor(norm2(block))"]
    modules = {"modules": {"F": MLP, "tensor": small}, "mixer": PLAIN, "wiring": lines}
    return found | {"names_parts": model([modules])}


def models() -> dict[str, Document]:
    """Every document by name."""
    builtins = [{**BOTH, "wiring": w} for w in BUILTINS]
    found = {"wirings": model(builtins), "wirings_dropout": model(builtins, dropout=0.2)}
    found |= {"wirings_own": model([{**BOTH, "wiring": lines} for lines in WIRINGS.values()])}
    found |= {"wiring_for_all": model([{"repeat": 2, **BOTH}, {"ffn": MLP}], wiring="sandwich")}
    dropped = ["x = x + dropout(mixer(norm1(x)))", "x = dropout(x) + ffn(dropout(norm2(x)))"]
    found |= {"custom_dropout": model([{**BOTH, "wiring": dropped, "dropout": 0.3}])}
    found |= {"deepnorm_two": {**encoder_decoder(), "wiring": "deepnorm"}}
    found |= {"shared_keys": shared_keys(), "handed": handed(), "streams": streams()}
    found |= {"prefix": model([BOTH], mask="prefix"), "only_ffn": model([{"ffn": MLP}])}
    found |= {"t5_layers": model([{"repeat": 2, "mixer": T5}]), "fixed_length": model([BOTH], max_seq_len=LENGTH // 2)}
    makers = (
        with_modules, encoder_decoder, tied_stacks, three_stacks, overrides, hybrid, shared, bert, albert, vit, signal
    )  # fmt: skip
    return found | names() | {make.__name__: make() for make in makers}
