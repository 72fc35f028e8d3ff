"""The history of a schedule: lines are added, none is lost, and a damaged one is told by number."""

from pathlib import Path

import pytest
from histories import entry

from pipeline.artefact import CorruptArtefactError
from pipeline.history import append_entry, read_history

DAMAGED = [b'{"model": "a", "ben', b"[1, 2]", b"{}", b"\xff\xfe", b"null"]


def written(path: Path, *models: str) -> list[bytes]:
    for model in models:
        append_entry(path, entry(model))
    return path.read_bytes().split(b"\n")[:-1]


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_line_is_told_by_its_number(tmp_path, damage):
    path = tmp_path / "history.jsonl"
    first, _, third = written(path, "a", "b", "c")
    path.write_bytes(b"\n".join([first, damage, third, b""]))
    with pytest.raises(CorruptArtefactError, match="line 2 is damaged"):
        read_history(path)


@pytest.mark.parametrize("date", ["yesterday", "2026-11-21T00:00:00"])
def test_a_line_whose_date_is_none_in_utc_is_told_by_its_number(tmp_path, date):
    path = tmp_path / "history.jsonl"
    (line,) = written(path, "a")
    path.write_bytes(line.replace(b"2026-11-21T00:00:00Z", date.encode()) + b"\n")
    with pytest.raises(CorruptArtefactError, match="line 1 is damaged"):
        read_history(path)


@pytest.mark.parametrize("rest", ['{"model": "c", "source": "é'.encode()[:-1], *DAMAGED])
def test_a_cut_last_line_is_left_out_and_gives_way_to_the_next(tmp_path, rest):
    path = tmp_path / "history.jsonl"
    written(path, "a", "b")
    path.write_bytes(path.read_bytes() + rest)
    assert [found.model for found in read_history(path)] == ["a", "b"]
    append_entry(path, entry("c"))
    assert [found.model for found in read_history(path)] == ["a", "b", "c"]


def test_a_whole_last_line_without_its_newline_is_not_lost(tmp_path):
    path = tmp_path / "history.jsonl"
    written(path, "a", "b")
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    append_entry(path, entry("c"))
    assert [found.model for found in read_history(path)] == ["a", "b", "c"]


def test_a_source_may_hold_what_text_counts_as_the_end_of_a_line(tmp_path):
    path = tmp_path / "history.jsonl"
    append_entry(path, entry("a", source="weights\u2028.pth"))
    append_entry(path, entry("b"))
    assert [found.source for found in read_history(path)] == ["weights\u2028.pth", "a.pth"]
