"""A progress bar with rate and time left, for people who watch."""

import contextlib
from collections.abc import Iterator

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from pipeline.log import BlockDone


class ProgressBars:
    """One bar a stage."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}
        self._computed: dict[str, int] = {}

    def start(self, stage: str, total: int, done: int = 0, unit: str = "rows") -> None:
        """Show a bar, with what was done before already filled in."""
        self._tasks[stage] = self._bars.add_task(
            stage, total=total, completed=done, unit=unit, rate=""
        )
        self._computed[stage] = 0

    def advance(self, event: BlockDone) -> None:
        """Move the bar of the event's stage."""
        task = self._tasks[event.stage]
        self._computed[event.stage] += event.rows
        # Numbers of bars go on counting when bars are taken away: they are no positions.
        elapsed = next(bar.elapsed for bar in self._bars.tasks if bar.id == task) or 0.0
        rate = f"{self._computed[event.stage] / elapsed:.1f}/s" if elapsed > 0 else ""
        self._bars.update(task, advance=event.rows, rate=rate)

    def finish(self, stage: str) -> None:
        """Take the bar away; the log keeps the stage's one line."""
        self._bars.remove_task(self._tasks.pop(stage))


@contextlib.contextmanager
def progress_bars() -> Iterator[ProgressBars]:
    """Bars on the terminal while the block runs; none where the output is a file."""
    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]} {task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, transient=True) as bars:
        yield ProgressBars(bars)
