"""The iterates of early stopping, recorded at chosen iterations: by Krylov basis or one by one.

The basis replays thousands of iterations on its small projected matrix; where two successive
sizes do not agree to ``tol`` the recursion itself is run, so the answer is the same either way.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.solvers.agreement import ProbedSystem, agreeing, train_probe
from pipeline.solvers.cross import CrossKernel, as_cross
from pipeline.solvers.eigensystem import Eigensystem, filtered_chunks
from pipeline.solvers.eigh import eigh_system
from pipeline.solvers.filters import Dynamics
from pipeline.solvers.lanczos import growing_systems
from pipeline.solvers.nesterov import descent_iterates, nesterov_iterates
from pipeline.solvers.operator import (
    Array,
    DenseKernel,
    KernelOperator,
    as_columns,
    as_operator,
)
from pipeline.solvers.plane import PlaneRequest
from pipeline.solvers.refusal import check_kernel, check_targets
from pipeline.solvers.ridge_scale import RidgeScale, ridge_unit
from pipeline.solvers.spectrum import spectrum_of
from pipeline.types import InputError

logger = logging.getLogger(__name__)

ITERATES = {"nesterov": nesterov_iterates, "descent": descent_iterates}


@dataclass(frozen=True)
class SpectralTrajectory:
    """Iterates as filters of an eigensystem."""

    iterations: Sequence[int]
    ridge_absolute: float
    lambda_max: float
    """The step was 1/(λ_max + ridge)."""
    solver: str
    system: Eigensystem
    filters: Float[Tensor, "t s"]

    def dual_weights(self, iteration: int) -> Float[Tensor, "n k"]:
        """α at a recorded iteration."""
        place = list(self.iterations).index(iteration)
        return self.system.dual_weights(self.filters[place][:, None])

    def predictions(self, K_cross: Array | CrossKernel) -> Iterator[Float[Tensor, "m k"]]:
        """K_cross α_t at every recorded iteration, in order."""
        projected = self.system.project(K_cross)
        for chunk in filtered_chunks(projected, self.filters, self.system.coordinates):
            yield from chunk


@dataclass(frozen=True)
class RecordedTrajectory:
    """Iterates kept as they came."""

    iterations: Sequence[int]
    ridge_absolute: float
    lambda_max: float
    solver: str
    recorded: dict[int, Float[Tensor, "n k"]]

    def dual_weights(self, iteration: int) -> Float[Tensor, "n k"]:
        """α at a recorded iteration."""
        return self.recorded[iteration]

    def predictions(self, K_cross: Array | CrossKernel) -> Iterator[Float[Tensor, "m k"]]:
        """K_cross α_t at every recorded iteration, in order: one pass over K_cross."""
        together = torch.cat([self.recorded[t] for t in self.iterations], dim=1)
        yield from as_cross(K_cross).matvec(together).chunk(len(self.iterations), dim=1)


Trajectory = SpectralTrajectory | RecordedTrajectory
"""Iterates α_t at the recorded iterations."""


def trajectory(
    K: Array | KernelOperator,
    Y: Array,
    ridge: float,
    iterations: Sequence[int],
    *,
    dynamics: Dynamics = "nesterov",
    solver: Literal["auto", "lanczos", "eigh", "plain"] = "auto",
    ridge_scale: RidgeScale = "trace",
    tol: float = 1e-6,
    seed: int = 0,
) -> Trajectory:
    """α_t of the dynamics without restart, at ``iterations`` (ascending).

    ``plain`` runs the recursion; ``lanczos`` (``auto``) replays it on a Krylov basis and falls
    back to it; ``eigh`` is exact.
    """
    if list(iterations) != sorted(set(iterations)) or not iterations or iterations[0] < 1:
        raise InputError(f"iterations must be ascending and at least 1, found {list(iterations)}.")
    operator = as_operator(K)
    if isinstance(operator, DenseKernel):
        check_kernel(operator.K)
    targets = as_columns(Y, operator.device)
    check_targets(operator, targets)
    lambda_max = spectrum_of(operator, seed=seed).lambda_max
    absolute = ridge * ridge_unit(operator, ridge_scale, lambda_max)
    request = PlaneRequest(dynamics, iterations, lambda_max)
    if solver != "plain":
        found = _spectral(operator, targets, absolute, request, solver, tol)
        if found is not None:
            return found
        logger.info("early stopping: the Krylov basis did not settle, running the iterations")
    return _recorded(operator, targets, absolute, request)


def _spectral(
    operator: KernelOperator,
    Y: Tensor,
    ridge: float,
    request: PlaneRequest,
    solver: str,
    tol: float,
) -> SpectralTrajectory | None:
    filters = request.filters([ridge])
    systems = (
        iter([(0, eigh_system(operator, Y))]) if solver == "eigh" else growing_systems(operator, Y)
    )
    probe = train_probe(operator)
    previous = None
    for _, system in systems:
        current = ProbedSystem(system, probe(system))
        if bool(agreeing(previous, current, filters, tol).all()):
            return SpectralTrajectory(
                iterations=request.iterations,
                ridge_absolute=ridge,
                lambda_max=request.lambda_max,
                solver="eigh" if solver == "eigh" else "lanczos",
                system=system,
                filters=filters(system.eigenvalues),
            )
        previous = current
    return None


def _recorded(
    operator: KernelOperator, Y: Tensor, ridge: float, request: PlaneRequest
) -> RecordedTrajectory:
    if request.dynamics not in ITERATES:
        raise InputError(
            "gradient flow has no iterations to run, and its Krylov basis did not settle. "
            "Use solver='eigh', or fewer iterations."
        )
    run = ITERATES[request.dynamics]
    recorded = dict(run(operator, Y, ridge, request.lambda_max, request.iterations))
    return RecordedTrajectory(
        request.iterations, ridge, request.lambda_max, request.dynamics, recorded
    )
