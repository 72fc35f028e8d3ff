import io

from rich.console import Console

from pipeline.artefact import read_json, write_json
from pipeline.report.record import read_run, split_label
from pipeline.report.results import results_table
from pipeline.report.table import terminal_table
from pipeline.report.words import described, duration, quantity, size


def printed(table, width=140) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(table)
    return console.file.getvalue()


def test_the_terminal_table_has_every_method_with_its_standard_error(make_run):
    text = printed(terminal_table(make_run()))
    for words in ("64.4 ± 0.9", "29.8 ± 0.8", "eNTK, early stopping", "n = 3,000", "chosen on val"):
        assert words in text


def test_a_narrow_terminal_keeps_the_scores_whole(make_run):
    folder = make_run()
    narrow = printed(terminal_table(folder, 60), 60)
    assert "64.4 ± 0.9" in narrow
    assert "…" not in narrow
    assert "selected" not in narrow
    assert "selected" in printed(terminal_table(folder, 80), 80)


def test_the_best_of_each_column_is_marked_once(make_run):
    table = results_table(read_run(make_run()))
    best = [[row.label for row in table.rows if row.cells[i].best] for i in range(2)]
    assert best == [["eNTK, converged"], ["eNTK, early stopping"]]


def test_methods_stand_in_the_posters_order(make_run):
    labels = [row.label for row in results_table(read_run(make_run(benchmark="living17"))).rows]
    assert labels == [
        "From scratch",
        "Linear probing",
        "Fine-tuning",
        "eNTK, early stopping",
        "eNTK, converged",
    ]


def test_a_missing_method_has_dashes_and_its_reason(make_run):
    folder = make_run()
    metrics = read_json(folder / "metrics.json")
    metrics["methods"]["scratch"] = {"selected": None, "splits": {}, "missing": "diverged"}
    write_json(folder / "metrics.json", metrics)
    row = results_table(read_run(folder)).rows[0]
    assert (row.label, row.detail) == ("From scratch", "diverged")
    assert [str(cell) for cell in row.cells] == ["—", "—"]


def test_other_splits_and_methods_keep_their_names():
    assert split_label("ood_blur_3") == "OOD blur 3"
    assert split_label("train") == "Train"


def test_selected_settings_read_as_words():
    assert described({"ridge": 0.003, "stopping": "converged", "iterations": 0}) == (
        "ridge = 0.003 · converged"
    )
    assert described({"stopping": "early", "iterations": 1500}) == "stopped at iteration 1,500"
    assert described({"model": "logistic", "C": 0.1, "refit": True}) == "logistic · C = 0.1 · refit"
    assert described(None) == ""


def test_quantities_carry_their_units():
    assert size(500) == "500 B"
    assert size(2_600_000_000) == "2.4 GiB"
    assert duration(3.21) == "3.2 s"
    assert duration(3912) == "1 h 05 min"
    assert quantity("peak_bytes", 1 << 30) == "peak 1.0 GiB"
    assert quantity("bytes_read", 1 << 30) == "read 1.0 GiB"
    assert quantity("bytes", 1 << 30) == "1.0 GiB"
    assert quantity("startup_seconds", 3.21) == "startup 3.2 s"
    assert quantity("rows", 13000) == "rows 13,000"
