import pytest

from pipeline.analyses.answers import read_answers, write_questions
from pipeline.types import InputError

IDS, CLASSES = ["a", "b", "c"], ["cat", "dog"]


def answers(tmp_path, text):
    path = tmp_path / "answers.csv"
    path.write_text(text)
    return read_answers(path, IDS, CLASSES)


def test_labels_are_class_names_or_numbers(tmp_path):
    assert answers(tmp_path, "id,label\nc,dog\na,0\n") == {2: 1, 0: 0}


def test_the_file_of_questions_is_read_back_once_filled_in(tmp_path):
    write_questions(tmp_path / "q.csv", ["b", "a"])
    filled = (tmp_path / "q.csv").read_text().replace("b,", "b,cat").replace("a,", "a,dog")
    assert answers(tmp_path, filled) == {1: 0, 0: 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,label\nx,0\n", "not in the pool, such as 'x'"),
        ("id,label\na,bird\n", "line 2: 'bird' is no class"),
        ("id,label\na,\n", "line 2 has no label yet"),
        ("id,label\na,2\n", "is no class"),
        ("id,label\na,²\n", "'²' is no class"),
        ("id,label\na,0\na,1\n", "line 3: a is labelled twice"),
        ("name,label\na,0\n", "expected id and label"),
        ("", "expected id and label"),
    ],
)
def test_answers_that_cannot_be_used_are_refused_by_line(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        answers(tmp_path, text)


def test_bytes_that_are_no_text_are_refused(tmp_path):
    path = tmp_path / "answers.csv"
    path.write_bytes(b"\x84\xff\x00id")
    with pytest.raises(InputError, match="no CSV file in UTF-8"):
        read_answers(path, IDS, CLASSES)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.csv"):
        read_answers(tmp_path / "none.csv", IDS, CLASSES)


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffid,label\r\na,dog\r\n",
        "id;label\r\na;dog\r\n;\r\n",
        "id\tlabel\na\tdog\n",
        "note, id ,label\nx, a , dog \n\n,,\n",
    ],
)
def test_what_a_spreadsheet_writes_is_read(tmp_path, text):
    assert answers(tmp_path, text) == {0: 1}


def test_answers_are_never_overwritten_by_questions(tmp_path):
    path = tmp_path / "questions.csv"
    write_questions(path, ["a", "b"])
    write_questions(path, ["b", "c"])
    for kept in ("id,label\nb,cat\nc,\n", "notes of somebody\n"):
        path.write_text(kept)
        with pytest.raises(InputError, match=r"questions\.csv holds labels"):
            write_questions(path, ["a"])
        assert path.read_text() == kept
