import copy

import numpy as np
import pytest
import torch

from pipeline.evaluation import Predictions, read_predictions, write_predictions
from pipeline.gp.classification import LinearizedClassifier
from pipeline.gp.dirichlet import dirichlet_classifier
from pipeline.gp.implicit import ImplicitOptions, NotConvergedError
from pipeline.gp.linearization import Linearization
from pipeline.gp.regression import LinearizedGP
from pipeline.gp.saved import load_classifier, load_gp, save_gp
from pipeline.gp.variational import VariationalOptions, variational_classifier
from pipeline.metrics import regression_metrics
from pipeline.sketch import make_sketch
from pipeline.types import InputError


def fitted(problem, sketch=None, **options):
    linearization = Linearization(problem.model, sketch, mean="network")
    return LinearizedGP.of(
        linearization, problem.x, problem.y, outputscale=0.3, noise=0.05, **options
    )


def elsewhere(problem):
    """A network of the same architecture with other weights, as another machine has it."""
    model = copy.deepcopy(problem.model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    return model


@pytest.mark.parametrize("space", ["function", "parameter"])
@pytest.mark.parametrize("size", [None, 12])
def test_a_loaded_process_predicts_and_learns_without_the_old_data(double, tmp_path, space, size):
    sketch = None if size is None else make_sketch("uniform", double.model, size=size)
    gp = fitted(double, sketch, space=space)
    save_gp(gp, tmp_path / "gp")
    loaded = load_gp(tmp_path / "gp", elsewhere(double))
    wanted = gp.predict(double.x_test, covariance=True)
    found = loaded.predict(double.x_test, covariance=True)
    torch.testing.assert_close(found.mean, wanted.mean)
    torch.testing.assert_close(found.covariance, wanted.covariance)
    torch.testing.assert_close(loaded.predict(double.x_test).variance, wanted.variance)
    more = (double.x + 0.1, double.y)
    wanted, found = (each.add(*more).predict(double.x_test) for each in (gp, loaded))
    torch.testing.assert_close(found.mean, wanted.mean)
    torch.testing.assert_close(found.variance, wanted.variance)


def test_implicit_processes_are_saved_with_fast_variances(single, tmp_path):
    gp = fitted(single, implicit=ImplicitOptions(tol=1e-12))
    with pytest.raises(InputError, match="with_fast_variances"):
        save_gp(gp, tmp_path / "gp")
    save_gp(gp.with_fast_variances(11), tmp_path / "gp")
    found = load_gp(tmp_path / "gp", elsewhere(single)).predict(single.x_test)
    wanted = gp.predict(single.x_test)
    torch.testing.assert_close(found.mean, wanted.mean)
    torch.testing.assert_close(found.variance, wanted.variance, rtol=1e-6, atol=1e-9)


def test_another_architecture_is_refused(single, double, tmp_path):
    save_gp(fitted(single), tmp_path / "gp")
    with pytest.raises(InputError, match="another architecture"):
        load_gp(tmp_path / "gp", elsewhere(double))


@pytest.mark.parametrize("name", ["network", "posterior"])
def test_one_changed_byte_is_refused(single, tmp_path, name):
    save_gp(fitted(single), tmp_path / "gp")
    path = tmp_path / "gp" / f"{name}.safetensors"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"{name}.safetensors is damaged"):
        load_gp(tmp_path / "gp", elsewhere(single))


def test_predictions_enter_the_common_format(single, tmp_path):
    found = fitted(single).predict(single.x)
    ids = np.array([f"row {i}" for i in range(len(single.x))])
    predictions = Predictions(
        found.mean.numpy(), single.y.numpy(), ids, found.observed_variance().numpy()
    )
    write_predictions(tmp_path / "val.npz", predictions)
    read = read_predictions(tmp_path / "val.npz")
    scores = regression_metrics(read.scores, read.labels, read.variance)
    density = found.log_density(single.y).mean()
    assert scores["nll"] == pytest.approx(-float(density))
    low, high = found.interval(0.95)
    covered = ((single.y > low) & (single.y < high)).double().mean()
    assert scores["coverage"] == pytest.approx(float(covered))


def of_labels(linearization, x, labels):
    """Classifiers of every kind of posterior that can be saved."""
    yield LinearizedClassifier.of(linearization, x[:4], labels[:4], outputscale=0.7)
    x, labels = torch.cat([x, x + 0.1]), torch.cat([labels, labels])
    yield LinearizedClassifier.of(linearization, x, labels, outputscale=0.7)
    yield dirichlet_classifier(linearization, x[:4], labels[:4], outputscale=0.7)
    options = VariationalOptions(steps=3)
    yield variational_classifier(linearization, x, labels, outputscale=0.7, options=options)[0]


def test_loaded_classifiers_give_the_same_probabilities(double, tmp_path):
    labels = torch.arange(len(double.x)) % 2
    kinds = set()
    for classifier in of_labels(Linearization(double.model), double.x, labels):
        save_gp(classifier, tmp_path / "classifier")
        loaded = load_classifier(tmp_path / "classifier", elsewhere(double))
        kinds.add(type(loaded.posterior).__name__)
        assert loaded.converged == classifier.converged
        wanted, found = (
            each.probabilities(double.x_test, allow_unconverged=True)
            for each in (classifier, loaded)
        )
        torch.testing.assert_close(found, wanted)
    assert kinds == {"WeightPosterior", "ParameterSpaceLaplace", "MeanField"}
    with pytest.raises(InputError, match="load_classifier"):
        load_gp(tmp_path / "classifier", elsewhere(double))


def test_a_folder_of_something_else_is_not_overwritten(single, tmp_path):
    (tmp_path / "notes.txt").write_text("kept")
    with pytest.raises(InputError, match="no saved process"):
        save_gp(fitted(single), tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "kept"


def test_a_mean_that_did_not_converge_is_known_after_loading(single, tmp_path, caplog):
    gp = fitted(single, implicit=ImplicitOptions(max_iterations=1))
    assert "posterior mean is inexact" in caplog.text
    save_gp(gp.with_fast_variances(11), tmp_path / "gp")
    with pytest.raises(NotConvergedError, match="solve for the mean"):
        load_gp(tmp_path / "gp", elsewhere(single)).predict(single.x_test)
