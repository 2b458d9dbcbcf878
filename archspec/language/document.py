"""The words that a spec may use at its top and in a stack, with what each means, and what is plain in them."""

from archspec.language.rules import rule_of
from archspec.layers.fields import LARGEST

TOP_KEYS = {
    "name": "name of the model",
    "description": "one line about it",
    "source": "paper, code or checkpoint that it follows",
    "extends": "path of a spec that this one changes (deep merge; `__replace__: true` in a mapping replaces it)",
    "sizes": "named sizes that arithmetic may use: {expand: 2, d_inner: expand * d_model}",
    "d_model": "width of the residual stream",
    "vocabulary": "how text becomes tokens: bytes, bases, {kind: kmers, k: 6}, ...; it says vocab_size",
    "vocab_size": "tokens in the vocabulary; rows of the token table",
    "max_seq_len": "tokens that the model is made for",
    "embedding": "how the input becomes vectors of d_model",
    "norm": "default for every norm below: one of its kind takes all that it does not say itself, one of another kind "
    "those settings that are written here and that it has",
    "dropout": "default dropout: of the embedding, of each residual branch and of attention probabilities",
    "mask": "default mask of every attention below: causal, bidirectional or prefix",
    "wiring": "default wiring of every block below: a built-in name or a list of lines",
    "init": "how weights start",
    "define": "named blocks",
    "streams": "several values that go from layer to layer in place of x: {start: [a = x, b = x], end: [x = a + b]}",
    "blocks": "the layers: a list of blocks, names, {repeat, pattern, share}; or a pattern such as (ssm ssm attn)x4",
    "overrides": 'changes of single layers: {at: "layers[0:3].ffn", set: {...}} or replace',
    "final_norm": "norm after the last layer: true, false or a norm; by default where the wiring leaves x without one",
    "stacks": "several stacks by name (encoder, decoder), each with its own embedding and blocks",
    "head": "what turns the last hidden states into the output",
    "heads": "several heads by name on the same hidden states, in place of head; the output is then a dict",
    "inputs": "what forward takes beside its input: [mask, positions, documents]; usually a mask where one is needed",
    "expect": "the author's contract, checked by validate and count: {params: 46_702_792_704, layers: 32}",
}

STACKED = ("embedding", "streams", "blocks", "overrides", "final_norm")  # keys of a spec that is one stack alone
SHARED = ("d_model", "vocab_size", "max_seq_len", "norm", "dropout", "mask", "wiring")  # which a stack may say again
STACK_KEYS = {key: text for key, text in TOP_KEYS.items() if key in STACKED + SHARED} | {
    "memory": "name of an earlier stack, which the cross-attention of this one reads",
    "tie_embedding": "name of an earlier stack whose token table this one uses",
}

BLOCK_KEYS = {
    "mixer": "what mixes tokens: attention, mamba, ...; or none",
    "cross": "cross-attention over the memory of the stack",
    "ffn": "what mixes channels: mlp, gated_mlp, moe; or none",
    "norm": "the norms of this block",
    "wiring": "where norms and residual paths go: a built-in name, or lines such as x = x + mixer(norm1(x))",
    "dropout": "dropout of each residual branch",
    "modules": "further named parts for the wiring: {ssm: {kind: mamba}}",
    "gives": "values that later layers may read: {k: mixer.keys}, or [h] for one that the wiring assigns",
    "reads": "values of earlier layers: {mixer.keys: k} in place of the part's own, or [h] for lines of the wiring",
    "extends": "name of a defined block that this one changes (in `define`)",
}

HEAD_KEYS = {  # of each of `heads`, beside those of the head that it is
    "loss_weight": "factor of its loss in the total (by default 1)",
    "ahead": "how many places further the token stands that an lm head learns to name (by default 1, the next)",
    "reads": "a value that a layer gives, which it reads in place of the last hidden states",
}

ITEM_KEYS = {
    "repeat": "how many times the period stands one after another",
    "pattern": "the period: a list of names and blocks, or text such as (ssm ssm attn)x4",
    "share": "one set of weights for all repeats",
}


SIZES = ("d_model", "vocab_size", "max_seq_len")
_SIZE = {"type": "int", "gt": 0, "le": LARGEST}
# the values of a spec that are no components, each as pydantic's schema of it; `size` is one with a name of its own
PLAIN = {
    name: rule_of(name, core)
    for name, core in {
        **dict.fromkeys((*SIZES, "repeat"), _SIZE),
        "size": {"type": "float", "ge": -LARGEST, "le": LARGEST, "allow_inf_nan": False},
        "dropout": {"type": "float", "ge": 0, "lt": 1, "allow_inf_nan": False},
        "mask": {"type": "literal", "expected": ["causal", "bidirectional", "prefix"]},
        "share": {"type": "bool"},
        "reads": {"type": "str", "min_length": 1},
        "loss_weight": {"type": "float", "gt": 0, "allow_inf_nan": False},
        "ahead": _SIZE,
    }.items()
}
