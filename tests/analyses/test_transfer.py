import numpy as np
import pytest
import torch
from reference import dense_ridge
from small_kernels import features

from pipeline.analyses.transfer import learning_curve, transferability
from pipeline.solvers.targets import class_targets
from pipeline.types import InputError


def test_leave_one_out_accuracy_is_that_of_refits():
    phi = features(40, seed=2)
    labels = (phi[:, :3] / phi[:, :3].std(dim=0)).argmax(dim=1).numpy()
    K, targets = phi @ phi.T, class_targets(labels, 3)
    found = transferability(K, targets, labels)
    best = 0.0
    for ridge in np.geomspace(float(torch.linalg.eigvalsh(K)[-1]), 1e-7, 60):
        hits = 0
        for i in range(40):
            kept = [j for j in range(40) if j != i]
            alpha = dense_ridge(K[kept][:, kept], targets.matrix[kept], float(ridge))
            hits += int((K[i, kept] @ alpha + targets.mean).argmax()) == labels[i]
        best = max(best, hits / 40)
    assert found.loo_accuracy == pytest.approx(best, abs=0.051)


def test_label_alignment_is_the_cosine_with_the_targets_kernel():
    phi = features(40, seed=2)
    labels = (phi[:, :3] / phi[:, :3].std(dim=0)).argmax(dim=1).numpy()
    K, targets = phi @ phi.T, class_targets(labels, 3)
    YY = targets.matrix @ targets.matrix.T
    expected = float((K * YY).sum() / (K.norm() * YY.norm()))
    found = transferability(K, targets, labels)
    assert found.label_alignment == pytest.approx(expected, rel=1e-10)


def test_a_kernel_that_knows_the_classes_transfers_better_than_one_that_does_not():
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    signal = torch.nn.functional.one_hot(torch.from_numpy(labels), 3).double()
    noise = features(60, seed=1)
    good = torch.cat([3 * signal, noise], dim=1)
    targets = class_targets(labels, 3)
    better = transferability(good @ good.T, targets, labels)
    shuffled = noise[torch.from_numpy(rng.permutation(60))]
    worse = transferability(shuffled @ shuffled.T, targets, labels)
    assert better.loo_accuracy > worse.loo_accuracy
    assert better.label_alignment > worse.label_alignment
    assert better.gcv < worse.gcv


@pytest.mark.parametrize("ridge", [1e-3, 0.3])
def test_the_learning_curve_is_the_mean_of_simulated_regressions(ridge):
    """Gaussian features with known eigenvalues: the setting in which the theory is exact."""
    generator = torch.Generator().manual_seed(0)
    p, sizes, trials = 60, [10, 40, 100], 60
    lam = torch.arange(1, p + 1, dtype=torch.float64) ** -1.5
    v = torch.randn(p, 1, generator=generator, dtype=torch.float64) * lam.sqrt()[:, None]
    noise = 0.01
    # Times the rows that the estimates divide by, so that they are the population's.
    whole = torch.cat([lam, torch.zeros(60, dtype=torch.float64)]) * 120
    coordinates = torch.cat([v, torch.zeros(60, 1, dtype=torch.float64)]) * 120**0.5
    predicted = learning_curve(whole, coordinates, sizes, ridge, noise)
    for n, expected in zip(sizes, predicted, strict=True):
        errors = []
        for _ in range(trials):
            g = torch.randn(n, p, generator=generator, dtype=torch.float64)
            y = g @ v + noise**0.5 * torch.randn(n, 1, generator=generator, dtype=torch.float64)
            phi = g * lam.sqrt()
            alpha = dense_ridge(phi @ phi.T, y, ridge)
            weights = lam.sqrt()[:, None] * (phi.T @ alpha) - v
            # The test error over fresh whitened inputs, in closed form.
            errors.append(float(weights.square().sum()) + noise)
        mean, stderr = np.mean(errors), np.std(errors) / trials**0.5
        assert expected == pytest.approx(mean, rel=0.05, abs=4 * stderr)


def test_sizes_beyond_the_kernel_are_refused():
    ones = torch.ones(5, dtype=torch.float64)
    with pytest.raises(InputError, match=r"1 … 5"):
        learning_curve(ones, ones[:, None], [6], 0.1)
