"""Classification as regression on transformed labels: Gaussian-process regression, in closed form.

Every label becomes a Dirichlet of concentration α = α_ε + [class is the label], and each class's
Gamma variable a log-normal of the same moments (Milios et al. 2018, "Dirichlet-based Gaussian
processes for large-scale calibrated classification"):

    σ² = log(1 + 1/α),   y = log α − σ²/2

a regression with a noise of its own for every sample and class; class probabilities are the mean
softmax of its draws.
"""

from dataclasses import dataclass
from typing import Self

from jaxtyping import Float, Int
from torch import Tensor

from pipeline.gp.classification import (
    LinearizedClassifier,
    labelled_rows,
    likeliest_outputscale,
)
from pipeline.gp.condition import Posterior, condition
from pipeline.gp.linearization import Linearization, LinearRows
from pipeline.types import InputError, Inputs

CONCENTRATION = 0.01
"""α_ε of Milios et al.: what every class has before a label is seen."""


@dataclass(frozen=True)
class DirichletLabels:
    """Labels as regression targets, with their noise."""

    targets: Float[Tensor, "n k"]
    noise: Float[Tensor, "n k"]

    @classmethod
    def of(cls, Y: Float[Tensor, "n k"], concentration: float = CONCENTRATION) -> Self:
        """From one-hot labels."""
        if not concentration > 0:
            raise InputError(f"the concentration must be above 0, got {concentration}.")
        alpha = concentration + Y
        noise = (1 / alpha).log1p()
        return cls(alpha.log() - noise / 2, noise)


def dirichlet_classifier(
    linearization: Linearization,
    inputs: Inputs,
    labels: Int[Tensor, " n"],
    *,
    outputscale: float | None = None,
    concentration: float = CONCENTRATION,
) -> LinearizedClassifier:
    """The posterior of transformed labels; predict with rule ``monte_carlo``.

    Without an outputscale, the one of the largest marginal likelihood.
    """
    found, Y = labelled_rows(linearization, inputs, labels)
    posterior = dirichlet_posterior(found, Y, outputscale, concentration)
    return LinearizedClassifier(linearization, posterior, converged=True)


def dirichlet_posterior(
    found: LinearRows,
    Y: Float[Tensor, "n k"],
    outputscale: float | None = None,
    concentration: float = CONCENTRATION,
) -> Posterior:
    """The posterior of logits given rows, mean function and one-hot labels.

    Targets are measured from their mean over samples and classes, so that the prior mean says
    nothing of any class.
    """
    transformed = DirichletLabels.of(Y, concentration)
    residuals = transformed.targets - transformed.targets.mean() - found.offsets

    def given(s: float) -> Posterior:
        noise = transformed.noise.reshape(-1)
        posterior: Posterior = condition(found.rows, residuals.reshape(-1, 1), s, noise)
        return posterior

    if outputscale is None:
        outputscale = likeliest_outputscale(
            found.rows, lambda s: given(s).log_marginal_likelihood()
        )
    return given(outputscale)
