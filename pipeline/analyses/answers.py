"""Labels that somebody else gives: a person with a spreadsheet, or any function.

An answers file is CSV with the columns ``id`` and ``label``; a label is a class name or a number.
Spreadsheets write a byte-order mark, semicolons or tabs, and lines of empty cells: all are read.
"""

import csv
from collections.abc import Sequence
from pathlib import Path

from pipeline.types import InputError

COLUMNS = ("id", "label")
DELIMITERS = ",;\t"


def read_answers(path: Path, ids: Sequence[str], classes: Sequence[str]) -> dict[int, int]:
    """Class numbers by position in ``ids``, in the file's order.

    Raises :class:`InputError` for unknown ids, unknown labels, and ids with two different labels.
    """
    if not path.is_file():
        raise InputError(f"no answers at {path}: expected a CSV file with the columns id,label.")
    position, answers = {name: i for i, name in enumerate(ids)}, dict[int, int]()
    unknown = []
    for line, name, text in _rows(path):
        if name not in position:
            unknown.append(name)
            continue
        where, label = position[name], _class_number(text, classes, path, line)
        if answers.setdefault(where, label) != label:
            raise InputError(f"{path} line {line}: {name} is labelled twice, differently.")
    if unknown:
        raise InputError(
            f"{path} answers {len(unknown)} ids that are not in the pool, such as {unknown[0]!r}. "
            f"The pool's ids look like {ids[0]!r}."
        )
    return answers


def write_questions(path: Path, ids: Sequence[str]) -> None:
    """A CSV file with an empty label behind every id, to be filled in.

    Raises :class:`InputError` where anything but unanswered questions would be overwritten.
    """
    if path.exists() and not _unanswered(path):
        raise InputError(
            f"{path} holds labels, or is no file of questions: it is not overwritten. Append its "
            "answers to the file given by --labels and remove it, or name another with --out."
        )
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows((name, "") for name in ids)


def _unanswered(path: Path) -> bool:
    try:
        return not any(label for _, _, label in _rows(path))
    except InputError:
        return False


def _rows(path: Path) -> list[tuple[int, str, str]]:
    """Line number, id and label of every line that has either, spaces around them left out."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            first = file.readline()
            file.seek(0)
            reader = csv.reader(file, delimiter=max(DELIMITERS, key=first.count))
            head = [cell.strip() for cell in next(reader, [])]
            if not set(COLUMNS) <= set(head):
                found = ", ".join(head) or "no line"
                raise InputError(f"{path} has the columns {found}, expected id and label.")
            places = [head.index(column) for column in COLUMNS]
            rows = [(reader.line_num, *_cells(row, places)) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is no CSV file in UTF-8: {error}.") from None
    return [row for row in rows if row[1] or row[2]]


def _cells(row: list[str], places: list[int]) -> tuple[str, str]:
    """Id and label of one line, empty where it is too short."""
    name, label = (row[place].strip() if place < len(row) else "" for place in places)
    return name, label


def _class_number(text: str, classes: Sequence[str], path: Path, line: int) -> int:
    if not text:
        raise InputError(f"{path} line {line} has no label yet: fill it in, or leave the line out.")
    if text in classes:
        return list(classes).index(text)
    if text.isdecimal() and int(text) < len(classes):
        return int(text)
    known = ", ".join(classes[:10]) + (", …" if len(classes) > 10 else "")
    raise InputError(
        f"{path} line {line}: {text!r} is no class. Classes are {known}, or 0 … {len(classes) - 1}."
    )
