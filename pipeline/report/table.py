"""The table of results for the terminal."""

from pathlib import Path

from rich import box
from rich.table import Table as RichTable
from rich.text import Text

from pipeline.report.record import Run, read_run
from pipeline.report.results import Cell, Row, results_table

WIDTH = 80
"""Characters of a terminal's line."""
GAP = 3
"""Between two columns."""
METHOD, SCORE, SELECTED = 20 + GAP, 10 + GAP, 20 + GAP
"""Least widths of a method's name, of a score, and of what was selected."""


def terminal_table(run: Run | Path, width: int = WIDTH) -> RichTable:
    """Every method's leading metric per split with ± one standard error; the best is bold.

    What was selected stands at the end where ``width`` characters leave room for it.
    """
    run = read_run(run) if isinstance(run, Path) else run
    table = results_table(run)
    rendered = RichTable(
        title=f"{run.name} · {run.benchmark}",
        caption=(
            f"{table.columns[0].unit if table.columns else ''}; ± one standard error; "
            f"chosen on {run.selection}; bold: best of its column"
        ),
        box=box.SIMPLE_HEAD,
        title_style="bold",
    )
    rendered.add_column("method", min_width=METHOD - GAP)
    for column in table.columns:
        n = f"\nn = {column.n:,}" if column.n is not None else ""
        rendered.add_column(f"{column.label}{n}", justify="right", no_wrap=True)
    roomy = width >= METHOD + SCORE * len(table.columns) + SELECTED
    if roomy:
        rendered.add_column("selected", style="dim", min_width=SELECTED - GAP)
    for row in table.rows:
        rendered.add_row(row.label, *map(_text, row.cells), *([row.detail] if roomy else []))
    if table.published:
        rendered.add_section()
        for row in table.published:
            cells = _published(row)
            rendered.add_row(*(cells if roomy else cells[:-1]), style="dim")
    return rendered


def _text(cell: Cell) -> Text:
    return Text(str(cell), style="bold green" if cell.best else "")


def _published(row: Row) -> list[str]:
    return [row.label, *(str(cell) for cell in row.cells), row.detail]
