"""``entk analyse``: one command a study, each over one config, and the query for a person."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from pipeline.config import apply_overrides, expand_environment, read_yaml, validated
from pipeline.log import configure_logging
from pipeline.studies.names import STUDIES

analyse = typer.Typer(
    no_args_is_help=True,
    help="What the kernel tells about networks, samples and tasks: one study a config.",
)

console = Console()

Config = Annotated[
    Path, typer.Argument(help="A YAML config, such as configs/analyses/active.yaml.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a config key: `rounds=3`."),
]
Out = Annotated[
    Path | None, typer.Option("--out", help="Folder of the study.  [default: runs/analyses/NAME]")
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Log more.")]

CHATTY = ("pipeline.solvers", "pipeline.jacobian")
"""Rooms that a study calls hundreds of times; what they log is for ``--verbose``."""


def _command(name: str) -> Callable[..., None]:
    def command(
        config: Config, overrides: Overrides = None, out: Out = None, verbose: Verbose = False
    ) -> None:
        from pipeline.progress import progress_bars
        from pipeline.runs import RunFolder
        from pipeline.studies.findings_table import TABLE, print_table
        from pipeline.studies.study import run_study, study_of

        configure_logging(verbose=verbose)
        for room in CHATTY:
            logging.getLogger(room).setLevel(logging.NOTSET if verbose else logging.WARNING)
        study = study_of(name)
        values = expand_environment(apply_overrides(read_yaml(config), overrides or ()))
        values["name"] = values.get("name") or config.stem
        options = validated(study.options, values, str(config))
        folder = RunFolder(out or Path("runs/analyses") / options.name)
        with progress_bars() as progress:
            result = run_study(study, options, folder, progress)
        print_table(console, result)
        for note in result["notes"]:
            console.print(f"- {note}")
        console.print(f"Figures: {folder.path / 'figures'}; table: {folder.path / TABLE}")

    command.__doc__ = (
        f"{STUDIES[name]}\n\n"
        "Running it again continues: finished cells are kept.\n\n"
        f"Example: `entk analyse {name} configs/analyses/{name}.yaml`"
    )
    return command


for _name in STUDIES:
    analyse.command(_name)(_command(_name))


@analyse.command()
def query(
    pool: Annotated[
        Path, typer.Option("--pool", help="A run's folder: its train split is the pool.")
    ],
    classes: Annotated[
        str, typer.Option("--classes", help="Names of the classes, separated by commas.")
    ],
    labels: Annotated[
        Path | None, typer.Option("--labels", help="CSV of answers so far, columns id,label.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="CSV of questions, to be filled in.")] = Path(
        "questions.csv"
    ),
    rule: Annotated[str, typer.Option("--rule", help="How to choose.")] = "mlmoc",
    size: Annotated[int, typer.Option("--size", min=1, help="Samples to ask for.")] = 10,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of what is left to chance.")] = 0,
) -> None:
    """Say which samples to label next: a person, or any program, is the oracle.

    Fill in the labels, append them to the answers, and ask again.

    Example: `entk analyse query --pool runs/quickstart --classes five,six,seven,eight,nine
    --labels answers.csv`
    """
    from pipeline.analyses.answers import write_questions
    from pipeline.studies.query import next_queries
    from pipeline.studies.runs import FinishedRun

    configure_logging()
    store = FinishedRun.open(pool).store("train")
    names = [name.strip() for name in classes.split(",")]
    found = next_queries(store, labels, names, rule=rule, size=size, seed=seed)
    write_questions(out, found.ids)
    for name, predicted in zip(found.ids, found.predicted, strict=True):
        suggestion = f"  (so far: {names[predicted]})" if found.answered else ""
        console.print(f"{name}{suggestion}", highlight=False, markup=False)
    console.print(f"{found.answered} answers read; {len(found.ids)} questions in {out}")
