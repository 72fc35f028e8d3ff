"""How well a backbone will serve a task, told from its kernel before anything is fine-tuned.

All of it comes from one eigendecomposition of K on the task's training rows: the alignment of K
with the labels, leave-one-out accuracy and GCV at the best ridge (GCV is the random-matrix
prediction of the test error: Wei, Hu and Steinhardt 2022, "More than a toy"), and the learning
curve over n that spectrum and targets imply.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from scipy.optimize import brentq
from torch import Tensor

from pipeline.solvers.cross_validation import leave_one_out_predictions, spectral_gcv
from pipeline.solvers.eigh import eigh_system
from pipeline.solvers.filters import ridge_filter
from pipeline.solvers.operator import Array, DenseKernel
from pipeline.solvers.refusal import check_kernel
from pipeline.solvers.ridge_scale import default_ridges
from pipeline.solvers.spectrum import exact_spectrum
from pipeline.solvers.targets import CenteredTargets
from pipeline.types import InputError


@dataclass(frozen=True)
class Transferability:
    """What the kernel of a task's training rows predicts, each number by another argument."""

    label_alignment: float
    """⟨K, YYᵀ⟩ / (‖K‖ ‖YYᵀ‖), Y centred."""
    gcv: float
    """The smallest GCV over the ridges: predicted mean squared error, a target."""
    ridge: float
    """Where it is smallest, absolute."""
    loo_accuracy: float
    """The best leave-one-out accuracy over the ridges."""
    effective_dimension: float
    """tr K(K + ridge·I)⁻¹ at the ridge of the smallest GCV."""


def transferability(K: Array, targets: CenteredTargets, labels: ndarray) -> Transferability:
    """The predictions for a classification with kernel K (n, n)."""
    operator = DenseKernel(K)
    check_kernel(operator.K)
    Y = targets.matrix
    if not len(Y) == len(labels) == operator.n:
        raise InputError(f"K has {operator.n} rows, {len(Y)} targets and {len(labels)} labels.")
    system = eigh_system(operator, Y)
    spectrum = exact_spectrum(system.eigenvalues)
    ridges = default_ridges(operator, spectrum.lambda_max)
    filters = torch.stack([ridge_filter(system.eigenvalues, ridge) for ridge in ridges])
    scores = spectral_gcv(system, spectrum, ridges, filters, operator.n)
    best = int(np.argmin([np.inf if score is None else score for score in scores]))
    hits = [
        _accuracy(leave_one_out_predictions(system, Y, each) + targets.mean, labels)
        for each in filters
    ]
    inner = float((system.eigenvalues[:, None] * system.coordinates.square()).sum())
    return Transferability(
        label_alignment=inner / float(system.eigenvalues.norm() * (Y.T @ Y).norm()),
        gcv=float(scores[best] or np.inf),
        ridge=float(ridges[best]),
        loo_accuracy=max(hits),
        effective_dimension=spectrum.effective_dimension(ridges[best])[0],
    )


def learning_curve(
    eigenvalues: Float[Tensor, " s"],
    coordinates: Float[Tensor, "s k"],
    sizes: Sequence[int],
    ridge: float,
    noise: float = 0.0,
) -> Float[ndarray, " t"]:
    """Expected squared test error, summed over targets, of ridge regression on n rows, each n.

    ``eigenvalues`` are the kernel's on N rows and ``coordinates`` the targets' in their
    eigenvectors (UᵀY); both are divided here by what makes them estimates of the population's. The
    formula is that of Bordelon, Canatar and Pehlevan (2020) in the form of Simon et al. (2021,
    "The eigenlearning framework"): with κ from Σ λ/(λ + κ) + ridge/κ = n and L = λ/(λ + κ),

        E = n / (n − Σ L²) · (Σ (1 − L)² v² + noise).

    ``noise`` is the label noise's variance, in squared units of the targets, over all targets.
    """
    N = len(eigenvalues)
    lam = (eigenvalues.clamp(min=0) / N).numpy()
    v2 = (coordinates.square().sum(dim=1) / N).numpy()
    if not sizes or min(sizes) < 1 or max(sizes) > N:
        raise InputError(f"sizes of a learning curve are 1 … {N}, found {list(sizes)}.")
    return np.array([_expected_error(lam, v2, n, ridge, noise) for n in sizes])


def _expected_error(lam: ndarray, v2: ndarray, n: int, ridge: float, noise: float) -> float:
    def excess(log_kappa: float) -> float:
        kappa = np.exp(log_kappa)
        return float((lam / (lam + kappa)).sum() + ridge / kappa - n)

    # Σ λ/(λ + κ) < Σ λ/κ: the root lies below (Σ λ + ridge)/n.
    top = float(np.log((lam.sum() + ridge) / n))
    bottom = top - 1.0
    while excess(bottom) < 0:
        bottom -= 5.0
        if bottom < top - 200:
            raise InputError(
                f"{n} rows can be interpolated exactly by the {int((lam > 0).sum())} directions "
                "of the kernel and the ridge is 0: there is no learning curve. Use a ridge above 0."
            )
    learned = lam / (lam + np.exp(brentq(excess, bottom, top, xtol=1e-12)))
    overfitting = n / (n - float((learned**2).sum()))
    return overfitting * (float(((1 - learned) ** 2 * v2).sum()) + noise)


def _accuracy(scores: Float[Tensor, "n k"], labels: ndarray) -> float:
    return float(np.mean(scores.argmax(dim=1).numpy() == labels))
