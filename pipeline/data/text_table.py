"""Texts in CSV or Parquet tables, tokenized by a tokenizer from a local folder.

One table with a column that names each row's split, or a folder with a table for each split (the
Hugging Face layout): ``train-00000-of-00001.parquet``, ``test-00000-of-00001.parquet``.
"""

from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from pipeline.config import Options
from pipeline.data.assemble import HeldOutOptions
from pipeline.data.labelled_rows import Columns, benchmark_of, read_rows, tables_in
from pipeline.data.split import Benchmark
from pipeline.data.texts import TextSource
from pipeline.data.tokens import TokenizeOptions
from pipeline.types import InputError


class TextColumnNames(Options):
    """What the tables call their columns."""

    text: str = "text"
    """The text of a sample."""
    label: str = "label"
    """Class, a number or a name."""
    domain: str | None = None
    """Domain, for worst-group accuracy; null where there is none."""
    split: str = "split"
    """Split of a row, see `splits`; not needed where files belong to splits."""


class TextTableOptions(HeldOutOptions):
    """Texts in tables."""

    kind: Literal["text_table"] = "text_table"
    path: str
    """A .csv or .parquet file, or a folder of them named by split."""
    columns: TextColumnNames = TextColumnNames()
    """What the tables call their columns."""
    splits: dict[str, str | None] = Field(default_factory=dict)
    """The tables' split name → train, val, id_test or ood_…; null leaves its rows out."""
    preprocess: TokenizeOptions
    """How texts become tokens."""


def build(options: TextTableOptions) -> Benchmark:
    """The splits that the tables name, and ``val`` held out of ``train`` where they name none."""
    path = Path(options.path).expanduser().resolve()
    if not path.exists():
        raise InputError(
            f"nothing at {path}. It should be a .csv or .parquet file with the columns text, "
            "label and split, or a folder of such files named by split.",
            "benchmark.path",
        )
    tables, names = tables_in(path), options.columns
    by_file = tables[0][1] is not None
    columns = Columns(names.text, names.label, names.domain, None if by_file else names.split)
    rows = read_rows(tables, columns, options.splits)
    source = TextSource(tuple(file for file, _ in tables), names.text)
    positions = np.array([row.number for row in rows], dtype=np.int64)
    domains = names.domain is not None
    return benchmark_of(path.stem, rows, source, positions, options, domains=domains)
