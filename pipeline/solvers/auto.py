"""Which solver ``auto`` takes, from n, the targets, the path's length and the device, and why."""

import logging
from dataclasses import dataclass
from typing import Literal

from pipeline.solvers.operator import DenseKernel, KernelOperator
from pipeline.types import InputError

logger = logging.getLogger(__name__)

SolverKind = Literal["auto", "nesterov", "cg", "lanczos", "cholesky", "eigh"]

SOLVERS: tuple[str, ...] = ("nesterov", "cg", "lanczos", "cholesky", "eigh")

CHOLESKY_ROWS = {"cpu": 8_000, "cuda": 40_000}
"""Up to here one factorization is a matter of seconds: n³/3 float64 operations and 8n² bytes."""

EIGH_ROWS = {"cpu": 1_000, "cuda": 1_000}
"""Up to here an eigendecomposition costs less than the path's own arithmetic."""

EXPECTED_STEPS = 60
"""Block Lanczos steps that a path of ridges down to 1e-6 λ_max usually takes."""


@dataclass(frozen=True)
class Choice:
    """A solver and the reason for it."""

    solver: str
    reason: str


def choose_solver(solver: str, operator: KernelOperator, targets: int, *, path: bool) -> Choice:
    """The solver asked for, or the choice of ``auto``, which is logged."""
    if solver != "auto":
        if solver not in SOLVERS:
            raise InputError(
                f"unknown solver {solver!r}; choose 'auto' or one of {', '.join(SOLVERS)}."
            )
        return Choice(solver, "asked for")
    choice = _path_solver(operator, targets) if path else _point_solver(operator)
    logger.info("solver %s: %s", choice.solver, choice.reason)
    return choice


def _path_solver(operator: KernelOperator, targets: int) -> Choice:
    n, device = operator.n, operator.device.type
    if not isinstance(operator, DenseKernel):
        return Choice("lanczos", "the kernel is known by its products only")
    if n <= EIGH_ROWS.get(device, 0):
        return Choice("eigh", f"n = {n}: an eigendecomposition is cheap and exact")
    if EXPECTED_STEPS * targets > n // 2:
        return Choice(
            "eigh", f"a Krylov basis for {targets} targets would fill half of n = {n} dimensions"
        )
    return Choice("lanczos", f"one basis serves every ridge and stopping time at n = {n}")


def _point_solver(operator: KernelOperator) -> Choice:
    n, device = operator.n, operator.device.type
    if not isinstance(operator, DenseKernel):
        return Choice("cg", "the kernel is known by its products only")
    if n <= CHOLESKY_ROWS.get(device, 0):
        return Choice("cholesky", f"one ridge at n = {n} on {device}: one factorization")
    return Choice("cg", f"one ridge at n = {n} on {device}: a factorization would cost n³/3")
