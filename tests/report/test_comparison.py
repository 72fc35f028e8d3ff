import re

import numpy as np
import pytest
from typer.testing import CliRunner

from pipeline.artefact import read_json, write_json
from pipeline.cli import app
from pipeline.evaluation import Predictions
from pipeline.evaluation.predictions import write_predictions
from pipeline.report.build import compare
from pipeline.report.comparison import differing_splits, distinct_folders, lead_rows, told_apart
from pipeline.report.record import read_run
from pipeline.types import InputError

ROWS = 40


def list_samples(folder, split, names):
    (folder / "manifests").mkdir(exist_ok=True)
    lines = [f"{name},a,,0" for name in names]
    (folder / "manifests" / f"{split}.csv").write_text("\n".join(["id,label,group,sha256", *lines]))


def predict(folder, right, ids):
    scores = np.stack([right, 1.0 - right], axis=1)
    found = Predictions(scores, np.zeros(len(right), dtype=np.int64), ids)
    write_predictions(folder / "predictions" / "entk" / "id_test.npz", found)


def test_runs_of_one_name_are_told_apart_by_the_shortest_end_of_their_folder(make_run):
    folders = [make_run("a/seed/x"), make_run("b/seed/x"), make_run("c", name="other")]
    names = [run.name for run in told_apart([read_run(folder) for folder in folders])]
    assert names[0] == "cifar100_superclasses (a/seed/x)"
    assert names[1] == "cifar100_superclasses (b/seed/x)"
    assert names[2] == "other"


def test_a_folder_given_twice_by_any_path_is_shown_once_with_a_note(make_run, tmp_path):
    folder, other = make_run("a"), make_run("b")
    (tmp_path / "link").symlink_to(folder)
    kept, notes = distinct_folders([folder, tmp_path / "link", other])
    assert kept == [folder, other]
    assert notes == [f"{tmp_path / 'link'} is the same folder as {folder}: shown once."]
    with pytest.raises(InputError, match="all are the same folder"):
        distinct_folders([folder, tmp_path / "link"])


def test_other_rows_are_told_by_their_number_or_their_list(make_run):
    folders = [make_run("a"), make_run("b")]
    assert not differing_splits([read_run(folder) for folder in folders])
    for folder, names in zip(folders, ("ab", "ac"), strict=True):
        list_samples(folder, "id_test", names)
    assert differing_splits([read_run(folder) for folder in folders]) == ["id_test"]
    metrics = read_json(folders[1] / "metrics.json")
    for method in metrics["methods"].values():
        method["splits"]["ood_test"]["n"] = 17
    write_json(folders[1] / "metrics.json", metrics)
    assert differing_splits([read_run(folder) for folder in folders]) == ["id_test", "ood_test"]


def test_no_best_is_marked_across_different_test_rows_and_the_page_says_so(make_run, tmp_path):
    folders = [make_run("a"), make_run("b")]
    for folder, names in zip(folders, ("ab", "ac"), strict=True):
        list_samples(folder, "id_test", names)
    text = compare(folders, tmp_path / "page.html").read_text()
    assert "Different test rows" in text
    assert 'class="best">64.4' not in text
    assert 'class="best">37.9' in text


def test_every_shift_is_drawn(make_run, tmp_path):
    folders = [make_run("a"), make_run("b")]
    metrics = read_json(folders[1] / "metrics.json")
    for method in metrics["methods"].values():
        method["splits"]["ood_blur"] = method["splits"]["ood_test"]
    write_json(folders[1] / "metrics.json", metrics)
    page = compare(folders, tmp_path / "page.html")
    assert len(re.findall("<figure>", page.read_text())) == 2
    assert (tmp_path / "page.svg").is_file()
    assert (tmp_path / "page-ood_blur.svg").is_file()


def test_a_lead_on_the_same_rows_is_that_of_their_means_in_any_order(make_run):
    folders = [make_run("a", name="a"), make_run("b", name="b")]
    rng = np.random.default_rng(0)
    right = rng.integers(0, 2, (2, ROWS)).astype(float)
    ids = np.array([str(i) for i in range(ROWS)])
    order = rng.permutation(ROWS)
    predict(folders[0], right[0], ids)
    predict(folders[1], right[1][order], ids[order])
    metrics = [read_json(folder / "metrics.json") for folder in folders]
    assert metrics[0] == metrics[1]
    splits, (row,) = lead_rows([read_run(folder) for folder in folders])
    assert splits == ["id_test"]
    assert row.runs == "b minus a"
    difference = 100 * (right[1].mean() - right[0].mean())
    assert float(row.leads[0].text.replace("−", "-")) == pytest.approx(difference, abs=0.051)
    predict(folders[1], right[1], np.array([f"other {i}" for i in range(ROWS)]))
    assert lead_rows([read_run(folder) for folder in folders]) == ([], [])


def test_out_of_a_single_run_takes_a_copy_of_its_report(make_run, tmp_path):
    folder = make_run()
    page = tmp_path / "elsewhere.html"
    assert CliRunner().invoke(app, ["report", str(folder), "--out", str(page)]).exit_code == 0
    assert page.read_bytes() == (folder / "report.html").read_bytes()
