"""Studies of a finished run, from the command line to the figures."""

import csv

import pytest

from pipeline.artefact import read_json

OUT = "runs/analyses"
CLASSES = "five,six,seven,eight,nine"


def test_influence_agrees_with_refits_and_draws(study, finished_run, tmp_path):
    code, printed = study("influence", f"run={finished_run}", "groups=[1, 20]")
    assert code == 0, printed
    found = read_json(tmp_path / OUT / "influence/analysis.json")
    assert len(found["table"]) == 3 * 2 * 5
    assert {"adds to the score", "training sample"} <= set(found["table"][0])
    for series in found["plots"][1]["panels"][0]["series"]:
        assert series["x"] == pytest.approx(series["y"], rel=1e-6, abs=1e-8)
    assert (tmp_path / OUT / "influence/figures/influence.svg").is_file()


def test_a_study_continues_from_its_finished_cells(study, finished_run, tmp_path):
    overrides = [f"run={finished_run}", "groups=[1]"]
    assert study("influence", *overrides)[0] == 0
    cell = tmp_path / OUT / "influence/cells/row_0.json"
    first = cell.stat().st_mtime_ns
    assert study("influence", *overrides)[0] == 0
    assert cell.stat().st_mtime_ns == first
    assert study("influence", *overrides, "top=2")[0] == 0
    assert cell.stat().st_mtime_ns != first


def test_active_learning_compares_the_rules(study, finished_run, tmp_path):
    code, printed = study(
        "active", f"run={finished_run}", "rules=[random, mlmoc]", "rounds=2", "seeds=2",
        "candidates=30",
    )  # fmt: skip
    assert code == 0, printed
    found = read_json(tmp_path / OUT / "active/analysis.json")
    assert [(row["rule"], row["labels"]) for row in found["table"]] == [
        (rule, labels) for rule in ("random", "mlmoc") for labels in (10, 20, 30)
    ]
    assert all(0 <= row["accuracy, %"] <= 100 for row in found["table"])


def test_a_person_can_be_the_oracle(analyse, finished_run, tmp_path):
    pool = ["query", "--pool", str(finished_run), "--classes", CLASSES]
    assert analyse(*pool, "--size", "6")[0] == 0
    with (tmp_path / "questions.csv").open() as file:
        asked = [row["id"] for row in csv.DictReader(file)]
    assert len(set(asked)) == 6
    names = ["five", "six", "7", "nine", "2", "0"]
    with (tmp_path / "answers.csv").open("w") as file:
        file.write("id,label\n")
        numbers = {"7": "seven"}
        file.writelines(f"{a},{numbers.get(b, b)}\n" for a, b in zip(asked, names, strict=True))
    code, printed = analyse(*pool, "--labels", "answers.csv", "--size", "4")
    assert code == 0, printed
    assert "6 answers read; 4 questions" in printed
    with (tmp_path / "questions.csv").open() as file:
        again = [row["id"] for row in csv.DictReader(file)]
    assert not set(again) & set(asked)


def test_an_answer_to_something_never_asked_is_refused(analyse, finished_run, tmp_path):
    (tmp_path / "answers.csv").write_text("id,label\nnobody,five\n")
    code, printed = analyse(
        "query", "--pool", str(finished_run), "--classes", CLASSES, "--labels", "answers.csv"
    )
    assert code == 2
    assert "not in the pool, such as 'nobody'" in printed


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ("five,six", "label sets differ: 2 classes are named, the pool's run has 5"),
        ("five,six,six,eight,nine", "not all different"),
        ("five", "two at least"),
    ],
)
def test_classes_that_are_not_the_pools_are_refused(analyse, finished_run, classes, message):
    code, printed = analyse("query", "--pool", str(finished_run), "--classes", classes)
    assert code == 2
    assert message in printed


@pytest.mark.parametrize(
    ("name", "override", "message"),
    [
        ("influence", "split=nowhere", "nowhere"),
        ("influence", "rows=[100000]", "rows"),
        ("active", "rules=[magic]", "unknown rules magic"),
        ("active", "start=5000", "the pool has 120"),
        ("active", "split=train", "train is the pool"),
        ("active", "rnds=2", "Did you mean 'rounds'"),
    ],
)
def test_a_mistake_in_a_study_is_one_message(study, finished_run, name, override, message):
    code, printed = study(name, f"run={finished_run}", override)
    assert code == 2
    assert message in printed


def test_a_folder_that_is_no_run_is_named(study, tmp_path):
    code, printed = study("influence", f"run={tmp_path / 'absent'}")
    assert code == 2
    assert "entk run" in printed
