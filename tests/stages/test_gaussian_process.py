"""A run's kernel as a Gaussian process: a row of the table in the common format."""

import numpy as np
import pytest
import yaml
from scipy.stats import norm
from small_runs import events, run

from pipeline.artefact import read_json
from pipeline.evaluation import read_predictions
from pipeline.registry import load_config
from pipeline.runs import RunFolder
from pipeline.stages.job import Silence
from pipeline.stages.run import run_job
from pipeline.types import InputError

GP = "gp={draws: 200}"


@pytest.fixture(scope="module")
def with_gp(undisturbed, tmp_path_factory):
    return run(tmp_path_factory.mktemp("gp") / "run", undisturbed.path.parent / "cache", GP)


def test_a_gaussian_process_is_a_row_with_its_own_calibration(with_gp):
    methods = read_json(with_gp.metrics)["methods"]
    found, plain = methods["entk_gp"], methods["entk"]
    assert set(found["splits"]) == set(plain["splits"])
    assert found["selected"]["concentration"] in (1e-4, 1e-3, 1e-2)
    for name, scores in found["splits"].items():
        # Log-probabilities are calibrated before any temperature, ridge scores are not.
        assert scores["nll_raw"] < plain["splits"][name]["nll_raw"]
    assert found["splits"]["id_test"]["accuracy"] > plain["splits"]["id_test"]["accuracy"] - 0.1
    at_edge = found["selected"]["concentration"] != 1e-3
    assert len(read_json(with_gp.fit("entk_gp") / "fit.json")["notes"]) == at_edge
    predictions = read_predictions(with_gp.predictions("entk_gp") / "id_test.npz")
    assert np.exp(predictions.scores).sum(axis=1) == pytest.approx(1)
    assert "eNTK, Gaussian process" in (with_gp.path / "report.html").read_text()


def test_the_same_run_again_fits_nothing(with_gp, undisturbed):
    before = len(events(with_gp, "stage_started"))
    run(with_gp.path, undisturbed.path.parent / "cache", GP)
    assert len(events(with_gp, "stage_started")) == before


def test_real_targets_get_intervals_of_their_own(tmp_path):
    generator = np.random.default_rng(0)
    x = generator.integers(0, 256, size=(160, 8, 8), dtype=np.uint8)
    y = x.mean(axis=(1, 2)) / 10 + 0.1 * generator.normal(size=160)
    sizes = {"train": 80, "val": 30, "id_test": 50}
    ends = np.cumsum(list(sizes.values()))
    arrays = {}
    for name, end, size in zip(sizes, ends, sizes.values(), strict=True):
        arrays[f"{name}_images"], arrays[f"{name}_labels"] = (
            x[end - size : end],
            y[end - size : end],
        )
    np.savez(tmp_path / "data.npz", **arrays)
    values = {
        "name": "regression",
        "benchmark": {
            "kind": "arrays",
            "path": str(tmp_path / "data.npz"),
            "preprocess": {"channels": 1},
        },
        "model": {"kind": "small_cnn", "channels": 1},
        "sketch": {"kind": "uniform", "size": 500},
        "gp": {},
        "executor": {"kind": "local", "workers": 1, "threads": 1},
        "store": {"root": str(tmp_path / "cache")},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(values))
    folder = RunFolder(tmp_path / "run")
    run_job(load_config(tmp_path / "config.yaml"), folder, Silence())
    methods = read_json(folder.metrics)["methods"]
    assert methods["entk_gp"]["variance"] is None
    assert methods["entk"]["variance"] is not None
    found = read_predictions(folder.predictions("entk_gp") / "id_test.npz")
    assert len(np.unique(found.variance)) > 10
    within = np.abs(found.scores - found.labels) <= norm.ppf(0.975) * np.sqrt(found.variance)
    assert methods["entk_gp"]["splits"]["id_test"]["coverage"] == pytest.approx(within.mean())


def test_a_gaussian_process_and_refitting_exclude_each_other(undisturbed, tmp_path):
    with pytest.raises(InputError, match="exclude each other"):
        run(tmp_path / "run", undisturbed.path.parent / "cache", "gp={}", "refit=true")
