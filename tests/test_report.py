"""The table of counts and its other formats."""

import csv
import json
from pathlib import Path

import pytest

from archspec.language.load import load
from archspec.passes.count import count
from archspec.report.count import as_csv, as_json, markdown, sections, table
from archspec.report.text import human, human_bytes

SPECS = sorted(Path("specs").glob("*.yaml"))
TINY = count(load("specs/bert_tiny.yaml"))
BOARD = """\
bert_tiny

step  module                    shape       count  note
---------------------------------------------------
   1  embedding.token           5 x 8          40
   2  embedding.position.table  4 x 8          32
      embedding                                72  40 + 32
   3  blocks.0-1.mixer.q_proj   8 x 8          64
   4  blocks.0-1.mixer.k_proj   8 x 8          64
   5  blocks.0-1.mixer.v_proj   8 x 8          64
   6  blocks.0-1.mixer.o_proj   8 x 8          64
   7  blocks.0-1.norm1          8, 8           16
   8  blocks.0-1.ffn.up_proj    16 x 8, 16    144
   9  blocks.0-1.ffn.down_proj  8 x 16, 8     136
  10  blocks.0-1.norm2          8, 8           16
      mixer                                   256  4 x 64
      norms                                    32  2 x 16
      ffn                                     280  144 + 136
      one layer                               568  mixer 256 + norms 32 + ffn 280
      2 layers                              1,136  2 x 568
  11  head.proj                 5 x 8, 5       45
---------------------------------------------------
      total                                 1,253  72 + 1,136 + 45

total      1,253 parameters
trainable  1,253
embedding  72"""


def test_the_table_of_a_small_model_reads_like_a_board() -> None:
    assert table(TINY) == BOARD


@pytest.mark.parametrize("path", SPECS, ids=lambda p: p.stem)
def test_every_breakdown_adds_up_to_the_total(path: Path) -> None:
    found = count(load(path))
    assert sum(section.total for section in sections(found.rows)) == found.total
    assert sum(row.total for row in found.rows if not row.buffer) == found.total
    assert sum(t.count for t in found.tensors if not t.buffer) == found.total
    kinds = json.loads(as_json(found, "kind"))["kinds"]
    assert sum(kind["count"] for kind in kinds) == found.total


def test_layers_of_one_content_stand_once() -> None:
    spec = load(
        {
            "d_model": 16,
            "vocab_size": 8,
            "define": {"s": {"mixer": "mamba"}, "f": {"ffn": "mlp"}},
            "blocks": "(s s f)x2 f f s f s f s s f f s f s f s f",
        }
    )
    names = [section.name for section in sections(count(spec).rows)]
    assert names == ["embedding", "blocks.0-1,3-4,8,10,12-13,16,18,20", "blocks.2,5-7,9,11,14-15,17,19,21", "norm"]


def test_evenly_spaced_layers_are_named_by_their_step() -> None:
    spec = load(
        {"d_model": 16, "vocab_size": 8, "blocks": [{"repeat": 4, "pattern": [{"mixer": "mamba"}, {"ffn": "mlp"}]}]}
    )
    assert [section.name for section in sections(count(spec).rows)][1:3] == ["blocks.0,2..6", "blocks.1,3..7"]


def test_shared_layers_count_once() -> None:
    found = count(load({"d_model": 8, "vocab_size": 8, "blocks": [{"repeat": 3, "share": True, "ffn": "mlp"}]}))
    lines = [line.split() for line in table(found).splitlines()]
    assert ["one", "layer", "520", "norms", "8", "+", "ffn", "512"] in lines
    assert ["3", "layers", "520", "one", "set", "of", "weights"] in lines


def test_experts_and_buffers_have_lines_of_their_own() -> None:
    found = count(load("specs/deepseek_v3.yaml"))
    text = table(found)
    assert f"active              {found.active:,} (37.6B) for each token" in text
    assert "buffers             14,848\n" in text
    assert "total               671,026,404,352 (671B) parameters" in text
    assert "kv bytes per token  70,272 bytes (68.62 KiB)" in text


def test_json_has_every_total_and_the_tensors() -> None:
    found = json.loads(as_json(TINY))
    assert found | {"tensors": []} == {
        "name": "bert_tiny",
        "total": 1253,
        "trainable": 1253,
        "active": 1253,
        "embedding": 72,
        "tied": 0,
        "buffers": 0,
        "layers": 2,
        "kv_bytes_per_token": 0,
        "memory_bytes_per_token": 0,
        "cache_bytes": 0,
        "state_bytes": 0,
        "held_bytes": 0,
        "batch": 1,
        "seq": 4,
        "memory": None,
        "dtype": "bfloat16",
        "tensors": [],
    }
    assert found["tensors"][0] == {"name": "embedding.token.weight", "shape": [5, 8], "count": 40, "buffer": False}


@pytest.mark.parametrize("by", ["tensor", "module", "kind"])
def test_every_format_tells_the_same(by: str) -> None:
    records = json.loads(as_json(TINY, by))[f"{by}s"]
    rows = list(csv.DictReader(as_csv(TINY, by).splitlines()))
    assert [int(row["count"]) for row in rows] == [record["count"] for record in records]
    text, marked = table(TINY, by), markdown(TINY, by)
    for record in records:
        assert f" {record['count']:,}" in text
        assert f"| {record['count']:,} |" in marked


def test_csv_of_tensors() -> None:
    assert as_csv(TINY, "tensor").splitlines()[:2] == [
        "name,shape,count,buffer",
        "embedding.token.weight,5 x 8,40,False",
    ]


def test_csv_of_tensors_marks_buffers() -> None:
    rows = list(csv.DictReader(as_csv(count(load("specs/deepseek_v3.yaml")), "tensor").splitlines()))
    assert {row["buffer"] for row in rows} == {"False", "True"}


def test_markdown_is_a_table_and_a_list() -> None:
    lines = markdown(TINY).splitlines()
    assert lines[:5] == [
        "## bert_tiny",
        "",
        "| step | module | shape | count | note |",
        "|---:|---|---|---:|---|",
        "| 1 | embedding.token | 5 x 8 | 40 |  |",
    ]
    assert lines[-3:] == ["- total: 1,253 parameters", "- trainable: 1,253", "- embedding: 72"]


@pytest.mark.parametrize(
    ("n", "text"),
    [(999_499, ""), (1_000_000, "1.00M"), (999_499_999, "999M"), (999_500_000, "1.00B"), (46_702_792_704, "46.7B"),
     (671_026_404_352, "671B"), (1_571_308_972_448, "1.57T")],
)  # fmt: skip
def test_large_numbers_are_said_to_three_digits(n: int, text: str) -> None:
    assert human(n) == text


def test_bytes() -> None:
    assert human_bytes(512) == "512 bytes"
    assert human_bytes(131_072) == "131,072 bytes (128 KiB)"


def footer(name: str) -> list[str]:
    return table(count(load(f"specs/{name}.yaml"))).split("\n\n")[-1].splitlines()


def test_the_footer_says_what_its_bytes_are() -> None:
    assert footer("gpt2")[-1].split("  ")[-1].strip() == "1 sequence of 1,024 tokens; bfloat16"
    assert footer("jamba_v0_1")[-1].endswith("1 sequence of 262,144 tokens; bfloat16, recurrent states float32")
    assert footer("t5_small")[-1].endswith("1 sequence of 512 tokens, a memory of 512 tokens; bfloat16")
    assert footer("vit_base")[-1].startswith("embedding")


def test_the_footer_says_that_tied_tensors_are_not_counted_again() -> None:
    assert "tied                38,597,376 (38.6M), not counted again" in footer("gpt2")


def test_tensors_that_are_no_weight_or_bias_are_named() -> None:
    shapes = {
        row.module: row.shape for name in ("vit_base", "jamba_v0_1") for row in count(load(f"specs/{name}.yaml")).rows
    }
    assert shapes["embedding"] == "class_token 1 x 1 x 768"
    assert shapes["embedding.project"] == "768 x 3 x 16 x 16, 768"
    assert "A_log 8192 x 16, D 8192" in shapes.values()


def test_notes_stand_where_they_belong_and_once() -> None:
    def note(name: str, module: str) -> str:
        return next(row.note for row in count(load(f"specs/{name}.yaml")).rows if row.module.endswith(module))

    assert "attention" not in note("glam_64b_64e", "mixer.position.table")
    assert note("glam_64b_64e", "ffn.experts").count("2 of 64") == 1
    assert note("jamba_v0_1", "mixer.in_proj").startswith("x, z")
    assert "skip of the scan" in note("mamba2_130m", ".mixer")


def test_each_number_of_the_footer_goes_by_its_name_in_json() -> None:
    for path in SPECS:
        found = count(load(path))
        facts = json.loads(as_json(found))
        for line in table(found).split("\n\n")[-1].splitlines():
            name, _, value = line.partition("  ")
            if name != "decoding":
                assert value.strip().replace(",", "").split()[0] == str(facts[name.replace(" ", "_")]), line


def test_the_bytes_of_decoding_follow_what_is_asked() -> None:
    found = count(load("specs/t5_small.yaml"), batch=3, seq=100, memory=7, dtype="float32")
    assert table(found).endswith("decoding                3 sequences of 100 tokens, a memory of 7 tokens; float32")
    facts = json.loads(as_json(found))
    assert (facts["batch"], facts["seq"], facts["memory"], facts["dtype"]) == (3, 100, 7, "float32")
    assert facts["cache_bytes"] == 3 * (100 * facts["kv_bytes_per_token"] + 7 * facts["memory_bytes_per_token"])
