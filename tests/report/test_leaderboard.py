"""The comparison page of a schedule."""

from histories import entry

from pipeline.artefact import write_json
from pipeline.history import Task, append_entry
from pipeline.report.leaderboard import write_leaderboard

LARGE = 44_200_000_000


def test_sizes_are_in_megabytes_so_that_the_history_fits_a_desktop(tmp_path):
    append_entry(tmp_path / "history.jsonl", entry(bytes=LARGE))
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
