"""The one table that benchmarks print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

COLUMNS = ("what", "measured", "bar", "note")


def print_table(rows: Sequence[Mapping[str, object]]) -> None:
    """Print rows with the columns what, measured, bar and note."""
    table = Table(*COLUMNS)
    for row in rows:
        table.add_row(*(str(row.get(column, "")) for column in COLUMNS))
    Console(width=140).print(table)
