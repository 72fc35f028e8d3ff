"""A run's folder in MLflow: the same figures, once, whoever asks how often."""

import sys

import pytest

from pipeline.artefact import write_json
from pipeline.config import write_yaml
from pipeline.report.track import track_run
from pipeline.types import InputError, MissingExtraError


@pytest.fixture
def folder(tmp_path):
    run = tmp_path / "small"
    run.mkdir()
    write_yaml(run / "config.yaml", {"name": "small", "sketch": {"kind": "uniform", "size": 300}})
    scores = {"id_test": {"n": 40, "accuracy": 0.75}, "ood_test": {"n": 40, "accuracy": 0.5}}
    write_json(run / "metrics.json", {"methods": {"entk": {"selected": None, "splits": scores}}})
    write_json(run / "timing.json", {"features": {"seconds": 1.5, "rows": 80}})
    (run / "report.html").write_text("<p>page</p>")
    return run


def test_config_metrics_timing_and_report_are_logged_once(folder, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri = (tmp_path / "mlruns").as_uri()
    run_id = track_run(folder, uri=uri)
    assert track_run(folder, uri=uri) == run_id
    client = mlflow.MlflowClient(tracking_uri=uri)
    run = client.get_run(run_id)
    assert run.data.params == {"name": "small", "sketch.kind": "uniform", "sketch.size": "300"}
    assert run.data.metrics["entk.id_test.accuracy"] == 0.75
    assert run.data.metrics["timing.features.seconds"] == 1.5
    logged = {file.path for file in client.list_artifacts(run_id)}
    assert {"config.yaml", "metrics.json", "report.html"} <= logged
    write_yaml(folder / "config.yaml", {"name": "small", "sketch": {"size": 500}})
    assert track_run(folder, uri=uri) != run_id


def test_what_mlflow_refuses_is_a_mistake_that_repeats_no_password(folder, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(InputError, match=r"--uri: MLflow cannot log the run: ") as refusal:
        track_run(folder, uri="http://user:hunter2@127.0.0.1:1")
    assert "hunter2" not in str(refusal.value)


def test_without_mlflow_the_extra_is_named(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(MissingExtraError, match=r"entk-pipeline\[track\]"):
        track_run(folder)


def test_an_unfinished_run_is_not_logged(tmp_path):
    with pytest.raises(InputError, match=r"no metrics\.json"):
        track_run(tmp_path)
