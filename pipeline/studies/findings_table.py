"""A study's table: on the terminal what fits there, in ``table.csv`` all of it."""

import csv
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from pipeline.artefact import atomic_path

TABLE = "table.csv"
LONGEST = 60
"""Rows printed."""
GAP = 3
"""Characters between two columns."""
FRAME = 1
"""Characters at the edges beyond the gaps."""


def write_table(folder: Path, rows: list[dict[str, Any]]) -> None:
    """Every row and column, figures in full."""
    with atomic_path(folder / TABLE) as partial, partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def print_table(console: Console, result: dict[str, Any]) -> None:
    """The table's head, as many columns as fit without a broken word, and what else there is."""
    rows = result["table"]
    widths = {column: _least_width(column, rows) for column in rows[0]}
    columns = _fitting(widths, console.width - FRAME)
    room = console.width - FRAME - sum(widths[column] + GAP for column in columns)
    table = Table(title=result["study"], title_justify="left", box=SIMPLE_HEAD)
    for column in columns:
        # Rich narrows the widest columns first, below the longest word: widths are given to it.
        more = min(_whole_width(column, rows) - widths[column], room)
        room -= more
        table.add_column(column, width=widths[column] + more)
    for row in rows[:LONGEST]:
        table.add_row(*(_shown(row[column]) for column in columns))
    console.print(table)
    left_out = []
    if len(rows) > LONGEST:
        left_out.append(f"{len(rows) - LONGEST} more rows")
    if len(widths) > len(columns):
        left_out.append("the columns " + "; ".join(list(widths)[len(columns) :]))
    if left_out:
        console.print(f"{TABLE} has {' and '.join(left_out)}", highlight=False)


def _least_width(column: str, rows: list[dict[str, Any]]) -> int:
    """Of the longest word."""
    return max(len(word) for text in _texts(column, rows) for word in text.split() or [""])


def _whole_width(column: str, rows: list[dict[str, Any]]) -> int:
    """Of the longest text."""
    return max(map(len, _texts(column, rows)))


def _texts(column: str, rows: list[dict[str, Any]]) -> list[str]:
    return [column, *(_shown(row[column]) for row in rows[:LONGEST])]


def _fitting(widths: dict[str, int], room: int) -> list[str]:
    """The first columns that stand beside each other; one at least."""
    fitting: list[str] = []
    for column, least in widths.items():
        room -= least + GAP
        if room < 0 and fitting:
            break
        fitting.append(column)
    return fitting


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
