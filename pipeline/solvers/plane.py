"""Validation scores over ridges and stopping times, from one eigensystem."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.solvers.agreement import Filters, ProbedSystem, agreeing
from pipeline.solvers.filters import Dynamics, stopping_filters
from pipeline.solvers.judge import Scorer
from pipeline.solvers.select import one_standard_error

T = TypeVar("T")

FLOAT32_TOL = 1e-6
"""From this ``tol`` on the rounding of float32 predictions does not show."""


@dataclass(frozen=True)
class PlaneRequest:
    """Which dynamics to follow from zero, and until when."""

    dynamics: Dynamics
    iterations: Sequence[int]
    """Ascending."""
    lambda_max: float

    def filters(self, ridges: Sequence[float]) -> Filters:
        """Filters of all (ridge, iteration) pairs, iterations varying fastest."""

        def filters(eigenvalues: Float[Tensor, " s"]) -> Float[Tensor, "q s"]:
            betas = torch.tensor(list(ridges), dtype=torch.float64, device=eigenvalues.device)
            recorded = stopping_filters(
                self.dynamics, eigenvalues, betas, self.lambda_max, self.iterations
            )
            return recorded.transpose(0, 1).flatten(0, 1)

        return filters


@dataclass(frozen=True)
class StoppingPlane:
    """Scores of every ridge (rows, descending) at every stopping time (columns, ascending)."""

    dynamics: Dynamics
    ridges: list[float]
    """Relative, as the path's."""
    iterations: list[int]
    values: list[list[float]]
    stderrs: list[list[float]]
    converged: list[list[bool]]
    """Whether two successive basis sizes agreed: others were not selected from."""
    selected_ridge: float
    selected_iterations: int
    """The pair within one standard error of the best: largest ridge, then fewest iterations."""


def stopping_plane(
    request: PlaneRequest,
    pair: tuple[ProbedSystem | None, ProbedSystem],
    scorer: Scorer,
    ridges: Sequence[float],
    unit: float,
    tol: float,
) -> StoppingPlane:
    """The plane over ``ridges`` (absolute, descending), and its selected point."""
    filters, t = request.filters(ridges), len(request.iterations)
    repeated = [ridge for ridge in ridges for _ in range(t)]
    precision = torch.float32 if tol >= FLOAT32_TOL else torch.float64
    grades = scorer(repeated, filters(pair[1].system.eigenvalues).to(precision))
    agreed: list[bool] = agreeing(*pair, filters, tol).tolist()
    chosen = one_standard_error(grades, agreed if any(agreed) else None)
    return StoppingPlane(
        dynamics=request.dynamics,
        ridges=[ridge / unit for ridge in ridges],
        iterations=list(request.iterations),
        values=_table([grade.value for grade in grades], t),
        stderrs=_table([grade.stderr for grade in grades], t),
        converged=_table(agreed, t),
        selected_ridge=repeated[chosen] / unit,
        selected_iterations=request.iterations[chosen % t],
    )


def _table(flat: list[T], width: int) -> list[list[T]]:
    return [flat[start : start + width] for start in range(0, len(flat), width)]
