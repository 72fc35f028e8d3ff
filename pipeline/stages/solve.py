"""What is solved and predicted with a run's kernel, wherever its rows lie.

Each function takes a view of the kernel, values, and gives the same on every worker: the driver
runs it alone, or all workers of a group run it at once. Targets are given whole; each worker takes
the rows that it holds.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from pipeline.solvers.auto import SolverKind, choose_solver
from pipeline.solvers.certificate import Certificate, certify
from pipeline.solvers.early_stopping import early_stopping
from pipeline.solvers.kernel_ridge import fit_point
from pipeline.solvers.operator import SharedKernel
from pipeline.solvers.path_result import PathResult
from pipeline.solvers.ridge_path import checked_operator, fit_path
from pipeline.solvers.ridge_scale import ridge_unit
from pipeline.solvers.select import Score, accuracy, squared_error
from pipeline.solvers.solution import Solution
from pipeline.solvers.spectrum import spectrum_of
from pipeline.solvers.targets import CenteredTargets
from pipeline.solvers.trajectory import trajectory
from pipeline.stages.views import KernelView

PLANE_SOLVERS = ("auto", "lanczos", "eigh")
"""Solvers that see every stopping time of every ridge at once."""


@dataclass(frozen=True)
class Labelled:
    """A split's labels, and how predictions of its rows are graded on them."""

    split: str
    labels: np.ndarray
    classes: bool
    """Whether they are classes; else targets (m, k)."""

    def score(self, mean: Tensor) -> Score:
        """Accuracy, or minus the squared error, of predictions of targets centred by ``mean``."""
        if self.classes:
            return accuracy(self.labels, mean)
        return self.risk(mean)

    def risk(self, mean: Tensor) -> Score:
        """Minus the squared error, over the targets, of predictions of targets centred by it."""
        if self.classes:
            one_hot = torch.eye(len(mean), dtype=torch.float64)[torch.from_numpy(self.labels)]
            return squared_error(one_hot, mean)
        return squared_error(torch.from_numpy(self.labels.reshape(len(self.labels), -1)), mean)


@dataclass(frozen=True)
class FitTask:
    """What a fit may know: training targets, the selection split's labels, options."""

    targets: CenteredTargets
    refit_targets: CenteredTargets | None
    """Those of training and selection rows, where the run refits on both."""
    selection: Labelled
    options: Any
    """The config's solver group."""
    solver: SolverKind
    """``options.kind``, or what the plan puts in place of ``auto``."""

    @property
    def dynamics_by(self) -> Literal["auto", "plain"]:
        """How iterates are found: a basis would need memory that the plan may not have had."""
        plain = self.options.kind == "nesterov" or self.solver != self.options.kind
        return "plain" if plain else "auto"


@dataclass(frozen=True)
class Machine:
    """Dual weights and what is known of them."""

    dual: Tensor
    """float64 (n, k)"""
    mean: Tensor
    certificate: dict[str, Any]


def solve_path(view: KernelView, task: FitTask) -> PathResult:
    """The path of ridges, with the plane of stopping times where the solver sees one."""
    options, operator = task.options, view.operator()
    ridges = (options.ridge,) if isinstance(options.ridge, float) else options.ridge
    path = fit_path(
        operator,
        own_rows(operator, task.targets),
        view.cross(task.selection.split),
        task.selection.score(task.targets.mean),
        solver=task.solver,
        ridges=ridges,
        ridge_scale=options.ridge_scale,
        tol=options.tol,
        dynamics="nesterov" if task.solver in PLANE_SOLVERS else None,
        last_iteration=options.max_iterations,
    )
    stopped = path.stopped
    if stopped is not None:
        whole = operator.gather(stopped.dual_weights).cpu()
        stopped = replace(stopped, dual_weights=whole)
    whole = operator.gather(path.dual_weights).cpu()
    return replace(path, dual_weights=whole, stopped=stopped)


def refitted(view: KernelView, task: FitTask, ridge: float) -> Machine:
    """The chosen ridge, in the config's unit, on training and selection rows together."""
    assert task.refit_targets is not None, "the run refits"
    operator, options = view.operator(refit=True), task.options
    checked_operator(operator)
    Y = own_rows(operator, task.refit_targets)
    spectrum = spectrum_of(operator)
    absolute = ridge * ridge_unit(operator, options.ridge_scale, spectrum.lambda_max)
    choice = choose_solver("auto", operator, Y.shape[1], path=False)
    solution, certificate = fit_point(
        operator, Y, absolute, spectrum, solver=choice.solver, tol=options.tol
    )
    dual = operator.gather(solution.dual_weights).cpu()
    return Machine(dual, task.refit_targets.mean, asdict(certificate))


def stopping_time(
    view: KernelView, task: FitTask, ridge: float
) -> tuple[int, Machine, dict[str, Any]]:
    """The iteration of one ridge that scores best, where the solver sees no plane."""
    options, operator = task.options, view.operator()
    found = early_stopping(
        operator,
        own_rows(operator, task.targets),
        ridge,
        view.cross(task.selection.split),
        task.selection.score(task.targets.mean),
        max_iterations=options.max_iterations,
        solver=task.dynamics_by,
        ridge_scale=options.ridge_scale,
        tol=options.tol,
    )
    scored = {"stopping": {"times": found.iterations, "scores": found.values}}
    machine = _stopped_machine(
        operator, task, task.targets, found.iteration, found.ridge_absolute, found.dual_weights
    )
    return found.iteration, machine, scored


def stopped(view: KernelView, task: FitTask, ridge: float, steps: int, refit: bool) -> Machine:
    """Nesterov's iterate after so many steps at a ridge in the config's unit."""
    targets = task.refit_targets if refit else task.targets
    assert targets is not None, "the run refits"
    operator = view.operator(refit=refit)
    found = trajectory(
        operator,
        own_rows(operator, targets),
        ridge,
        [steps],
        solver=task.dynamics_by,
        ridge_scale=task.options.ridge_scale,
        tol=task.options.tol,
    )
    alpha = found.dual_weights(steps)
    return _stopped_machine(operator, task, targets, steps, found.ridge_absolute, alpha)


def stopped_facts(certificate: Certificate) -> dict[str, Any]:
    """A stopped fit's certificate: its residual is a fact about it, not a failure."""
    return {**asdict(certificate), "converged": None}


def _stopped_machine(
    operator: SharedKernel,
    task: FitTask,
    targets: CenteredTargets,
    steps: int,
    ridge: float,
    alpha: Tensor,
) -> Machine:
    certificate = certify(
        operator,
        own_rows(operator, targets),
        ridge,
        Solution(alpha, iterations=steps, converged=True),
        spectrum_of(operator),
        solver="nesterov",
        tol=task.options.tol,
    )
    return Machine(operator.gather(alpha).cpu(), targets.mean, stopped_facts(certificate))


def predicted(
    view: KernelView, machine: Machine, splits: Sequence[str], refit: bool
) -> dict[str, np.ndarray]:
    """Scores (m, k) of some splits in float64."""
    own = machine.dual[view.rows(refit=refit)].to(view.group.device)
    products = {split: view.cross(split, refit=refit).matvec(own).cpu() for split in splits}
    return {split: (found + machine.mean).numpy() for split, found in products.items()}


def own_rows(operator: SharedKernel, targets: CenteredTargets) -> Tensor:
    """The targets' rows that are held here."""
    return targets.matrix[operator.rows].to(operator.device)
