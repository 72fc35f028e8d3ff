"""One ridge, any solver: the same signature whatever road is taken."""

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from pipeline.solvers.cg import cg
from pipeline.solvers.cholesky import cholesky
from pipeline.solvers.eigh import eigh
from pipeline.solvers.lanczos import lanczos
from pipeline.solvers.nesterov import nesterov
from pipeline.solvers.operator import DenseKernel, KernelOperator
from pipeline.solvers.preconditioner import Deflation, leading_pairs, nystrom
from pipeline.solvers.solution import Solution
from pipeline.solvers.spectrum import Spectrum

MAX_ITERATIONS = 20_000

MAX_RITZ_RANK = 200
"""Leading pairs of a matrix-free kernel: their basis is three times as large."""


@dataclass(frozen=True)
class Problem:
    """What stays the same along a path of ridges."""

    operator: KernelOperator
    Y: Float[Tensor, "n k"]
    spectrum: Spectrum
    tol: float
    deflation: Deflation | None = None
    """Eigenpairs that precondition conjugate gradients."""


def solve(
    problem: Problem, ridge: float, solver: str, start: Float[Tensor, "n k"] | None = None
) -> Solution:
    """(K + ridge·I)⁻¹Y by the named solver; iterative ones begin at ``start``."""
    return _ROADS[solver](problem, ridge, start)


def deflation_rank(n: int, columns: int) -> int:
    """Eigenpairs worth making to solve for ``columns`` targets, over all ridges together.

    Nyström's 6 n rank² operations then cost what a few products with K do; a fifth of n at most.
    """
    return max(1, min(n // 5, round((2 * n * columns) ** 0.5)))


def default_deflation(operator: KernelOperator, columns: int, seed: int = 0) -> Deflation:
    """Nyström where K's columns are at hand, else leading Ritz pairs."""
    rank = deflation_rank(operator.n, columns)
    if isinstance(operator, DenseKernel):
        return nystrom(operator, rank, seed=seed)
    return leading_pairs(operator, min(rank, MAX_RITZ_RANK), seed=seed)


_Road = Callable[[Problem, float, Tensor | None], Solution]


def _cg(problem: Problem, ridge: float, start: Tensor | None) -> Solution:
    deflation = problem.deflation
    return cg(
        problem.operator,
        problem.Y,
        ridge,
        tol=problem.tol,
        max_iterations=MAX_ITERATIONS,
        root=deflation.root(problem.operator, ridge) if deflation else None,
        start=start,
    )


def _nesterov(problem: Problem, ridge: float, start: Tensor | None) -> Solution:
    return nesterov(
        problem.operator,
        problem.Y,
        ridge,
        problem.spectrum.lambda_max,
        tol=problem.tol,
        max_iterations=MAX_ITERATIONS,
        start=start,
    )


_ROADS: dict[str, _Road] = {
    "cg": _cg,
    "nesterov": _nesterov,
    "cholesky": lambda problem, ridge, start: cholesky(problem.operator, problem.Y, ridge),
    "eigh": lambda problem, ridge, start: eigh(problem.operator, problem.Y, ridge),
    "lanczos": lambda problem, ridge, start: lanczos(
        problem.operator, problem.Y, ridge, tol=problem.tol
    ),
}
