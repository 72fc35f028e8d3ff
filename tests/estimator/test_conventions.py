"""What scikit-learn expects of its estimators, by its own checks and in its own tools."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch import nn

from pipeline.estimator import EntkClassifier, EntkRegressor
from pipeline.types import InputError


class Padded(nn.Module):
    """Takes any number of features up to 30, as scikit-learn's checks vary it."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.hidden, self.out = nn.Linear(30, 16), nn.Linear(16, 2)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) / 4

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        padded = nn.functional.pad(x, (0, 30 - x.shape[1]))
        return self.out(torch.tanh(self.hidden(padded)))


UNFIT = {"check_estimators_overwrite_params": "equal modules have different joblib hashes"}


@parametrize_with_checks(
    [EntkClassifier(Padded()), EntkRegressor(Padded())],
    expected_failed_checks=lambda estimator: UNFIT,
)
@pytest.mark.filterwarnings("ignore")
def test_scikit_learns_own_checks_pass(estimator, check):
    check(estimator)


def images(n: int = 60) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    names = np.array(["ant", "bee", "cat"])[np.arange(n) % 3]
    X = rng.normal(size=(n, 1, 4, 4)) + 3.0 * (np.arange(n) % 3)[:, None, None, None]
    return X.astype(np.float32), names


def convolutional() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.GELU(), nn.Flatten(), nn.Linear(16, 2))


def test_images_and_names_go_through_cross_validation_and_a_grid():
    X, y = images()
    machine = EntkClassifier(convolutional())
    assert cross_val_score(machine, X, y, cv=3).mean() > 0.8
    assert cross_val_score(machine, torch.from_numpy(X), y, cv=3).mean() > 0.8
    grid = GridSearchCV(machine, {"ridge": [1e-3, 1.0], "sketch_size": [20, 50]}, cv=2).fit(X, y)
    assert grid.best_score_ > 0.8
    assert cross_val_score(machine, X[y != "cat"], y[y != "cat"], scoring="roc_auc").mean() > 0.9


def test_a_pipeline_scales_before_the_network():
    X, y = images()
    flat = 1000 * X.reshape(len(X), -1)
    scaled = make_pipeline(StandardScaler(), EntkClassifier(Padded())).fit(flat, y)
    assert scaled.score(flat, y) > 0.8


def test_a_fitted_machine_survives_pickling_and_its_clone_is_unfitted():
    X, y = images()
    machine = EntkClassifier(convolutional(), ridge=[0.1, 1.0], seed=3).fit(X, y)
    again = pickle.loads(pickle.dumps(machine))
    np.testing.assert_array_equal(again.predict_proba(X), machine.predict_proba(X))
    unfitted = clone(machine)
    assert unfitted.get_params()["seed"] == 3
    with pytest.raises(ValueError, match="not fitted"):
        unfitted.predict(X)


def test_of_two_classes_the_decision_is_one_column():
    X, y = images()
    two = y != "cat"
    machine = EntkClassifier(convolutional()).fit(X[two], y[two])
    decisions = machine.decision_function(X[two])
    assert decisions.shape == (two.sum(),)
    np.testing.assert_array_equal(machine.predict(X[two]), np.where(decisions > 0, "bee", "ant"))
    assert machine.predict_proba(X[two]).shape == (two.sum(), 2)


class Keywords(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table, self.out = nn.Embedding(9, 6), nn.Linear(6, 2)

    def forward(self, *, ids: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return self.out(torch.tanh((self.table(ids) * weight[..., None]).mean(1)))


def test_a_mapping_of_tensors_is_what_the_network_is_called_with():
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(9, (60, 5), generator=generator)
    X = {"ids": ids, "weight": torch.ones(60, 5)}
    y = (ids == 3).any(1).numpy()
    machine = EntkClassifier(Keywords(), batch_size=16).fit(X, y)
    assert machine.score(X, y) > 0.8
    with pytest.raises(InputError, match=r"samples are .*weight.*\(4,\).*the fit was on"):
        machine.predict({"ids": ids, "weight": torch.ones(60, 4)})
    with pytest.raises(InputError, match="tensors of one length"):
        machine.predict({"ids": ids, "weight": torch.ones(59, 5)})
    with pytest.raises(InputError, match=r"tensors of one length.*list"):
        machine.predict({"ids": [[1]], "weight": torch.ones(1, 5)})


@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy])
def test_nan_and_other_shapes_are_refused(convert):
    X, y = images()
    machine = EntkClassifier(convolutional()).fit(convert(X), y)
    with pytest.raises(InputError, match="samples are"):
        machine.predict(convert(X[:, :, :3].copy()))
    X[7, 0, 2, 2] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        machine.predict(convert(X))
    with pytest.raises(ValueError, match="NaN"):
        EntkClassifier(convolutional()).fit(convert(X), y)


def test_labels_that_are_no_classes_are_refused():
    X, y = images()
    with pytest.raises(ValueError, match="continuous"):
        EntkClassifier(convolutional()).fit(X, np.linspace(0, 1, len(X)))
    with pytest.raises(ValueError, match="one class"):
        EntkClassifier(convolutional()).fit(X, np.full(len(X), "ant"))
    with pytest.raises(InputError, match="batch_size must be"):
        EntkClassifier(convolutional(), batch_size=0).fit(X, y)
