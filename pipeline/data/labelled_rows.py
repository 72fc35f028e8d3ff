"""Rows of a CSV or Parquet table: a sample, its label, its domain and its split.

A table names each row's split in a column; a folder of tables (the Hugging Face layout) names it
in the file: ``train-00000-of-00002.parquet``, ``test.csv``.
"""

import csv
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.data.assemble import HeldOutOptions, Pool, Rules, assemble
from pipeline.data.split import Benchmark, Rows, Source
from pipeline.types import InputError

KNOWN = ("train", "val", "id_test")
SUFFIXES = (".csv", ".parquet")
BLANK = ("\n", "\r\n", "\r")
FRACTION = re.compile(r"-?\d+\.\d+")


@dataclass(frozen=True)
class Columns:
    """What a table calls its columns."""

    value: str
    """The sample: a file's path, or a text."""
    label: str
    domain: str | None
    split: str | None
    """None where files, not rows, belong to splits."""

    @property
    def named(self) -> list[str]:
        """Those that must be there."""
        return [n for n in (self.value, self.label, self.domain, self.split) if n is not None]


@dataclass(frozen=True)
class LabelledRow:
    """One row of a table."""

    number: int
    """Its place among all rows of all files."""
    value: str
    label: str
    domain: str
    split: str


def tables_in(path: Path) -> list[tuple[Path, str | None]]:
    """The table itself, or a folder's tables with the splits that their names begin with."""
    if path.is_file():
        return [(path, None)]
    places = (path, path / "data")
    files = sorted(f for place in places for f in place.glob("*") if f.suffix in SUFFIXES)
    if not files:
        raise InputError(f"no .csv or .parquet file in {path}.", "benchmark.path")
    return [(file, file.stem.split("-")[0]) for file in files]


def read_rows(
    tables: Sequence[tuple[Path, str | None]], columns: Columns, splits: Mapping[str, str | None]
) -> list[LabelledRow]:
    """The rows of every table but those whose split ``splits`` maps to None.

    Raises :class:`InputError` naming file and row of a missing value, missing columns, and names
    of splits that mean nothing here.
    """
    rows, number = [], 0
    for file, named in tables:
        for place, record in _records(file, columns):
            if any(_missing(record[column]) for column in columns.named):
                raise InputError(f"{file}, {place}: a value is missing.", "benchmark.path")
            split = _split(str(record[columns.split] if columns.split else named), splits)
            domain = "" if columns.domain is None else str(record[columns.domain])
            value, label = str(record[columns.value]), record[columns.label]
            if split is not None:
                label = _class_name(label, f"{file}, {place}")
                rows.append(LabelledRow(number, value, label, domain, split))
            number += 1
    if not any(row.split == "train" for row in rows):
        shown = ", ".join(file.name for file, _ in tables)
        raise InputError(f"{shown}: no row of split train.", "benchmark.splits")
    return rows


def benchmark_of(
    name: str,
    rows: Sequence[LabelledRow],
    source: Source,
    positions: Rows,
    options: HeldOutOptions,
    *,
    domains: bool,
) -> Benchmark:
    """The splits that the rows name, and ``val`` held out of ``train`` where none names it.

    ``positions`` are the rows' places in ``source``; order is stratified by class and domain.
    """
    classes = _sorted_names({row.label for row in rows if row.split == "train"})
    _refuse_unknown_labels(rows, classes)
    groups = _sorted_names({row.domain for row in rows})
    labels = _places([row.label for row in rows], classes)
    group = _places([row.domain for row in rows], groups)
    split_of = np.array([row.split for row in rows])
    pools = {}
    for split in sorted(set(split_of.tolist()), key=_order):
        chosen = np.flatnonzero(split_of == split)
        strata = labels[chosen] * len(groups) + group[chosen]
        pools[split] = Pool(source, positions[chosen], labels[chosen], strata, group[chosen])
    names = groups if domains else []
    return assemble(name, classes, pools, Rules.of(options), group_names=names)


def column_values(file: Path, column: str) -> list[str]:
    """One column of a table, every row of it."""
    columns = Columns(column, column, None, None)
    return [str(record[column]) for _, record in _records(file, columns)]


def _records(file: Path, columns: Columns) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each row's place in the file, in words, and its values by column."""
    read = _parquet_records if file.suffix == ".parquet" else _csv_records
    yield from read(file, columns)


def _csv_records(file: Path, columns: Columns) -> Iterator[tuple[str, Mapping[str, Any]]]:
    lines: list[str] = []  # of the record that is being read

    def kept(opened: Iterable[str]) -> Iterator[str]:
        for line in opened:
            lines.append(line)
            yield line

    start = 1
    try:
        with file.open(newline="", encoding="utf-8-sig") as opened:
            reader = csv.DictReader(kept(opened))
            if reader.fieldnames is None:
                raise InputError(
                    f"{file} is empty: expected a line of column names.", "benchmark.path"
                )
            _refuse_missing_columns(file, reader.fieldnames, columns)
            start = reader.line_num + 1
            lines.clear()
            for record in reader:
                start += len(list(takewhile(lambda line: line in BLANK, lines)))  # are no rows
                if len(lines) > 1:
                    _refuse_unclosed(lines)
                yield f"line {start}", record
                start = reader.line_num + 1
                lines.clear()
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(
            f"{file} is no CSV table: {error} (in the row that starts at line {start})",
            "benchmark.path",
        ) from None


def _refuse_unclosed(lines: Sequence[str]) -> None:
    """An unclosed quote takes everything up to the file's end for one value, without an error."""
    try:
        list(csv.reader(lines, strict=True))
    except csv.Error as error:
        if str(error) == "unexpected end of data":
            raise csv.Error("a quote is not closed") from None


def _parquet_records(file: Path, columns: Columns) -> Iterator[tuple[str, Mapping[str, Any]]]:
    try:
        opened = pq.ParquetFile(file)
        _refuse_missing_columns(file, opened.schema_arrow.names, columns)
        row = 0
        for batch in opened.iter_batches(columns=list(dict.fromkeys(columns.named))):
            for record in batch.to_pylist():
                yield f"row {row}", record
                row += 1
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{file} is no Parquet table: {error}", "benchmark.path") from None


def _refuse_missing_columns(file: Path, found: Sequence[str], columns: Columns) -> None:
    missing = [name for name in columns.named if name not in found]
    if missing:
        raise InputError(
            f"{file} has no column {', '.join(missing)}; its columns are {', '.join(found)}. Say "
            "what they are called (domain: null where there is none).",
            "benchmark.columns",
        )
    twice = sorted({name for name in columns.named if list(found).count(name) > 1})
    if twice:
        raise InputError(
            f"{file} has the column {', '.join(twice)} twice: which one is meant? Rename one.",
            "benchmark.columns",
        )


def _missing(value: Any) -> bool:
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def _class_name(label: Any, place: str) -> str:
    """A label as a class's name: a whole number, however written, by its digits.

    pandas turns a column of whole numbers with a missing value into floats, so 1.0 is class "1".
    Other fractions are refused: they are targets, not classes.
    """
    text = str(label)
    if not (isinstance(label, float) or FRACTION.fullmatch(text)):
        return text
    if float(text).is_integer():
        return str(int(float(text)))
    raise InputError(
        f"{place}: the label {text} is no class: classes are names or whole numbers. The targets "
        "of a regression go into an archive (kind: arrays); a name such as v1.5 is a class.",
        "benchmark.path",
    )


def _split(name: str, splits: Mapping[str, str | None]) -> str | None:
    split = splits.get(name, name)
    if split is None or split in KNOWN or split.startswith("ood_"):
        return split
    raise InputError(
        f"the table's split {name!r} is none of train, val, id_test, ood_…. Say what it is with "
        f"splits: {{{name}: ood_test}}, or leave it out with null.",
        "benchmark.splits",
    )


def _order(split: str) -> tuple[int, str]:
    return (KNOWN.index(split) if split in KNOWN else len(KNOWN), split)


def _sorted_names(names: set[str]) -> list[str]:
    """Numbers by value, other names by alphabet."""
    numeric = all(name.isdecimal() for name in names)
    return sorted(names, key=lambda name: (int(name) if numeric else 0, name))


def _places(names: Sequence[str], among: Sequence[str]) -> Rows:
    position = {name: i for i, name in enumerate(among)}
    return np.array([position[name] for name in names], dtype=np.int64)


def _refuse_unknown_labels(rows: Sequence[LabelledRow], classes: Sequence[str]) -> None:
    for split in sorted({row.split for row in rows}):
        unknown = {row.label for row in rows if row.split == split} - set(classes)
        if unknown:
            raise InputError(
                f"split {split} has labels that no training row has: "
                f"{', '.join(_sorted_names(unknown)[:10])}.",
                "benchmark.path",
            )
