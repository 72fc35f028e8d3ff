"""Images listed in a CSV table with path, label, domain and split, as the WILDS benchmarks are.

Koh et al. 2021, "WILDS: A Benchmark of in-the-Wild Distribution Shifts". A table may name several
OOD splits; domains give worst-group accuracy.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from pipeline.config import Options
from pipeline.data.assemble import FileBenchmarkOptions, Pool, Rules, assemble
from pipeline.data.image_folder import FolderSource
from pipeline.data.locate import require_file, require_folder
from pipeline.data.preprocess import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    PreprocessOptions,
    over_default,
)
from pipeline.data.split import Benchmark, Rows
from pipeline.types import InputError

EXPECTED = "a CSV table with a header and the columns path, label, split and, optionally, domain"
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
    """Images listed in a CSV table, with domains."""

    kind: Literal["table"] = "table"
    path: str
    """The CSV file."""
    root: str | None = None
    """Folder that the table's paths start from; null is the table's own folder."""
    columns: ColumnNames = ColumnNames()
    """What the table calls its columns."""
    splits: dict[str, str | None] = Field(default_factory=dict)
    """The table's split name → train, val, id_test or ood_…; null leaves its rows out."""
    preprocess: Annotated[PreprocessOptions, over_default(PREPROCESS)] = PREPROCESS
    """Preprocessing; the default is ImageNet's usual one at evaluation."""


@dataclass(frozen=True)
class _Line:
    file: str
    label: str
    domain: str
    split: str


def build(options: TableOptions) -> Benchmark:
    """The splits that the table names, and ``val`` held out of ``train`` where it names none."""
    table = require_file(options.path, EXPECTED)
    root = require_folder(
        options.root or table.parent, "the images of the table", "set it to them", "benchmark.root"
    )
    lines = _read(table, options)
    classes = _sorted_names({line.label for line in lines if line.split == "train"})
    _refuse_unknown_labels(lines, classes)
    domains = _sorted_names({line.domain for line in lines})
    source = FolderSource(root, tuple(line.file for line in lines))
    labels = _positions([line.label for line in lines], classes)
    groups = _positions([line.domain for line in lines], domains)
    split_of = np.array([line.split for line in lines])
    pools = {}
    for split in sorted(set(split_of.tolist()), key=_order):
        rows = np.flatnonzero(split_of == split).astype(np.int64)
        strata = labels[rows] * len(domains) + groups[rows]
        pools[split] = Pool(source, rows, labels[rows], strata, groups[rows])
    names = domains if options.columns.domain is not None else []
    return assemble(table.stem, classes, pools, Rules.of(options), group_names=names)


def _read(table: Path, options: TableOptions) -> list[_Line]:
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            _refuse_missing_columns(table, reader.fieldnames or [], options.columns)
            read = [_line(record, f"{table}, line {reader.line_num}", options) for record in reader]
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{table} is no CSV table: {error}", "benchmark.path") from None
    lines = [line for line in read if line is not None]
    if not any(line.split == "train" for line in lines):
        raise InputError(f"{table} has no row of split train.", "benchmark.splits")
    return lines


def _line(record: Mapping[str, str | None], where: str, options: TableOptions) -> _Line | None:
    """One row of the table; None of a split that the config leaves out."""
    columns = options.columns
    names = (columns.path, columns.label, columns.domain, columns.split)
    values = ["" if name is None else record[name] for name in names]
    if any(name is not None and not value for name, value in zip(names, values, strict=True)):
        raise InputError(f"{where}: a value is missing.", "benchmark.path")
    path, label, domain, named_split = (value or "" for value in values)
    split = _split(named_split, options)
    return None if split is None else _Line(path, label, domain, split)


def _refuse_missing_columns(table: Path, found: Sequence[str], columns: ColumnNames) -> None:
    missing = [name for name in columns.model_dump().values() if name and name not in found]
    if missing:
        raise InputError(
            f"{table} has no column {', '.join(missing)}; its columns are {', '.join(found)}. Say "
            "what they are called (domain: null where there is none).",
            "benchmark.columns",
        )


def _split(name: str, options: TableOptions) -> str | None:
    split = options.splits.get(name, name)
    if split is None or split in ("train", "val", "id_test") or split.startswith("ood_"):
        return split
    raise InputError(
        f"the table's split {name!r} is none of train, val, id_test, ood_…. Say what it is with "
        f"splits: {{{name}: ood_test}}, or leave it out with null.",
        "benchmark.splits",
    )


def _order(split: str) -> tuple[int, str]:
    known = ("train", "val", "id_test")
    return (known.index(split) if split in known else len(known), split)


def _sorted_names(names: set[str]) -> list[str]:
    """Numbers by value, other names by alphabet."""
    numeric = all(name.isdecimal() for name in names)
    return sorted(names, key=lambda name: (int(name) if numeric else 0, name))


def _positions(names: Sequence[str], among: Sequence[str]) -> Rows:
    position = {name: i for i, name in enumerate(among)}
    return np.array([position[name] for name in names], dtype=np.int64)


def _refuse_unknown_labels(lines: Sequence[_Line], classes: Sequence[str]) -> None:
    for split in sorted({line.split for line in lines}):
        unknown = {line.label for line in lines if line.split == split} - set(classes)
        if unknown:
            raise InputError(
                f"split {split} has labels that no training row has: "
                f"{', '.join(_sorted_names(unknown)[:10])}.",
                "benchmark.path",
            )
