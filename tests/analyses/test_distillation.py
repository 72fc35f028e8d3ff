import pytest
import torch
from scipy.stats import multivariate_normal
from small_networks import points, tanh_network

from pipeline.analyses.distillation import TARGETS, gaussian_mixture, noisy_labels, teach
from pipeline.types import InputError


def test_the_posteriors_are_bayes_rule():
    found = gaussian_mixture(50, k=3, d=4, spread=0.7, seed=1)
    # The classes' means again, from their definition.
    means = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    means /= means.norm(dim=1, keepdim=True)
    densities = torch.stack(
        [
            torch.from_numpy(multivariate_normal(m.numpy(), 0.49).pdf(found.x.numpy()))
            for m in means
        ],
        dim=1,
    )
    expected = (densities / densities.sum(dim=1, keepdim=True)).float()
    torch.testing.assert_close(found.truth, expected, rtol=1e-4, atol=1e-5)


def test_labels_follow_the_posteriors():
    found = gaussian_mixture(20_000, spread=0.5)
    confident = found.truth.max(dim=1).values
    right = (found.truth.argmax(dim=1) == found.labels).float()
    assert float(right.mean()) == pytest.approx(float(confident.mean()), abs=0.01)


def test_noise_changes_its_share_of_labels_to_other_classes():
    labels = torch.zeros(20_000, dtype=torch.int64)
    noisy = noisy_labels(labels, 4, 0.3, seed=0)
    assert float((noisy != labels).double().mean()) == pytest.approx(0.3, abs=0.01)
    assert sorted(noisy.unique().tolist()) == [0, 1, 2, 3]
    assert torch.equal(noisy_labels(labels, 4, 0.0, seed=0), labels)


def test_every_target_is_a_distribution():
    one_hot = torch.eye(3).double().repeat(6, 1)
    validation = (points(9, seed=3), torch.arange(9) % 3)
    teacher = teach(tanh_network(), points(18), one_hot, validation, epochs=3, learning_rate=0.05)
    assert 1 <= teacher.best_epoch <= 3
    for make in TARGETS.values():
        target = make(one_hot, teacher)
        torch.testing.assert_close(target.sum(dim=1), torch.ones(18, dtype=torch.float64))
    assert torch.equal(teacher.early, teacher.path[teacher.best_epoch])


def test_a_mixture_of_one_class_is_refused():
    with pytest.raises(InputError, match="k > 1"):
        gaussian_mixture(5, k=1)
