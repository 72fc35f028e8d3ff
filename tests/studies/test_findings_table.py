"""A study's table on the terminal and as a file."""

import csv

from rich.console import Console

from pipeline.studies.findings_table import print_table, write_table

WIDE = [
    {"network": "fully connected", **{f"column {i} of many": i / 7 for i in range(18)}}
    for _ in range(70)
]


def printed(rows, width):
    console = Console(width=width)
    with console.capture() as captured:
        print_table(console, {"study": "Wide", "table": rows})
    return captured.get()


def test_a_table_wider_than_the_terminal_breaks_no_word_and_names_what_is_left_out():
    text = printed(WIDE, 80)
    assert "connected" in text
    assert "column" in text
    assert "0.1429" in text
    assert max(map(len, text.splitlines())) <= 80
    said = " ".join(text.split())
    assert "10 more rows" in said
    assert said.endswith("column 17 of many")


def test_no_figure_is_cut_where_long_words_meet_narrow_columns():
    row = {
        "network": "fully_connected", "width": 16, "epoch": 0, "kind": "random_direction",
        "error": 0.8314, "norms differ": 0.2564, "bound": 25.61, "drift": 0.1234,
    }  # fmt: skip
    for width in (60, 72, 80, 90):
        lines = printed([row], width).splitlines()
        assert max(map(len, lines)) <= width
        shown = " ".join(lines).split()
        for column, value in row.items():
            assert str(value) in shown or column in " ".join(lines[-3:]), (width, column)


def test_a_table_that_fits_is_printed_whole():
    text = printed([{"rule": "random", "accuracy, %": 34.5, "ridge": None}], 80)
    assert "ridge" in text
    assert "table.csv" not in text


def test_the_file_has_every_column_in_full(tmp_path):
    write_table(tmp_path, WIDE)
    with (tmp_path / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 70
    assert float(rows[0]["column 17 of many"]) == 17 / 7
