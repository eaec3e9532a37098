"""Tables of a comparison: for the terminal, and in Markdown."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from cbtrain.console import table_of

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

Rows = tuple[list[str], list[list[str]]]
"""The heads of a table, and its rows."""


def markdown(tables: Iterable[Rows]) -> list[str]:
    """Return the lines of ``tables``, with an empty one after each."""
    lines = []
    for heads, rows in tables:
        lines += ["| " + " | ".join(cells) + " |" for cells in (heads, ["---"] * len(heads), *rows)] + [""]
    return lines


def print_tables(tables: Iterable[Rows], console: Console) -> None:
    for heads, rows in tables:
        table: Table = table_of(*heads)
        for row in rows:
            table.add_row(*row)
        console.print(table)
