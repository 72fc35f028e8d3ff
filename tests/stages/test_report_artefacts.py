import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.artefact import read_json
from pipeline.evaluation import Predictions, read_predictions
from pipeline.metrics.calibration import top_label
from pipeline.solvers.spectrum import exact_spectrum
from pipeline.stages.fit import CONVERGED, STOPPED, Fitted
from pipeline.stages.kernel_files import KernelBlocks
from pipeline.stages.mistakes import most_confident_mistakes
from pipeline.stages.spectrum import eigenvalues_by_rank


def test_mistakes_are_the_wrong_rows_of_greatest_confidence():
    scores = np.array([[3.0, 0.0], [0.0, 2.0], [0.0, 1.0], [5.0, 0.0]])
    found = Predictions(scores, np.array([1, 0, 0, 0]), np.array(list("abcd")))
    rows, _ = most_confident_mistakes(found, 1.0, 2)
    assert rows.tolist() == [0, 1]


def test_each_mistake_of_a_run_has_its_image_and_the_samples_that_taught_it(undisturbed):
    listed = read_json(undisturbed.mistakes / "mistakes.json")
    metrics = read_json(undisturbed.metrics)["methods"][CONVERGED]
    blocks = KernelBlocks.open(undisturbed.kernel)
    dual = Fitted.open(undisturbed, CONVERGED).machine.dual.numpy()
    found = read_predictions(undisturbed.predictions(CONVERGED) / "ood_test.npz")
    confidence, right = top_label(found.scores, found.labels, metrics["temperature"])
    mistakes = listed["splits"]["ood_test"]
    assert len(mistakes) == min(6, int((right == 0).sum()))
    for mistake in mistakes:
        row = found.ids.tolist().index(mistake["id"])
        assert right[row] == 0
        assert mistake["confidence"] == pytest.approx(confidence[row])
        with Image.open(undisturbed.mistakes / mistake["image"]) as image:
            assert max(image.size) <= 112
        parts = blocks.cross("ood_test")[row] * dual[:, found.scores[row].argmax()]
        adds = [teacher["adds"] for teacher in mistake["taught_by"]]
        np.testing.assert_allclose(adds, np.sort(parts)[::-1][: len(adds)], rtol=1e-6)
        sums = [mistake["raised_by"], mistake["lowered_by"]]
        np.testing.assert_allclose(
            sums, [parts[parts > 0].sum(), parts[parts < 0].sum()], rtol=1e-6
        )
        assert all((undisturbed.mistakes / t["image"]).is_file() for t in mistake["taught_by"])


def test_effective_dimension_and_eigenvalues_are_those_of_the_kernel(undisturbed):
    found = read_json(undisturbed.spectrum / "spectrum.json")
    K = np.asarray(KernelBlocks.open(undisturbed.kernel).train(), dtype=np.float64)
    eigenvalues = np.linalg.eigvalsh(K)[::-1]
    assert found["exact"]
    ranks = np.array(found["ranks"]).round().astype(int) - 1
    np.testing.assert_allclose(found["eigenvalues"], eigenvalues[ranks], atol=1e-9 * eigenvalues[0])
    ridge = found["ridges"][3] * np.trace(K) / len(K)
    expected = np.sum(eigenvalues / (eigenvalues + ridge))
    assert found["effective_dimension"][3] == pytest.approx(expected, rel=1e-6)


def test_a_node_of_an_estimated_spectrum_stands_amid_the_ranks_it_covers():
    spectrum = exact_spectrum(torch.tensor([1.0, 4.0], dtype=torch.float64))
    assert eigenvalues_by_rank(spectrum) == ([1.0, 2.0], [4.0, 1.0])


def test_the_plane_of_validation_is_drawn_for_the_test_splits_too(undisturbed):
    chosen = read_json(undisturbed.fit(STOPPED) / "fit.json")
    planes = read_json(undisturbed.curves(STOPPED) / "curves.json")["planes"]
    assert (planes["ridges"], planes["iterations"]) == (
        chosen["plane"]["ridges"],
        chosen["plane"]["iterations"],
    )
    validation = np.array(planes["splits"]["val"]).reshape(len(planes["ridges"]), -1)
    agreed = np.array(chosen["plane"]["converged"])
    assert np.abs(validation - chosen["plane"]["values"])[agreed].max() <= 1 / 60 + 1e-9
    at = planes["ridges"].index(chosen["selected"]["ridge"])
    step = planes["iterations"].index(chosen["selected"]["iterations"])
    metrics = read_json(undisturbed.metrics)["methods"][STOPPED]["splits"]
    ood = np.array(planes["splits"]["ood_test"]).reshape(validation.shape)[at, step]
    assert ood == pytest.approx(metrics["ood_test"]["accuracy"], abs=2 / 80)
