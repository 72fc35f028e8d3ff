"""From a kernel and a validation split to the selected ridge, its weights and its certificate."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from pipeline.solvers.agreement import cross_probe, train_probe
from pipeline.solvers.auto import Choice, SolverKind, choose_solver
from pipeline.solvers.certificate import certify, true_residual
from pipeline.solvers.cg import cg
from pipeline.solvers.cholesky import cholesky_factor, leave_one_out_residuals
from pipeline.solvers.cross import CrossKernel, as_cross
from pipeline.solvers.cross_validation import gcv, spectral_gcv
from pipeline.solvers.eigensystem import CrossRows, Eigensystem
from pipeline.solvers.eigh import eigh_system
from pipeline.solvers.filters import Dynamics, log_spaced_iterations, ridge_filter
from pipeline.solvers.grid import coarse
from pipeline.solvers.judge import (
    SystemJudge,
    gcv_grade,
    gcv_judge,
    leave_one_out_judge,
    validation_judge,
)
from pipeline.solvers.lanczos import growing_systems
from pipeline.solvers.operator import (
    Array,
    DenseKernel,
    KernelOperator,
    as_columns,
    as_operator,
)
from pipeline.solvers.path_result import Emit, PathPoint, PathResult, StoppedFit
from pipeline.solvers.plane import PlaneRequest
from pipeline.solvers.preconditioner import deflation_from
from pipeline.solvers.refusal import check_kernel, check_ridge, check_rows, check_targets
from pipeline.solvers.ridge_scale import RidgeScale, default_ridges, ridge_unit
from pipeline.solvers.row_kernel import RowKernel
from pipeline.solvers.select import Grade, Score, best_of
from pipeline.solvers.solution import Solution
from pipeline.solvers.solve import Problem, default_deflation
from pipeline.solvers.spectral_path import SpectralPath, ridge_filters, spectral_path
from pipeline.solvers.spectrum import exact_spectrum, spectrum_of
from pipeline.solvers.telescopic import Judge, Tried, telescopic_path
from pipeline.types import InputError

logger = logging.getLogger(__name__)

STOPPING_TIMES = 24

REFINEMENTS = 2


@dataclass(frozen=True)
class _Search:
    """The problem, the units, and how candidates are scored."""

    problem: Problem
    K_val: CrossKernel | None
    score: Score | Literal["gcv"]
    unit: float
    ridges: list[float]
    """Absolute, descending."""
    refinements: int
    emit: Emit


def fit_path(
    K: Array | KernelOperator,
    Y: Array,
    K_val: Array | CrossKernel | None,
    score: Score | Literal["gcv"],
    *,
    solver: SolverKind = "auto",
    ridges: Literal["telescopic"] | Sequence[float] = "telescopic",
    ridge_scale: RidgeScale = "trace",
    tol: float = 1e-6,
    dynamics: Dynamics | None = None,
    last_iteration: int = 1000,
    emit: Emit | None = None,
    seed: int = 0,
) -> PathResult:
    """The ridge that scores best on validation rows (ties to the larger), and its fit.

    ``score`` takes predictions of the centred targets (m, k) to a grade:
    ``select.accuracy`` or ``select.squared_error``. Without ``K_val`` it is given leave-one-out
    predictions of the training rows; "gcv" needs neither. ``ridges`` are relative to
    ``ridge_scale``; "telescopic" searches from λ_max down to what K's rounding allows, and refines
    twice around the choice. ``dynamics`` asks for the plane of 40 ridges × 24 stopping times up to
    ``last_iteration`` too (solvers lanczos and eigh). ``emit`` is told of every point.
    """
    operator = checked_operator(K)
    targets = as_columns(Y, operator.device)
    check_targets(operator, targets)
    choice = _path_choice(solver, operator, targets, K_val, score, dynamics)
    spectrum = spectrum_of(operator, seed=seed)
    unit = ridge_unit(operator, ridge_scale, spectrum.lambda_max)
    search = _Search(
        problem=Problem(operator, targets, spectrum, tol),
        K_val=None if K_val is None else as_cross(K_val),
        score=score,
        unit=unit,
        ridges=_candidates(operator, ridges, unit, spectrum.lambda_max, choice.solver),
        refinements=REFINEMENTS if isinstance(ridges, str) else 0,
        emit=emit or (lambda point: None),
    )
    if choice.solver in ("lanczos", "eigh"):
        return _spectral(search, choice, dynamics, last_iteration)
    return _telescopic(search, choice, seed)


def checked_operator(K: Array | KernelOperator) -> KernelOperator:
    """The operator of a kernel; what can be seen of K is refused where it is no kernel."""
    operator = as_operator(K)
    if isinstance(operator, DenseKernel):
        check_kernel(operator.K)
    elif isinstance(operator, RowKernel):
        check_rows(operator)
    return operator


def _path_choice(
    solver: SolverKind,
    operator: KernelOperator,
    Y: Tensor,
    K_val: Array | CrossKernel | None,
    score: Score | Literal["gcv"],
    dynamics: Dynamics | None,
) -> Choice:
    left_out = K_val is None and score != "gcv"
    if left_out and solver == "auto":
        return Choice("eigh", "leave-one-out in closed form needs the eigendecomposition")
    choice = choose_solver(solver, operator, Y.shape[1], path=True)
    if left_out and choice.solver not in ("eigh", "cholesky"):
        raise InputError(
            f"leave-one-out needs the solver 'eigh' or 'cholesky', not {choice.solver!r}. "
            "Give a validation split, or score='gcv'."
        )
    if dynamics is not None and (K_val is None or choice.solver not in ("lanczos", "eigh")):
        raise InputError(
            "a plane of stopping times needs a validation split and the solver 'lanczos' or "
            f"'eigh'; found {choice.solver!r}{' and no K_val' if K_val is None else ''}."
        )
    return choice


def _candidates(
    operator: KernelOperator,
    ridges: Literal["telescopic"] | Sequence[float],
    unit: float,
    lambda_max: float,
    solver: str,
) -> list[float]:
    """Absolute ridges, descending; given ones are refused where rounding makes them noise."""
    if isinstance(ridges, str):
        grid = default_ridges(operator, lambda_max)
        return grid if solver in ("lanczos", "eigh") else coarse(grid)
    absolute = sorted({float(ridge) * unit for ridge in ridges}, reverse=True)
    if not absolute:
        raise InputError("no ridges were given: expected 'telescopic' or at least one number.")
    check_ridge(operator, absolute[-1], lambda_max)
    return absolute


def _spectral(
    search: _Search, choice: Choice, dynamics: Dynamics | None, last_iteration: int
) -> PathResult:
    problem = search.problem
    request = None
    if dynamics is not None:
        times = log_spaced_iterations(STOPPING_TIMES, last_iteration)
        request = PlaneRequest(dynamics, times, problem.spectrum.lambda_max)
    systems: Iterator[tuple[int, Eigensystem]]
    if choice.solver == "eigh":
        system = eigh_system(problem.operator, problem.Y)
        spectrum = exact_spectrum(system.eigenvalues)
        problem = Problem(problem.operator, problem.Y, spectrum, problem.tol)
        systems = iter([(0, system)])
    else:
        systems = growing_systems(problem.operator, problem.Y)
    rows = None if search.K_val is None else CrossRows(search.K_val)
    path = spectral_path(
        systems,
        train_probe(problem.operator) if rows is None else cross_probe(rows),
        _system_judge(search, problem, rows),
        search.ridges,
        unit=search.unit,
        tol=problem.tol,
        request=request,
        refinements=search.refinements,
    )
    stopped = None if request is None else _stopped(problem, request, path, search.unit)
    return _spectral_result(search, problem, choice, path, stopped)


def _system_judge(search: _Search, problem: Problem, rows: CrossRows | None) -> SystemJudge:
    if not callable(search.score):
        return gcv_judge(problem.spectrum, problem.operator.n)
    if rows is None:
        return leave_one_out_judge(problem.Y, search.score)
    return validation_judge(rows, search.score)


def _stopped(
    problem: Problem, request: PlaneRequest, path: SpectralPath, unit: float
) -> StoppedFit | None:
    """The weights at the plane's selected point, on the basis that the path was found on."""
    plane = path.plane
    assert plane is not None, "there is a plane where one was asked for"
    ridge, steps = plane.selected_ridge, plane.selected_iterations
    if not plane.converged[plane.ridges.index(ridge)][plane.iterations.index(steps)]:
        return None
    point = replace(request, iterations=[steps]).filters([ridge * unit])
    alpha = path.system.dual_weights(point(path.system.eigenvalues).T)
    found = certify(
        problem.operator,
        problem.Y,
        ridge * unit,
        Solution(alpha, iterations=steps, converged=True),
        problem.spectrum,
        solver=plane.dynamics,
        tol=problem.tol,
    )
    return StoppedFit(alpha, found)


def _spectral_result(
    search: _Search,
    problem: Problem,
    choice: Choice,
    path: SpectralPath,
    stopped: StoppedFit | None,
) -> PathResult:
    scored, system = path.scored, path.system
    filters = ridge_filters(scored.ridges)(system.eigenvalues)
    risks = spectral_gcv(system, problem.spectrum, scored.ridges, filters, problem.operator.n)
    rows = zip(scored.ridges, scored.grades, scored.agreed, risks, strict=True)
    points = [
        PathPoint(ridge / search.unit, ridge, grade.value, grade.stderr, agreed, risk)
        for ridge, grade, agreed, risk in rows
    ]
    for point in points:
        search.emit(point)
    ridge = scored.ridges[scored.selected()]
    solution = _polished(problem, ridge, system, path.steps)
    return replace(
        _result(problem, choice, points, scored.selected(), solution),
        plane=path.plane,
        stopped=stopped,
    )


def _polished(problem: Problem, ridge: float, system: Eigensystem, steps: int) -> Solution:
    """The system's weights, taken to residual ``tol`` by preconditioned CG where they are not."""
    operator, Y, tol = problem.operator, problem.Y, problem.tol
    alpha = system.dual_weights(ridge_filter(system.eigenvalues, ridge)[:, None])
    if true_residual(operator, Y, ridge, alpha) <= tol:
        return Solution(alpha, iterations=steps, converged=True)
    deflation = deflation_from(system, max(1, len(system.eigenvalues) // 2))
    root = deflation.root(operator, ridge)
    more = cg(operator, Y, ridge, tol=tol, root=root, start=alpha)
    return Solution(more.dual_weights, steps + more.iterations, more.converged)


def _telescopic(search: _Search, choice: Choice, seed: int) -> PathResult:
    problem = search.problem
    if choice.solver == "cg":
        columns = problem.Y.shape[1] * len(search.ridges)
        deflation = default_deflation(problem.operator, columns, seed)
        problem = Problem(problem.operator, problem.Y, problem.spectrum, problem.tol, deflation)

    def point(tried: Tried) -> PathPoint:
        weights = tried.solution.dual_weights
        risk = gcv(problem.operator, problem.spectrum, tried.ridge, weights)
        relative = tried.ridge / search.unit
        value, stderr = tried.grade.value, tried.grade.stderr
        return PathPoint(relative, tried.ridge, value, stderr, tried.converged, risk)

    tried, selected = telescopic_path(
        problem,
        choice.solver,
        search.ridges,
        _judge(search),
        refinements=search.refinements,
        emit=lambda one: search.emit(point(one)),
    )
    points = [point(one) for one in tried]
    return _result(problem, choice, points, selected, tried[selected].solution)


def _judge(search: _Search) -> Judge:
    problem, score, K_val = search.problem, search.score, search.K_val

    def judge(ridge: float, alpha: Float[Tensor, "n k"]) -> Grade:
        if not callable(score):
            risk = gcv(problem.operator, problem.spectrum, ridge, alpha)
            return gcv_grade(risk)
        if K_val is None:
            L = cholesky_factor(problem.operator, ridge)
            return score(problem.Y - leave_one_out_residuals(L, alpha))
        return score(K_val.matvec(alpha))

    return judge


def _result(
    problem: Problem,
    choice: Choice,
    points: list[PathPoint],
    selected: int,
    solution: Solution,
) -> PathResult:
    chosen = points[selected]
    certificate = certify(
        problem.operator,
        problem.Y,
        chosen.ridge_absolute,
        solution,
        problem.spectrum,
        solver=choice.solver,
        tol=problem.tol,
    )
    return PathResult(
        ridge=chosen.ridge,
        ridge_absolute=chosen.ridge_absolute,
        value=chosen.value,
        stderr=chosen.stderr,
        dual_weights=solution.dual_weights,
        certificate=certificate,
        points=points,
        plane=None,
        stopped=None,
        at_edge=best_of([point.value for point in points]) in (0, len(points) - 1),
        solver=choice.solver,
        reason=choice.reason,
    )
