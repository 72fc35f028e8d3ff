import json
from pathlib import Path

import pytest

from pipeline.report.reproduction import Paper, Row, load_papers, reproduction_page
from pipeline.types import InputError

ROOT = Path(__file__).parents[2]

TABLE = [f"Table, {method}" for method in ("scratch", "linear probing", "fine-tuning")]
TABLE += ["Table, eNTK early stopping", "Table, eNTK converged"]

FIGURES = {
    "poster": {*TABLE, "Finding on regularization", "Finding on size", "Curves"},
    "adaptation": {
        *(f"Figure {n}" for n in (1, "2 left", "2 centre", "2 right", "3 left", "3 centre")),
        *(f"Figure {n}" for n in ("3 right", 4, 5, 6, "7a", "7b")),
        "Table 1",
    },
    "adaptation_workshop": {f"Figure {n}" for n in range(1, 12)},
    "talk": {
        *("Zig-zag paths", "Filtered distillation", "Head probing", "Wei Hu and Steinhardt"),
        *("Look-ahead speed", "Look-ahead quality", "Active learning"),
        *("pNTK figure 1", "pNTK figure 3", "pNTK eigenvalues", "pNTK figure 7", "pNTK figure 8"),
        *("pNTK on active learning", "pNTK figure 9"),
    },
}
"""What the papers show, file by file: every one of them needs a row."""


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_and_table_of_a_paper_has_one_row(name):
    files = sorted((ROOT / "configs/reproduction").glob("*.yaml"))
    assert [file.stem for file in files] == sorted(FIGURES)
    papers = dict(zip([f.stem for f in files], load_papers(files[0].parent), strict=True))
    rows = [row.figure for row in papers[name].rows]
    assert set(rows) >= FIGURES[name], f"missing: {FIGURES[name] - set(rows)}"
    assert len(rows) == len(set(rows))


def test_the_page_is_what_rows_and_results_make():
    page = reproduction_page(load_papers(ROOT / "configs/reproduction"), ROOT)
    assert (ROOT / "configs/REPRODUCTION.md").read_text() == page, (
        "stale: python scripts/reproduction.py"
    )


def test_numbers_come_from_the_results_file(tmp_path):
    (tmp_path / "found.json").write_text('{"runs": {"0": {"accuracy": 0.625, "n": 3000}}}')
    row = Row(
        figure="Table 1",
        shows="accuracy",
        published="60 %",
        command="entk run x",
        results="found.json",
        ours={"ID %": "runs/0/accuracy", "n": "runs/0/n"},
        verdict="agrees",
    )
    page = reproduction_page([Paper(paper="A", rows=(row,))], tmp_path)
    assert "ID %: 62.5<br>n: 3,000" in page
    wrong = row.model_copy(update={"ours": {"ID %": "runs/1/accuracy"}})
    with pytest.raises(InputError, match="nothing at 'runs/1/accuracy'"):
        reproduction_page([Paper(paper="A", rows=(wrong,))], tmp_path)


def test_an_entry_of_a_table_is_named_by_its_facts_not_by_its_place(tmp_path):
    table = [{"method": m, "points": p, "RMSE": m * p} for m in (1, 2) for p in (10, 30)]
    (tmp_path / "found.json").write_text(json.dumps({"table": table}))

    def page(path: str) -> str:
        row = Row(
            figure="1",
            shows="x",
            published="y",
            command="entk run x",
            results="found.json",
            ours={"RMSE": path},
            verdict="agrees",
        )
        return reproduction_page([Paper(paper="A", rows=(row,))], tmp_path)

    assert "RMSE: 60<br>" in page("table/method=2&points=30/RMSE")
    for path in ("table/3/RMSE", "table/points=30/RMSE", "table/points=20/RMSE"):
        with pytest.raises(InputError, match="nothing at"):
            page(path)


@pytest.mark.parametrize(
    ("verdict", "message"), [("agrees", "give command"), ("not run", "say why")]
)
def test_a_verdict_without_grounds_is_refused(verdict, message):
    with pytest.raises(ValueError, match=message):
        Row(figure="1", shows="x", published="y", verdict=verdict)


def test_a_config_that_is_not_there_is_refused(tmp_path):
    row = Row(figure="1", shows="x", published="y", config="a.yaml", verdict="not run", why="z")
    with pytest.raises(InputError, match=r"a\.yaml, which is not there"):
        reproduction_page([Paper(paper="A", rows=(row,))], tmp_path)
