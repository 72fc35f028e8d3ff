import pytest
import torch
from torch import nn

from pipeline.gp.categorical import one_hot
from pipeline.gp.class_probabilities import class_probabilities
from pipeline.gp.classification import LinearizedClassifier, best_outputscale, labelled_rows
from pipeline.gp.dirichlet import DirichletLabels, dirichlet_classifier
from pipeline.gp.implicit import NotConvergedError
from pipeline.gp.laplace import laplace
from pipeline.gp.linearization import Linearization
from pipeline.gp.variational import VariationalFit, VariationalOptions, variational_classifier
from pipeline.types import InputError


@pytest.fixture(scope="module")
def blobs():
    """Three classes around the corners of a triangle, and an untrained network."""
    torch.manual_seed(0)
    corners = torch.tensor([[2.0, 0.0], [-1.0, 1.7], [-1.0, -1.7]], dtype=torch.float64)
    labels = torch.arange(60) % 3
    x = corners[labels] + 0.7 * torch.randn(60, 2, dtype=torch.float64)
    model = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 3)).double().eval()
    return model, x[:36], labels[:36], x[36:], labels[36:]


def generator():
    return torch.Generator().manual_seed(0)


def nll(probabilities, labels):
    return float(-probabilities[torch.arange(len(labels)), labels].log().mean())


@pytest.mark.parametrize("mean", ["zero", "network", "linearized"])
@pytest.mark.parametrize("rule", ["map", "probit", "monte_carlo"])
def test_laplace_classifies_with_every_mean_and_rule(blobs, mean, rule):
    model, x, labels, x_test, labels_test = blobs
    classifier = LinearizedClassifier.of(Linearization(model, mean=mean), x, labels)
    q = classifier.probabilities(x_test, rule, generator=generator())
    torch.testing.assert_close(q.sum(1), torch.ones(24).double())
    assert float((q.argmax(1) == labels_test).double().mean()) > 0.9
    assert nll(q, labels_test) < 0.5


def test_the_chosen_outputscale_has_the_largest_evidence(blobs):
    model, x, labels, *_ = blobs
    found, Y = labelled_rows(Linearization(model), x, labels)
    best = best_outputscale(found, Y)

    def evidence(s):
        return laplace(found.rows, found.offsets, Y, s).log_marginal_likelihood()

    assert evidence(best) > max(evidence(best / 1.5), evidence(best * 1.5))


def test_monte_carlo_agrees_with_many_draws_by_hand():
    mean = torch.tensor([[0.5, -0.2, 0.1]], dtype=torch.float64)
    root = torch.randn(1, 3, 3, generator=generator(), dtype=torch.float64)
    draws = mean + torch.randn(200_000, 3, generator=generator(), dtype=torch.float64) @ root[0].T
    wanted = draws.softmax(1).mean(0, keepdim=True)
    found = class_probabilities(
        mean, root @ root.mT, "monte_carlo", generator=generator(), draws=200_000
    )
    torch.testing.assert_close(found, wanted, atol=5e-3, rtol=0)
    certain = class_probabilities(mean, torch.zeros(1, 3, 3).double(), "probit")
    torch.testing.assert_close(certain, mean.softmax(1))


def test_dirichlet_labels_have_the_published_moments():
    found = DirichletLabels.of(one_hot(torch.tensor([1]), 3), 0.01)
    noise = torch.tensor([101.0, 1 + 1 / 1.01, 101.0], dtype=torch.float64).log()
    alpha = torch.tensor([0.01, 1.01, 0.01], dtype=torch.float64)
    torch.testing.assert_close(found.noise[0], noise)
    torch.testing.assert_close(found.targets[0], alpha.log() - noise / 2)


def test_dirichlet_labels_choose_the_likeliest_outputscale(blobs):
    model, x, labels, _, _ = blobs
    found = dirichlet_classifier(Linearization(model), x, labels).posterior
    best = found.log_marginal_likelihood()
    for factor in (0.9, 1.1):
        near = dirichlet_classifier(
            Linearization(model), x, labels, outputscale=factor * found.outputscale
        )
        assert near.posterior.log_marginal_likelihood() < best


def test_dirichlet_regression_classifies(blobs):
    model, x, labels, x_test, labels_test = blobs
    classifier = dirichlet_classifier(Linearization(model), x, labels, outputscale=3.0)
    q = classifier.probabilities(x_test, "monte_carlo", generator=generator())
    assert float((q.argmax(1) == labels_test).double().mean()) > 0.9
    assert nll(q, labels_test) < 0.5


def test_variational_inference_nears_the_map_and_its_evidence(blobs):
    model, x, labels, x_test, labels_test = blobs
    linearization = Linearization(model)
    found, Y = labelled_rows(linearization, x, labels)
    s = 1.0
    exact = laplace(found.rows, found.offsets, Y, s)
    classifier, fit = variational_classifier(
        linearization,
        x,
        labels,
        outputscale=s,
        options=VariationalOptions(steps=1_500, batch=36, learning_rate=0.02),
    )
    # The bound lies below the evidence, and mean-field loses what correlations hold.
    assert fit.elbo < exact.log_marginal_likelihood() + 3 * fit.elbo_stderr
    assert fit.elbo > 2 * exact.log_marginal_likelihood()
    q = classifier.probabilities(x_test, allow_unconverged=True)
    wanted = class_probabilities(
        exact.mean(linearization.rows(x_test)).reshape(-1, 3), torch.zeros(24, 3, 3).double(), "map"
    )
    assert float((q - wanted).abs().mean()) < 0.1
    assert nll(q, labels_test) < 0.5


def test_too_few_steps_are_said(blobs):
    model, x, labels, *_ = blobs
    found, Y = labelled_rows(Linearization(model), x, labels)
    options = VariationalOptions(steps=100, batch=36, learning_rate=0.05)
    fit = VariationalFit.of(found.rows, found.offsets, Y, 1.0, options)
    assert not fit.converged
    classifier = LinearizedClassifier(Linearization(model), fit.posterior, fit.converged)
    with pytest.raises(NotConvergedError):
        classifier.probabilities(x)
    classifier.probabilities(x, "map")


def test_classification_needs_all_outputs_and_fitting_labels(blobs):
    model, x, labels, *_ = blobs
    with pytest.raises(InputError, match="output='all'"):
        labelled_rows(Linearization(model, output=0), x, labels)
    with pytest.raises(InputError, match="36 samples and 35 labels"):
        labelled_rows(Linearization(model), x, labels[:-1])
    with pytest.raises(InputError, match="Generator"):
        LinearizedClassifier.of(Linearization(model), x, labels, outputscale=1.0).probabilities(
            x, "monte_carlo"
        )
