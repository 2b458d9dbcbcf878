"""The commented spec that `archspec init --template dna` writes."""

DNA = """\
# A small masked model of DNA: letters are hidden, and it names them from both sides. Look at it with
#
#   archspec count model.yaml                              the exact number of parameters
#   archspec vocabulary model.yaml                         the tokens and their ids
#   archspec vocabulary model.yaml --encode "ACG[MASK]T"   a text as ids
#   archspec build model.yaml -o model.py
#
# In Python, `archspec.vocabulary(spec)` has encode, decode and encode_batch, which gives ids and the mask of padding.

name: my_dna_model
d_model: 128            # width of the residual stream
max_seq_len: 1024

vocabulary:             # gives vocab_size: five letters and four special tokens, padded to 16
  kind: bases
  alphabet: ACGTN       # texts are folded to upper case; any other letter is an error, or [UNK] where there is one
  specials: ["[PAD]", "[CLS]", "[SEP]", "[MASK]"]
  pad_to_multiple_of: 8
# Words of six letters instead:  vocabulary: {kind: kmers, k: 6, extra: N}
# Learned pieces:                vocabulary: {kind: bpe, file: tok.json, size: 4096}
#                                from `archspec vocabulary learn reads.txt --size 4096 -o tok.json`

mask: bidirectional     # of every attention below: each letter sees those on both sides
norm: {kind: layernorm, eps: 1.0e-5}
blocks:
  - repeat: 4
    mixer: {kind: attention, n_heads: 4, position: rope}
    ffn: {kind: gated_mlp, d_ff: {of: 8/3 * d_model, multiple_of: 64}}
# For long sequences, a mixer whose cost does not grow with their square: mixer: {kind: hyena}, which looks back alone;
# then mask and head change too: leave mask out, and write head: {kind: lm, tied: true}.

head: {kind: masked_lm, tied: true}

# What you expect of the model; `archspec validate` and `archspec count` fail when it is not so.
expect:
  layers: 4
  params: "< 1M"
"""
