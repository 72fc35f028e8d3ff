"""A ridge for each target, where targets differ in noise: chosen by validation squared error."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.solvers.auto import choose_solver
from pipeline.solvers.cross import CrossKernel
from pipeline.solvers.eigensystem import CrossRows, Eigensystem, filtered_chunks
from pipeline.solvers.eigh import eigh_system
from pipeline.solvers.filters import ridge_filter
from pipeline.solvers.lanczos import growing_systems
from pipeline.solvers.operator import Array, KernelOperator, as_columns
from pipeline.solvers.refusal import check_targets
from pipeline.solvers.ridge_path import checked_operator
from pipeline.solvers.ridge_scale import RidgeScale, default_ridges, ridge_unit
from pipeline.solvers.select import Grade, one_standard_error
from pipeline.solvers.spectral_path import ridge_filters
from pipeline.solvers.spectrum import spectrum_of


@dataclass(frozen=True)
class PerTargetResult:
    """One ridge a target, and the weights of all."""

    ridges: list[float]
    """In units of ``ridge_scale``."""
    ridges_absolute: list[float]
    errors: list[float]
    """Validation mean squared error of each target at its ridge."""
    dual_weights: Float[Tensor, "n k"]
    converged: bool
    """Whether two successive basis sizes chose the same ridges and predict alike to ``tol``."""


def fit_per_target(
    K: Array | KernelOperator,
    Y: Array,
    K_val: Array | CrossKernel,
    Y_val: Array,
    *,
    solver: Literal["auto", "lanczos", "eigh"] = "auto",
    ridges: Sequence[float] | None = None,
    ridge_scale: RidgeScale = "trace",
    tol: float = 1e-6,
) -> PerTargetResult:
    """The ridge of each target with the smallest validation error, ties to the larger ridge.

    ``ridges`` are relative to ``ridge_scale``; without them 40 from λ_max down to what K's rounding
    allows. All come from one basis.
    """
    operator = checked_operator(K)
    targets, wanted = as_columns(Y, operator.device), as_columns(Y_val, operator.device)
    check_targets(operator, targets)
    largest = spectrum_of(operator).lambda_max
    unit = ridge_unit(operator, ridge_scale, largest)
    grid = default_ridges(operator, largest)
    if ridges is not None:
        grid = sorted((ridge * unit for ridge in ridges), reverse=True)
    choice = choose_solver(solver, operator, targets.shape[1], path=True)
    exact = choice.solver == "eigh"
    systems = (
        iter([(0, eigh_system(operator, targets))]) if exact else growing_systems(operator, targets)
    )
    rows = CrossRows(K_val)
    before: _Fit | None = None
    for _, system in systems:
        now = _fit(system, rows.on(system), wanted, grid)
        settled = system.exact or (before is not None and now.agrees(before, tol))
        before = now
        if settled:
            break
    assert before is not None, "there is always one system"
    absolute = [grid[i] for i in before.chosen]
    return PerTargetResult(
        ridges=[ridge / unit for ridge in absolute],
        ridges_absolute=absolute,
        errors=before.errors,
        dual_weights=before.system.dual_weights(before.filters),
        converged=settled,
    )


@dataclass(frozen=True)
class _Fit:
    system: Eigensystem
    chosen: list[int]
    errors: list[float]
    filters: Float[Tensor, "s k"]
    predictions: Float[Tensor, "m k"]

    def agrees(self, other: "_Fit", tol: float) -> bool:
        change = (self.predictions - other.predictions).norm()
        return self.chosen == other.chosen and bool(change <= tol * self.predictions.norm())


def _fit(system: Eigensystem, projected: Tensor, wanted: Tensor, ridges: Sequence[float]) -> _Fit:
    filters = ridge_filters(ridges)(system.eigenvalues)
    squares = [
        (predictions - wanted).square()
        for chunk in filtered_chunks(projected, filters, system.coordinates)
        for predictions in chunk
    ]
    errors = torch.stack([square.mean(dim=0) for square in squares])
    chosen = [
        one_standard_error([Grade(-square[:, j]) for square in squares])
        for j in range(wanted.shape[1])
    ]
    own = torch.stack([ridge_filter(system.eigenvalues, ridges[i]) for i in chosen], dim=1)
    return _Fit(
        system,
        chosen,
        [float(errors[i, j]) for j, i in enumerate(chosen)],
        own,
        projected @ (own * system.coordinates),
    )
