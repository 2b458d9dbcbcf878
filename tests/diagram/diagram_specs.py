"""Published specs, and custom ones that make pictures hard."""

from pathlib import Path

from archspec.diagram.figure import draw
from archspec.language.load import load, loads
from archspec.language.model import Spec
from archspec.layers.registry import everything, find

SPECS = sorted((Path(__file__).parents[2] / "specs").glob("*.yaml"))

HEADER = """
name: {name}
d_model: 512
vocab_size: 32000
max_seq_len: 4096
head: {{kind: lm, tied: true}}
"""
ATTN = "{kind: attention, n_heads: 8, n_kv_heads: 2, position: {kind: rope}}"
CROSS = "{kind: attention, n_heads: 8, mask: cross}"
GLU = "{kind: gated_mlp, d_ff: 1408}"
MOE = "{kind: moe, n_experts: 64, top_k: 6, d_ff: 256, n_shared: 2}"

BODIES = {
    "parallel with scaling": f"""
blocks:
  - repeat: 6
    mixer: {ATTN}
    ffn: {GLU}
    modules: {{ssm: {{kind: mamba}}}}
    wiring:
      - h = norm1(x)
      - x = x + 0.5 * mixer(h) + 0.5 * ssm(h) + ffn(norm2(x))
""",
    "nested residuals": f"""
blocks:
  - repeat: 2
    mixer: {ATTN}
    ffn: {GLU}
    modules: {{ssm: {{kind: mamba}}}}
    wiring:
      - y = x + mixer(norm1(x))
      - z = y + ssm(norm2(y))
      - x = norm4(x + 0.25 * (z + ffn(norm3(z))))
""",
    "negations and differences": f"""
blocks:
  - mixer: {ATTN}
    ffn: {GLU}
    wiring: [h = mixer(norm1(x)), g = ffn(norm2(x)), x = x - h * g + -h]
""",
    "three kinds of layers": f"""
define:
  ssm: {{mixer: {{kind: mamba}}, ffn: none}}
  local: {{mixer: {{kind: attention, n_heads: 8, window: 256}}, ffn: {GLU}}}
  full: {{mixer: {ATTN}, ffn: {MOE}}}
blocks: [{{repeat: 4, pattern: [ssm, ssm, local, ssm, ssm, full]}}, local]
""",
    "every layer another": f"""
define:
  a: {{mixer: {{kind: mamba}}, ffn: {GLU}}}
  b: {{mixer: {ATTN}, ffn: {GLU}}}
  c: {{mixer: {{kind: lstm}}, ffn: {MOE}}}
blocks: "a b a a b c a b b a c c a b a c b a c a b c b a a c c b a b c a a a c b c b a b"
""",
    "only attention": f"blocks: [{{repeat: 3, mixer: {ATTN}, ffn: none}}]",
    "sandwich with layer scale": f"""
blocks: [{{repeat: 3, mixer: {ATTN}, ffn: {GLU}, wiring: sandwich}}, {{mixer: {ATTN}, ffn: {GLU}, wiring: layer_scale}}]
""",
    "gated attention with everything": """
blocks:
  - mixer: {kind: attention, n_heads: 8, gate: elementwise, qk_norm: head, sinks: true, softcap: 30.0, window: 128,
            position: {kind: rope}}
    ffn: {kind: moe, n_experts: 8, top_k: 2, d_ff: 64, n_shared: 1, shared_gate: true}
    wiring: parallel
""",
    "shared weights": f"blocks: [{{repeat: 12, share: true, pattern: [{{mixer: {ATTN}, ffn: {GLU}}}]}}]",
    "deep recurrence": "blocks: [{mixer: {kind: lstm, depth: 4, bidirectional: true}, ffn: none}]",
    "expert choice of many": """
blocks: [{repeat: 2, mixer: {kind: mamba2}, ffn: {kind: moe, n_experts: 1024, top_k: 4, d_ff: 64}}]
""",
}
CUSTOM = {name: HEADER.format(name=name.replace(" ", "_")) + body for name, body in BODIES.items()}
CUSTOM["hostile names"] = CUSTOM["only attention"].replace(
    "only_attention", "'<b>&]; } {x} \u00e9\u4e16 a very long name of a model that nobody would choose <!-- --> ' "
)
ALL = {path.stem: path.read_text() for path in SPECS} | CUSTOM


KINDS = [
    (role, kind, number)
    for role in ("mixer", "ffn")
    for kind, component in everything()[role].items()
    for number in range(len(component.examples))
]


def example(role: str, kind: str, number: int) -> Spec:
    """A model of one block with one of the examples that a component gives."""
    settings = find(role, kind).examples[number]
    cross = settings.get("mask") == "cross"
    block = {"cross" if cross else role: {"kind": kind, **settings}}
    top = {"name": kind, "d_model": 16, "vocab_size": 12, "max_seq_len": 32, "head": {"kind": "lm"}}
    if not cross:
        return load({**top, "blocks": [block]})
    encoder = {"blocks": [{"mixer": {"kind": "attention", "n_heads": 2, "mask": "bidirectional"}}]}
    return load({**top, "stacks": {"encoder": encoder, "decoder": {"memory": "encoder", "blocks": [block]}}})


def named(name: str) -> Spec:
    """A published or custom spec."""
    path = next((p for p in SPECS if p.stem == name), None)
    return load(path) if path is not None else loads(CUSTOM[name])


def words(spec: Spec) -> list[str]:
    """Every line of text in the figure of a spec."""
    return [line.text for s in draw(spec).shapes for line in s.lines]
