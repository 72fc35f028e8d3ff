"""Scores without a validation split: leave-one-out in closed form, and GCV from the spectrum.

Leave-one-out: without row i the fit predicts Yᵢ − αᵢ / [(K + ridge·I)⁻¹]ᵢᵢ for it. Generalized
cross-validation: (1/nk) ‖Y − Kα‖² / (1 − df/n)², df the effective dimension. GCV is also the
random-matrix prediction of the test error (Wei, Hu & Steinhardt 2022, "More than a toy"), to be
read beside the measured one. The targets' mean is taken as given, not left out.
"""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from pipeline.solvers.eigensystem import Eigensystem
from pipeline.solvers.operator import KernelOperator
from pipeline.solvers.spectrum import Spectrum

MIN_FREE_SHARE = 1e-9
"""1 − df/n below which GCV is a ratio of roundings."""


def leave_one_out_predictions(
    system: Eigensystem, Y: Float[Tensor, "n k"], filters: Float[Tensor, " s"]
) -> Float[Tensor, "n k"]:
    """Each row's prediction by the ridge fit without it, from an exact eigensystem."""
    inverse_diagonal = system.basis.square() @ filters
    return Y - system.dual_weights(filters[:, None]) / inverse_diagonal[:, None]


def gcv(
    operator: KernelOperator, spectrum: Spectrum, ridge: float, dual_weights: Float[Tensor, "n k"]
) -> float | None:
    """GCV of a ridge solution, its residual being ridge·α; None where nothing is left free."""
    total = float(operator.inner(dual_weights, dual_weights).diagonal().sum())
    return gcv_from_norm(spectrum, ridge, total, operator.n, dual_weights.shape[1])


def gcv_from_norm(
    spectrum: Spectrum, ridge: float, weights_norm2: float, n: int, k: int
) -> float | None:
    """GCV from ‖α‖²_F."""
    free = spectrum.free_share(ridge) if ridge > 0 else 0.0
    if free < MIN_FREE_SHARE:
        return None
    return ridge**2 * weights_norm2 / (n * k) / free**2


def spectral_gcv(
    system: Eigensystem, spectrum: Spectrum, ridges: Sequence[float], filters: Tensor, n: int
) -> list[float | None]:
    """GCV of every ridge from the targets' coordinates: ‖α‖ = ‖g(Λ) UᵀY‖."""
    energy = system.coordinates.square().sum(dim=1)
    norms = (filters.square() @ energy).tolist()
    k = system.coordinates.shape[1]
    pairs = zip(ridges, norms, strict=True)
    return [gcv_from_norm(spectrum, ridge, norm, n, k) for ridge, norm in pairs]
