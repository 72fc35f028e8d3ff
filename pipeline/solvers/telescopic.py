"""The path by separate solves: one ridge a decade, then twice finer around the chosen one.

Solves go from the largest ridge down, each starting from the answer at the next larger ridge; the
preconditioner's eigenpairs are made once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from pipeline.solvers.certificate import true_residual
from pipeline.solvers.grid import refined
from pipeline.solvers.select import Grade, one_standard_error
from pipeline.solvers.solution import Solution
from pipeline.solvers.solve import Problem, solve

Judge = Callable[[float, Float[Tensor, "n k"]], Grade]
"""A ridge (absolute) and its dual weights to a grade."""


@dataclass(frozen=True)
class Tried:
    """One ridge (absolute), its solution and its score."""

    ridge: float
    solution: Solution
    grade: Grade
    converged: bool


def telescopic_path(
    problem: Problem,
    solver: str,
    ridges: Sequence[float],
    judge: Judge,
    *,
    refinements: int = 2,
    emit: Callable[[Tried], None],
) -> tuple[list[Tried], int]:
    """Every ridge tried, descending, and the index of the selected one."""
    tried = _descend(problem, solver, ridges, judge, [], emit)
    for _ in range(refinements):
        extra = refined([one.ridge for one in tried], selected(tried))
        tried = _descend(problem, solver, extra, judge, tried, emit)
    return tried, selected(tried)


def selected(tried: Sequence[Tried]) -> int:
    """The largest ridge within one standard error of the best; only converged ones count."""
    counted = [one.converged for one in tried]
    return one_standard_error([one.grade for one in tried], counted if any(counted) else None)


def _descend(
    problem: Problem,
    solver: str,
    ridges: Sequence[float],
    judge: Judge,
    tried: list[Tried],
    emit: Callable[[Tried], None],
) -> list[Tried]:
    for ridge in ridges:
        larger = [one for one in tried if one.ridge > ridge]
        start = min(larger, key=lambda one: one.ridge).solution.dual_weights if larger else None
        solution = solve(problem, ridge, solver, start)
        residual = true_residual(problem.operator, problem.Y, ridge, solution.dual_weights)
        grade = judge(ridge, solution.dual_weights)
        tried = [*tried, Tried(ridge, solution, grade, residual <= problem.tol)]
        emit(tried[-1])
    return sorted(tried, key=lambda one: -one.ridge)
