"""``entk refeaturize`` and ``entk gc``: thin shells over one function each."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

from pipeline.log import configure_logging

console = Console()

RegistryFile = Annotated[
    Path, typer.Argument(help="A YAML registry of models, benchmarks and sketches; see the README.")
]
Out = Annotated[
    Path | None,
    typer.Option("--out", help="Folder of the schedule.  [default: runs/schedules/NAME]"),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Log more.")]

FAILED = 1
"""Exit code where a cell could not be scored."""


def refeaturize(registry: RegistryFile, out: Out = None, verbose: Verbose = False) -> None:
    """Score every model × benchmark × sketch of a registry that is new or has changed.

    A checkpoint is known by its content: a changed one is a new revision, an unchanged one costs
    seconds. Safe to start twice. Exit code 1 means that a model failed; the others are done.

    Example: `entk refeaturize weekly.yaml`
    """
    from pipeline.progress import progress_bars
    from pipeline.schedule.options import load_registry
    from pipeline.schedule.refeaturize import refeaturize as visit_all
    from pipeline.store.place import on_disk

    configure_logging(verbose=verbose)
    loaded = load_registry(registry)
    folder = on_disk(out or Path("runs/schedules") / loaded.name)
    with progress_bars() as progress:
        outcomes = visit_all(loaded, folder, progress)
    detail = Column(overflow="fold")  # cut, a message would lose the file that it speaks of
    table = Table("model", "benchmark", "sketch", "state", detail, title=loaded.name)
    for outcome in outcomes:
        table.add_row(*outcome.task, outcome.state, outcome.detail)
    console.print(table)
    console.print(f"Comparison: {folder / 'leaderboard.html'}")
    if any(outcome.state == "failed" for outcome in outcomes):
        raise typer.Exit(FAILED)


def gc(
    registry: RegistryFile, out: Out = None, dry_run: DryRun = False, verbose: Verbose = False
) -> None:
    """Remove features and kernels of revisions that the registry's `retention` does not keep.

    Scores and reports stay. Look first: `entk gc weekly.yaml --dry-run`
    """
    from pipeline.schedule.options import load_registry
    from pipeline.schedule.retention import collect
    from pipeline.store.place import on_disk

    configure_logging(verbose=verbose)
    loaded = load_registry(registry)
    folder = on_disk(out or Path("runs/schedules") / loaded.name)
    found = collect(loaded, folder, dry_run=dry_run)
    for item in found:
        entry = item.entry
        console.print(
            f"{item.path}  {item.bytes / 1e6:.1f} MB  {entry.task}, revision {entry.revision} of "
            f"{entry.date}",
            soft_wrap=True,
            highlight=False,
        )
    verb = "would be removed" if dry_run else "removed"
    total = sum(item.bytes for item in found)
    console.print(f"{len(found)} folders, {total / 1e6:.1f} MB {verb}.")
