"""A count as plain records: its modules, tensors or kinds, for JSON, CSV and data frames."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from archspec.errors import MissingError

if TYPE_CHECKING:
    from archspec.passes.count import Count, Row

By = Literal["module", "tensor", "kind"]


def records(count: "Count", by: str) -> list[dict[str, Any]]:
    """A record for each module, tensor or kind."""
    if by == "kind":
        return [{"kind": kind, "count": n} for kind, n in kinds(count).items()]
    if by == "module":
        return [_record(row) for row in count.rows]
    return [{"name": t.name, "shape": list(t.shape), "count": t.count, "buffer": t.buffer} for t in count.tensors]


def kinds(count: "Count") -> Mapping[str, int]:
    """Parameters of each kind of component, largest first."""
    found: dict[str, int] = {}
    for row in count.rows:
        found[row.kind] = found.get(row.kind, 0) + (0 if row.buffer else row.total)
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def remark(row: "Row", repeats: bool = False) -> str:
    """What a table says of a row; with `repeats` also how many layers have it, where no other line does."""
    found = [row.note] if row.note else []
    if repeats and row.repeat > 1:
        found.append(f"shared by {row.repeat} layers" if row.copies == 1 else f"x {row.repeat} layers")
    return "; ".join([*found, *(["buffer"] if row.buffer else [])])


def _record(row: "Row") -> dict[str, Any]:
    return {
        "module": row.module,
        "kind": row.kind,
        "shape": row.shape,
        "count": row.count,
        "copies": row.copies,
        "total": row.total,
        "note": remark(row, repeats=True),
    }


def frame(found: list[dict[str, Any]]) -> Any:
    """Records as a pandas.DataFrame; pandas is imported here and nowhere else.

    Raises:
        MissingError: pandas is not installed.
    """
    try:
        from pandas import DataFrame
    except ModuleNotFoundError as error:
        if error.name != "pandas":
            raise
        raise MissingError("to_pandas needs pandas: pip install pandas", name="pandas") from None
    return DataFrame.from_records(found)
