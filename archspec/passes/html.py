"""Tables as HTML, for notebooks."""

from collections.abc import Sequence


def html_table(lines: Sequence[Sequence[str]], caption: str) -> str:
    """A table whose first line is its header."""
    from html import escape  # which brings a table of all entities

    header, *body = lines
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    rows = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in line)}</tr>" for line in body)
    return f"<table><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
