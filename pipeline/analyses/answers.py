"""Labels that somebody else gives: a person with a spreadsheet, or any function.

An answers file is CSV with the columns ``id`` and ``label``; a label is a class name or a number.
"""

import csv
from collections.abc import Sequence
from pathlib import Path

from pipeline.types import InputError

COLUMNS = ("id", "label")


def read_answers(path: Path, ids: Sequence[str], classes: Sequence[str]) -> dict[int, int]:
    """Class numbers by position in ``ids``, in the file's order.

    Raises :class:`InputError` for unknown ids, unknown labels, and ids with two different labels.
    """
    if not path.is_file():
        raise InputError(f"no answers at {path}: expected a CSV file with the columns id,label.")
    position, answers = {name: i for i, name in enumerate(ids)}, dict[int, int]()
    unknown = []
    for line, row in enumerate(_rows(path), start=2):
        if row["id"] not in position:
            unknown.append(row["id"])
            continue
        where, label = position[row["id"]], _class_number(row["label"], classes, path, line)
        if answers.setdefault(where, label) != label:
            raise InputError(f"{path} line {line}: {row['id']} is labelled twice, differently.")
    if unknown:
        raise InputError(
            f"{path} answers {len(unknown)} ids that are not in the pool, such as {unknown[0]!r}. "
            f"The pool's ids look like {ids[0]!r}."
        )
    return answers


def write_questions(path: Path, ids: Sequence[str]) -> None:
    """A CSV file with an empty label behind every id, to be filled in."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows((name, "") for name in ids)


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="") as file:
            rows = csv.DictReader(file)
            if rows.fieldnames is None or not set(COLUMNS) <= set(rows.fieldnames):
                found = ", ".join(rows.fieldnames or ()) or "no line"
                raise InputError(f"{path} has the columns {found}, expected id and label.")
            return list(rows)
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is no CSV file in UTF-8: {error}.") from None


def _class_number(label: str | None, classes: Sequence[str], path: Path, line: int) -> int:
    text = (label or "").strip()
    if not text:
        raise InputError(f"{path} line {line} has no label yet: fill it in, or leave the line out.")
    if text in classes:
        return list(classes).index(text)
    if text.isdigit() and int(text) < len(classes):
        return int(text)
    known = ", ".join(classes[:10]) + (", …" if len(classes) > 10 else "")
    raise InputError(
        f"{path} line {line}: {text!r} is no class. Classes are {known}, or 0 … {len(classes) - 1}."
    )
