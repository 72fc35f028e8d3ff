"""The comparison page of a schedule."""

from pipeline.artefact import write_json
from pipeline.history import Entry, Task, append_entry
from pipeline.report.leaderboard import write_leaderboard

LARGE = 44_200_000_000


def test_sizes_are_in_megabytes_so_that_the_history_fits_a_desktop(tmp_path):
    entry = Entry(
        model="a",
        benchmark="digits",
        sketch="uniform",
        revision="0123456789ab",
        source="a.pth",
        key="key",
        date="2026-11-21T00:00:00Z",
        run="runs/a",
        metric="accuracy",
        id=0.5,
        id_stderr=0.1,
        ood=0.4,
        ood_stderr=0.1,
        scores={},
        seconds=1.0,
        bytes=LARGE,
        stores={},
    )
    append_entry(tmp_path / "history.jsonl", entry)
    page = write_leaderboard(
        tmp_path, tmp_path / "history.jsonl", title="weekly", tasks=[]
    ).read_text()
    assert "44200.0" in page
    assert f"{LARGE:,}" not in page


def test_the_failure_of_a_model_that_left_the_registry_is_not_shown(tmp_path):
    tasks = [Task(model, "digits", "uniform") for model in ("held", "left")]
    for task in tasks:
        folder = tmp_path.joinpath("runs", *task)
        folder.mkdir(parents=True)
        write_json(folder / "failure.json", {"task": task._asdict(), "error": f"no {task.model}"})
    history = tmp_path / "history.jsonl"
    page = write_leaderboard(tmp_path, history, title="weekly", tasks=tasks[:1]).read_text()
    assert "no held" in page
    assert "no left" not in page
