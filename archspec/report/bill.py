"""A `Bill` as text, as Markdown, as JSON and as CSV."""

import csv
import io
import json
from collections.abc import Callable
from dataclasses import asdict

from archspec.errors import in_tokens, many
from archspec.passes.bill import Bill
from archspec.report.text import human_bytes, human_flops


def facts(bill: Bill) -> list[tuple[str, str]]:
    """What stands in it, line by line."""
    texts = f"{many(bill.batch, 'sequence')}, a prompt of {in_tokens(bill.prompt)} and {bill.generate:,} more"
    said = [
        ("work", f"{texts}; {bill.dtype}"),
        ("flops prefill", f"{human_flops(bill.flops_prefill)}, which gives the first token"),
    ]
    if bill.generate > 1:
        said += [
            ("flops first", f"{bill.flops_first:,}, of the first token that is decoded"),
            ("flops last", f"{bill.flops_last:,}, of the last one"),
            ("flops decode", f"{human_flops(bill.flops_decode)}, of all of them"),
            ("bytes first", f"{human_bytes(bill.bytes_first)}, moved for the first one; estimate"),
            ("bytes last", f"{human_bytes(bill.bytes_last)}; estimate"),
            ("bytes decode", f"{human_bytes(bill.bytes_decode)}; estimate"),
        ]
    share = bill.flops_without_state / bill.flops
    said += [
        ("flops", human_flops(bill.flops)),
        ("flops without state", f"{human_flops(bill.flops_without_state)}, {share:.3g} times as many"),
    ]
    for name, n in (("cache bytes", bill.cache_bytes), ("state bytes", bill.state_bytes)):
        said += [(name, f"{human_bytes(n)} at the end")] if n else []
    return said


def table(bill: Bill) -> str:
    """The bill as text."""
    found = facts(bill)
    width = max(len(name) for name, _ in found)
    return "\n".join([bill.name, "", *(f"{name:<{width}}  {value}" for name, value in found)])


def markdown(bill: Bill) -> str:
    """The bill as a Markdown list."""
    return "\n".join([f"## {bill.name}", "", *(f"- {name}: {value}" for name, value in facts(bill))])


def as_json(bill: Bill) -> str:
    """Every figure."""
    return json.dumps(asdict(bill) | {"flops": bill.flops}, indent=2)


def as_csv(bill: Bill) -> str:
    """Every figure as CSV with a header: name, value, and whether it is an estimate."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("figure", "value", "estimate"))
    for name, value in (asdict(bill) | {"flops": bill.flops}).items():
        if isinstance(value, int):
            rows.writerow((name, value, name in bill.estimates))
    return text.getvalue().rstrip("\n")


FORMATS: dict[str, Callable[[Bill], str]] = {"table": table, "json": as_json, "markdown": markdown, "csv": as_csv}
