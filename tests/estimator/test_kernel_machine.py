import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.kernel_ridge import KernelRidge as SklearnKernelRidge

from pipeline.estimator import EntkClassifier, EntkRegressor
from pipeline.models.head import with_head
from pipeline.models.network import as_network
from pipeline.sketch import make_sketch
from pipeline.types import InputError


def network(seed: int = 0) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(seed)
    module = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(16, 12), torch.nn.GELU(), torch.nn.Linear(12, 5)
    )
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) / 3
    return module.eval()


def samples(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    X = rng.normal(size=(n, 4, 4)) + 3.0 * labels[:, None, None]
    return X.astype(np.float32), labels


def autograd_features(module: torch.nn.Module, X: np.ndarray) -> np.ndarray:
    module = module.double()
    rows = []
    for x in torch.from_numpy(X).double():
        gradients = torch.autograd.grad(module(x[None])[0, 0], list(module.parameters()))
        rows.append(torch.cat([g.flatten() for g in gradients]).numpy())
    return np.array(rows)


def test_scores_equal_dense_ridge_regression_on_autograd_gradients():
    X, y = samples(60)
    machine = EntkClassifier(network(), sketch="full", ridge=1e-2).fit(X[:45], y[:45])
    module = with_head(as_network(network()), "random", outputs=1, seed=0).module
    phi = autograd_features(module, X)
    K = phi @ phi.T
    Y = np.eye(3)[y[:45]]
    dense = SklearnKernelRidge(alpha=1e-2 * np.trace(K[:45, :45]) / 45, kernel="precomputed").fit(
        K[:45, :45], Y - Y.mean(0)
    )
    wanted = dense.predict(K[45:, :45]) + Y.mean(0)
    np.testing.assert_allclose(machine.decision_function(X[45:]), wanted, atol=2e-4)


def test_three_lines_classify_strings_and_give_probabilities():
    X, y = samples(90)
    names = np.array(["ant", "bee", "cat"])[y]
    machine = EntkClassifier(network(), sketch_size=150).fit(X[:60], names[:60])
    assert machine.score(X[60:], names[60:]) > 0.6
    probabilities = machine.predict_proba(X[60:])
    assert probabilities.shape == (30, 3)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0)
    assert machine.classes_.tolist() == ["ant", "bee", "cat"]
    assert machine.n_parameters_ == 150


def test_the_users_network_is_left_as_it_was():
    module = network().train()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    EntkClassifier(module, sketch_size=50).fit(*samples(20))
    assert module.training
    assert module[3].out_features == 5
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name])


@pytest.mark.parametrize("targets", [1, 2])
def test_regression_keeps_the_shape_of_its_targets(targets):
    X, _ = samples(80)
    y = np.stack([X.mean(axis=(1, 2)), X[:, 0, 0]], axis=1)[:, :targets]
    y = y[:, 0] if targets == 1 else y
    machine = EntkRegressor(network(), sketch="full").fit(X[:60], y[:60])
    assert machine.predict(X[60:]).shape == y[60:].shape
    assert machine.score(X[60:], y[60:]) > 0.7


def test_clones_are_unfitted_and_equal_fits_are_equal():
    X, y = samples(30)
    machine = EntkClassifier(network(), sketch_size=80, seed=3).fit(X, y)
    again = clone(machine)
    assert not hasattr(again, "ridge_")
    np.testing.assert_array_equal(
        again.fit(X, y).decision_function(X), machine.decision_function(X)
    )


def test_mistakes_are_named():
    X, y = samples(12)
    with pytest.raises(InputError, match="12 samples and y has 11"):
        EntkClassifier(network(), sketch_size=10).fit(X, y[:11])
    with pytest.raises(InputError, match="two classes"):
        EntkClassifier(network(), sketch_size=10).fit(X, np.zeros(12))
    with pytest.raises(InputError, match="parameters are asked for"):
        EntkClassifier(network(), sketch_size=10**6).fit(X, y)


def test_predictions_come_from_weights_in_feature_space_that_equal_the_kernels():
    X, y = samples(60)
    machine = EntkRegressor(network(), sketch="stratified", sketch_size=90, ridge=1e-2)
    machine.fit(X[:45], np.stack([y[:45], X[:45, 0, 0]], axis=1))
    assert machine.theta_.shape == (90, 2)
    phi = machine.features(X)
    np.testing.assert_allclose(
        machine.predict(X), phi.astype(np.float64) @ machine.theta_ + machine.intercept_
    )
    weights = make_sketch("stratified", machine.featurizer_.model, 90, 0).column_weights.numpy()
    K = (phi * weights**2) @ phi.T.astype(np.float64)
    ridge = 1e-2 * np.trace(K[:45, :45]) / 45
    Y = np.stack([y[:45], X[:45, 0, 0]], axis=1)
    dual = np.linalg.solve(K[:45, :45] + ridge * np.eye(45), Y - Y.mean(0))
    np.testing.assert_allclose(machine.predict(X), K[:, :45] @ dual + Y.mean(0), atol=2e-4)


def test_a_fitted_machine_holds_no_training_features():
    X, y = samples(45)
    machine = EntkClassifier(network(), sketch_size=100).fit(X, y)
    arrays = [value for value in vars(machine).values() if isinstance(value, np.ndarray)]
    assert all(array.shape[0] != len(X) for array in arrays)


def test_too_little_memory_is_refused_before_features_are_computed(monkeypatch):
    X, y = samples(45)
    available = type("Memory", (), {"available": 20_000})
    monkeypatch.setattr("psutil.virtual_memory", lambda: available)
    with pytest.raises(InputError, match=r"45 samples × 100 parameters need .*Lower sketch_size"):
        EntkClassifier(network(), sketch_size=100).fit(X, y)


class Mixing(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x - x.mean(0, keepdim=True)


class Noisy(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.dropout(x, 0.5)


@pytest.mark.parametrize(
    ("position", "layer", "message"),
    [
        (4, torch.nn.Softmax(1), "raw logits"),
        (2, torch.nn.BatchNorm1d(12, track_running_stats=False), "2 is a BatchNorm1d"),
        (2, Mixing(), "2 mixes the samples"),
        (2, Noisy(), "2 gives another output when it runs again"),
    ],
)
def test_networks_without_a_gradient_for_every_sample_are_refused_by_name(position, layer, message):
    X, y = samples(30)
    layers = list(network())
    layers.insert(position, layer)
    with pytest.raises(InputError, match=message):
        EntkClassifier(torch.nn.Sequential(*layers)).fit(X, y)


def test_dropout_and_batch_norm_of_a_network_in_training_mode_are_switched_off():
    X, y = samples(30)
    layers = list(network())
    layers[2:2] = [torch.nn.BatchNorm1d(12), torch.nn.Dropout(0.5)]
    module = torch.nn.Sequential(*layers).train()
    machine = EntkClassifier(module).fit(X, y)
    np.testing.assert_array_equal(machine.predict(X), machine.predict(X))
    assert module.training


def test_inputs_in_float64_are_computed_in_float32():
    X, y = samples(30)
    scores = [
        EntkClassifier(network(), ridge=1e-2).fit(x, y).decision_function(x)
        for x in (torch.from_numpy(X), torch.from_numpy(X).double())
    ]
    np.testing.assert_array_equal(*scores)
