"""The command line: few verbs over one config; values live in the config and in --set."""

import errno
import logging
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from pipeline import __version__
from pipeline.log import configure_logging
from pipeline.schedule.command import gc, refeaturize
from pipeline.studies.command import analyse
from pipeline.studies.features_command import features
from pipeline.types import InputError

app = typer.Typer(
    name="entk",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="""
    Empirical-NTK features of pretrained networks, and kernel ridge regression on them.

    `entk run configs/quickstart.yaml` computes the gradient of every image, solves the ridge
    regression for the whole path of regularization, and prints the ID/OOD table.

    Stop it whenever you like: the same command continues where it stopped.
    """,
)
FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
INTERRUPTED = 130

logger = logging.getLogger(__name__)

WIDE = 150
"""Columns of a terminal that the table of sizes needs."""

console = Console()
errors = Console(stderr=True)

Config = Annotated[Path, typer.Argument(help="A YAML config, such as configs/quickstart.yaml.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change a config key: `sketch.size=200000`. May be repeated.",
    ),
]
Out = Annotated[Path | None, typer.Option("--out", help="Folder of the run.  [default: runs/NAME]")]
Page = Annotated[
    Path | None,
    typer.Option(
        "--out",
        help="Page to write: the comparison of several runs [default: runs/comparison.html], or a "
        "copy of one run's report.",
    ),
]
Server = Annotated[
    str | None,
    typer.Option("--uri", help="MLflow server or store.  [default: $MLFLOW_TRACKING_URI]"),
]
Experiment = Annotated[str, typer.Option("--experiment", help="MLflow's name for the group.")]
Run = Annotated[Path, typer.Argument(help="Folder of a run, such as runs/quickstart.")]
Runs = Annotated[list[Path], typer.Argument(help="One run to report, or several to compare.")]
Finished = Annotated[list[Path], typer.Argument(help="Folders of finished runs to log.")]
MachineFile = Annotated[
    Path | None,
    typer.Option(
        "--machine", help="YAML with cores, memory, GPUs and measured rates of a machine."
    ),
]
Scale = Annotated[
    bool, typer.Option("--scale", help="Also 50 k to 1.3 M rows on 1, 8 and 64 devices.")
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Log more.")]


def _version(asked: bool) -> None:
    if asked:
        console.print(f"entk {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print and exit.")
    ] = False,
) -> None:
    """Options of entk itself; its help text is the app's."""


@app.command()
def run(
    config: Config, overrides: Overrides = None, out: Out = None, verbose: Verbose = False
) -> None:
    """Do the whole job: features → kernel → ridge path → ID/OOD table → report.

    Running it again continues, or, when everything is done, only prints the table. Exit code 0
    means that the table is complete.

    Example: `entk run configs/cifar100_superclasses.yaml --set benchmark.limit.train=1000`
    """
    from pipeline.progress import progress_bars
    from pipeline.registry import load_config
    from pipeline.report.table import terminal_table
    from pipeline.runs import RunFolder
    from pipeline.stages.run import run_job

    configure_logging(verbose=verbose)
    resolved = load_config(config, overrides or ())
    folder = RunFolder(out or Path("runs") / resolved.name)
    with progress_bars() as progress:
        run_job(resolved, folder, progress)
    console.print(terminal_table(folder.path, console.width))
    console.print(f"Report: {folder.path / 'report.html'}")


@app.command()
def plan(
    config: Config,
    overrides: Overrides = None,
    machine: MachineFile = None,
    scale: Scale = False,
    verbose: Verbose = False,
) -> None:
    """Say what a run would take, before anything starts: bytes, memory, FLOPs, strategy.

    Example: `entk plan configs/living17.yaml --machine cluster.yaml --scale`
    """
    from pipeline.planner import read_machine
    from pipeline.planner.machine import described_machine
    from pipeline.registry import load_config
    from pipeline.runs import RunFolder
    from pipeline.stages.job import Silence, make_instrument, make_job
    from pipeline.stages.plan import make_plan, plan_tables, scale_table

    configure_logging(verbose=verbose)
    resolved = load_config(config, overrides or ())
    here = read_machine(resolved.store.root)
    target = here if machine is None else described_machine(machine, here)
    job = make_job(resolved, RunFolder(Path("runs") / resolved.name), Silence())
    instrument = make_instrument(resolved)
    for table in plan_tables(make_plan(job, instrument, target), target):
        console.print(table)
    if scale:
        Console(width=max(console.width, WIDE)).print(scale_table(job, instrument, target))


@app.command()
def status(run: Run) -> None:
    """Show which stages and shards of a run are done, running or missing; works while it runs."""
    from pipeline.runs import RunFolder
    from pipeline.stages.status import status_table

    console.print(status_table(RunFolder(run)))


@app.command()
def report(runs: Runs, out: Page = None) -> None:
    """Write the report of a run again, or a page that compares several runs.

    Example: `entk report runs/quickstart runs/other --out comparison.html`
    """
    from pipeline.report.build import build_report, compare, copy_report
    from pipeline.store.place import on_disk

    if len(runs) == 1:
        page = build_report(runs[0]) if out is None else copy_report(runs[0], on_disk(out))
        console.print(f"Report: {page}")
    else:
        page = on_disk(out or Path("runs") / "comparison.html")
        console.print(f"Comparison: {compare(runs, page)}")


@app.command()
def track(runs: Finished, uri: Server = None, experiment: Experiment = "entk") -> None:
    """Log finished runs to MLflow: config, metrics, timing, report. Safe to repeat.

    Example: `entk track runs/quickstart --uri http://mlflow.example.org`
    """
    from pipeline.report.track import track_run

    for folder in runs:
        logged = track_run(folder, uri=uri, experiment=experiment)
        console.print(f"{folder}: MLflow run {logged}")


# Registered last: help lists commands in this order, and the job comes first.
app.command()(refeaturize)
app.command()(gc)
app.add_typer(analyse, name="analyse")
app.add_typer(features, name="features")


def main() -> None:
    """Run the command line; a user's mistake is one message and exit code 2, never a traceback."""
    try:
        app()
    except InputError as error:
        errors.print(f"error: {error}", style="red", markup=False, highlight=False)
        sys.exit(2)
    except MemoryError:
        errors.print(
            "error: out of memory. Lower limits.memory or features.batch_size.", style="red"
        )
        sys.exit(2)
    except OSError as error:
        if error.errno not in FULL_DISK and error.filename is None:
            raise
        logger.debug("where it happened:", exc_info=True)
        hint = "Free space or move store.root" if error.errno in FULL_DISK else "Check that path"
        place = "" if error.filename is None else f"{error.filename}: "
        message = f"error: {place}{error.strerror}. {hint}; the same command continues."
        errors.print(message, style="red", markup=False, highlight=False)
        sys.exit(2)
    except SystemExit as ended:
        # Typer turns Ctrl-C into this code and says nothing.
        if ended.code == INTERRUPTED:
            errors.print("stopped; the same command continues.")
        raise
