"""``entk features``: what stored features hold, computed out of core by Dask."""

from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Column, Table

from pipeline.types import InputError

features = typer.Typer(
    no_args_is_help=True,
    help="Statistics of stored features, in bounded memory; a run's features.json names stores.",
)

console = Console()

Stores = Annotated[list[str], typer.Argument(help="Folders of feature stores, or their URLs.")]
Store = Annotated[str, typer.Argument(help="Folder of a feature store, or its URL.")]
Memory = Annotated[
    str,
    typer.Option(
        "--memory",
        help="What the work may take, on top of about 300 MiB for Python and its libraries.",
    ),
]
Address = Annotated[
    str | None,
    typer.Option("--address", help="A running Dask scheduler, such as tcp://host:8786."),
]
Rank = Annotated[int, typer.Option("--rank", help="How many eigenvalues.")]
Seed = Annotated[int, typer.Option("--seed", help="Seed of the random projection.")]

ENOUGH = "2GiB"


@features.command()
def stats(stores: Stores, memory: Memory = ENOUGH, address: Address = None) -> None:
    """Column norms and non-finite entries; exit code 1 where anything is not finite.

    Example: `entk features stats runs/cache/features-*`
    """
    from pipeline.analyses.stored import column_stats, out_of_core
    from pipeline.store import FeatureStore

    names = ("rows", "columns", "not finite", "zero columns", "least", "median", "largest")
    store_name = Column("store", overflow="fold")  # cut, the names would be all alike
    table = Table(store_name, *names, title="columns of Φ and their norms", title_justify="left")
    bad = 0
    opened = [FeatureStore.open(path) for path in stores]
    with out_of_core(opened, _bytes(memory), address):
        for path, store in zip(stores, opened, strict=True):
            found = column_stats(store)
            bad += (count := int(found.nonfinite.sum()))
            shown = np.quantile(found.norms, [0, 0.5, 1])
            zeros = int((found.norms == 0).sum())
            numbers = (*store.shape, count, zeros)
            table.add_row(_name(path), *(f"{x:,}" for x in numbers), *(f"{x:.3g}" for x in shown))
    console.print(table)
    if bad:
        raise typer.Exit(1)


@features.command()
def drift(before: Store, after: Store, memory: Memory = ENOUGH, address: Address = None) -> None:
    """How far the features of the same rows moved between two revisions of a model.

    Example: `entk features drift runs/cache/features-1f… runs/cache/features-9c…`
    """
    from pipeline.analyses.stored import drift as measured
    from pipeline.analyses.stored import out_of_core
    from pipeline.store import FeatureStore

    pair = FeatureStore.open(before), FeatureStore.open(after)
    with out_of_core(pair, _bytes(memory), address):
        found = measured(*pair)
    console.print(f"‖Φ after − Φ before‖ / ‖Φ before‖  {found.relative:.4f}")
    console.print(f"mean cosine of a row with itself   {found.cosine:.4f}")


@features.command()
def spectrum(
    store: Store,
    rank: Rank = 20,
    seed: Seed = 0,
    memory: Memory = ENOUGH,
    address: Address = None,
) -> None:
    """Largest eigenvalues of K = ΦΦᵀ, by randomized SVD.

    Example: `entk features spectrum runs/cache/features-1f… --rank 50`
    """
    from pipeline.analyses.stored import out_of_core, spectrum_vectors
    from pipeline.analyses.stored import spectrum as eigenvalues
    from pipeline.store import FeatureStore

    opened = FeatureStore.open(store)
    with out_of_core([opened], _bytes(memory), address, vectors=spectrum_vectors(rank)):
        found = eigenvalues(opened, rank, seed=seed)
    table = Table(
        "eigenvalue", "of the largest", title=f"K of {_name(store)}", title_justify="left"
    )
    for value in found:
        table.add_row(f"{value:.6g}", f"{value / found[0]:.3g}")
    console.print(table)


def _name(store: str) -> str:
    return store.rstrip("/").rpartition("/")[2]


def _bytes(text: str) -> int:
    from pipeline.planner.limits import parse_bytes

    try:
        return parse_bytes(text)
    except ValueError as error:
        raise InputError(str(error), "--memory") from None
