"""What a component gives up on purpose, and what there is nothing of to look at, is a line that says so."""

import pytest
from verify_models import spec_of

from archspec import load
from archspec.verify import Report, Verdict, built, shrink, verify
from archspec.verify.sample import Sample
from archspec.verify.shrink import LONGEST

CHOICE = "{{kind: moe, n_experts: 4, top_k: 2, d_ff: 8, assignment: expert, choice_over: {}}}"
ROPE = "{{kind: attention, n_heads: 4, position: {{kind: rope, scaling: {}}}}}"
DYNAMIC = "{kind: dynamic, factor: 4.0, original_max_seq_len: 4}"
LONGROPE = "{kind: longrope, original_max_seq_len: 4, short_factor: [1.0, 1.5], long_factor: [2.0, 4.0]}"


def verdicts(report: Report) -> dict[Verdict, set[str]]:
    found: dict[Verdict, set[str]] = {verdict: set() for verdict in Verdict}
    for check in report.checks:
        found[check.verdict].add(check.name)
    return found


def detail(report: Report, name: str) -> str:
    return next(check.detail for check in report.checks if check.name == name)


@pytest.mark.parametrize(("scaling", "kind"), [(DYNAMIC, "dynamic"), (LONGROPE, "longrope")])
def test_frequencies_that_follow_the_length_are_told(scaling: str, kind: str) -> None:
    report = verify(spec_of(ROPE.format(scaling)))
    assert report.passed, str(report)
    assert verdicts(report)[Verdict.BY_DESIGN] == {"any length", "decoding"}
    assert "up to 4 tokens" in detail(report, "decoding")
    assert f"{kind} (blocks.0.mixer.position.scaling) follows the length" in detail(report, "any length")
    assert "every check holds" not in str(report)


@pytest.mark.parametrize(("over", "more"), [("sequence", set()), ("batch", {"padding", "packing"})])
def test_an_expert_that_chooses_tokens_is_told(over: str, more: set[str]) -> None:
    report = verify(spec_of(ffn=CHOICE.format(over)))
    assert report.passed, str(report)
    assert verdicts(report)[Verdict.BY_DESIGN] == {"causal", "any length", "decoding"} | more
    assert detail(report, "causal").startswith("moe (blocks.0.ffn) compares a token with later ones")


def test_a_spec_of_every_sort_has_every_line() -> None:
    names = {check.name for check in verify(spec_of()).checks}
    for spec in (spec_of("{kind: attention, n_heads: 4, mask: bidirectional}"), load("specs/vit_base.yaml")):
        assert {check.name for check in verify(spec).checks} == names


def test_what_there_is_nothing_of_says_why() -> None:
    both = verify(spec_of("{kind: attention, n_heads: 4, mask: bidirectional}"))
    assert detail(both, "causal") == "attention (blocks.0.mixer) looks at later tokens, as it should"
    pooled = verify(spec_of(head="{kind: classification, n_classes: 3, pool: last}"))
    assert detail(pooled, "causal") == "classification (head) gives one answer for a whole sequence"
    assert detail(pooled, "each part").startswith("1 different parts look at no later token")
    short = verify(spec_of("{kind: attention, n_heads: 4, window: 64}", max_seq_len=32))
    assert "max_seq_len = 32, do not go past 64 of attention (blocks.0.mixer)" in detail(short, "reach")
    one = verify(spec_of(max_seq_len=1))
    assert detail(one, "causal") == "sequences have one token: max_seq_len is 1"
    for report in (both, pooled, short, one):
        assert report.passed, str(report)
        assert "nothing to look at" in report.summary


@pytest.mark.parametrize(
    ("mixer", "beyond"),
    [
        ("{kind: attention, n_heads: 4, window: 32}", 32),
        ("{kind: mamba2, d_state: 4, head_dim: 8, chunk: 64}", 64),
        ("{kind: attention, n_heads: 4, position: {kind: t5}}", 128),
        (ROPE.format("{kind: dynamic, factor: 4.0, original_max_seq_len: 100}"), 100),
    ],
)
def test_sequences_go_past_every_edge(mixer: str, beyond: int) -> None:
    sample = Sample(spec_of(mixer))
    assert beyond < sample.tokens <= LONGEST
    assert {beyond, beyond + 1} <= set(sample.cuts(4))


def test_lengths_out_of_reach_are_cut() -> None:
    spec = spec_of("{kind: attention, n_heads: 4, window: 1024}", max_seq_len=4096)
    small = shrink(spec)
    assert Sample(small).tokens > 2 * small.main.parts[1].reach  # type: ignore[operator]
    assert "shorter windows" in verify(spec).scaled


def test_places_in_evaluation_run_out() -> None:
    """A sequence is so long that some expert must drop a token."""
    ffn = "{kind: moe, n_experts: 8, top_k: 1, d_ff: 8, eval_capacity: 9}"
    assert Sample(spec_of(ffn=ffn)).tokens > 8 * 9


def test_a_warned_parameter_without_gradient_is_no_failure() -> None:
    """The weight of a single renormalised expert is 1: its router learns nothing, as loading the spec says."""
    report = verify(spec_of(ffn="{kind: moe, n_experts: 4, top_k: 1, renormalise: true, d_ff: 8}"))
    assert report.passed, str(report)
    assert verdicts(report)[Verdict.BY_DESIGN] == {"gradients"}
    assert "router learns nothing" in detail(report, "gradients")


def test_a_relative_table_of_a_layer_gives_what_it_declares() -> None:
    """Heads stand last in what the table gives, and first in what is added to scores."""
    spec = spec_of("{kind: attention, n_heads: 4, position: {kind: t5, shared: false}}")
    assert built.declared(spec).verdict is Verdict.HOLDS
