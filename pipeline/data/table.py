"""Images listed in a CSV or Parquet table with path, label, domain and split, as WILDS has them.

Koh et al. 2021, "WILDS: A Benchmark of in-the-Wild Distribution Shifts". A table may name several
OOD splits; domains give worst-group accuracy.
"""

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from pipeline.config import Options
from pipeline.data.assemble import FileBenchmarkOptions
from pipeline.data.image_folder import FolderSource
from pipeline.data.labelled_rows import Columns, benchmark_of, read_rows
from pipeline.data.locate import require_file, require_folder
from pipeline.data.preprocess import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    PreprocessOptions,
    over_default,
)
from pipeline.data.split import Benchmark

EXPECTED = "a CSV or Parquet table with the columns path, label, split and, optionally, domain"
PREPROCESS = PreprocessOptions(resize=256, crop=224, mean=IMAGENET_MEAN, std=IMAGENET_STD)


class ColumnNames(Options):
    """What the table calls its columns."""

    path: str = "path"
    """Image file, relative to the root."""
    label: str = "label"
    """Class, a number or a name."""
    domain: str | None = "domain"
    """Domain, for worst-group accuracy; null where the table has none."""
    split: str = "split"
    """Split, see `splits`."""


class TableOptions(FileBenchmarkOptions):
    """Images listed in a table, with domains."""

    kind: Literal["table"] = "table"
    path: str
    """The .csv or .parquet file."""
    root: str | None = None
    """Folder that the table's paths start from; null is the table's own folder."""
    columns: ColumnNames = ColumnNames()
    """What the table calls its columns."""
    splits: dict[str, str | None] = Field(default_factory=dict)
    """The table's split name → train, val, id_test or ood_…; null leaves its rows out."""
    preprocess: Annotated[PreprocessOptions, over_default(PREPROCESS)] = PREPROCESS
    """Preprocessing; the default is ImageNet's usual one at evaluation."""


def build(options: TableOptions) -> Benchmark:
    """The splits that the table names, and ``val`` held out of ``train`` where it names none."""
    table = require_file(options.path, EXPECTED)
    root = require_folder(
        options.root or table.parent, "the images of the table", "set it to them", "benchmark.root"
    )
    names = options.columns
    columns = Columns(names.path, names.label, names.domain, names.split)
    rows = read_rows([(table, None)], columns, options.splits)
    source = FolderSource(root, tuple(row.value for row in rows))
    positions = np.arange(len(rows), dtype=np.int64)
    domains = names.domain is not None
    return benchmark_of(table.stem, rows, source, positions, options, domains=domains)
