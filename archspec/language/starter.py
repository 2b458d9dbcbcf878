"""The commented specs that `archspec init` writes, by the name of the template."""

from archspec.language.starter_dna import DNA

STARTER = """\
# A small language model. Look at it with
#
#   archspec count model.yaml      the exact number of parameters, layer by layer
#   archspec render model.yaml -o model.svg
#   archspec build model.yaml -o model.py
#   archspec show model.yaml       the same spec with everything that it leaves unsaid
#
# `archspec layers` lists every component, `archspec layers attention` explains one with all of its fields, and
# `archspec schema -o archspec.schema.json` writes the schema that an editor completes and checks with.

name: my_model
d_model: 256            # width of the residual stream
vocab_size: 32000
max_seq_len: 1024
norm: rmsnorm           # of every layer below; a kind alone, or {kind: rmsnorm, eps: 1.0e-5}

define:                 # layers by name
  attn:
    mixer:
      kind: attention
      n_heads: 8
      n_kv_heads: 2     # each key/value head serves four query heads; leave it out for one to one
      position: rope
    ffn:
      kind: gated_mlp
      d_ff: {of: 8/3 * d_model, multiple_of: 64}   # sizes may be arithmetic on named sizes, rounded up
  ssm:
    mixer: {kind: mamba, d_state: 16}
    ffn: none

blocks: "(ssm ssm ssm attn)x2"      # eight layers; also a list, such as [attn, attn] or [{repeat: 4, pattern: [attn]}]

head: {kind: lm, tied: true}        # logits from the table of the embedding

# Where norms and residual paths go is said by `wiring`, here or in a single block. It is one of the names pre (the
# default), post, sandwich, parallel, ..., or lines of your own:
#
#   wiring:
#     - h = norm1(x)
#     - x = x + mixer(h) + 0.5 * ffn(h)

# What you expect of the model; `archspec validate` and `archspec count` fail when it is not so.
expect:
  layers: 8
  params: "< 15M"
"""

TEMPLATES = {"hybrid": STARTER, "dna": DNA}
