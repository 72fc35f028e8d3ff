"""The fit stage: the converged eNTK machine and the early-stopped one, chosen on validation.

Selection reads the labels of the training and the selection split and no other. Predictions and
the curves over ridges and iterations, on every split, are made after the choice is on disk.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.artefact import digest, read_arrays, read_json, write_json
from pipeline.planner import Plan
from pipeline.runs import RunFolder
from pipeline.solvers.path_result import PathResult
from pipeline.solvers.targets import CenteredTargets, centered_targets, class_targets
from pipeline.stages.job import Job, stage_provenance
from pipeline.stages.road import KernelRoad
from pipeline.stages.solve import (
    FitTask,
    Labelled,
    Machine,
    refitted,
    solve_path,
    stopped,
    stopped_facts,
    stopping_time,
)
from pipeline.stages.stage import run_stage

logger = logging.getLogger(__name__)

CONVERGED = "entk"
STOPPED = "entk_early_stopping"
RIDGE_AT_EDGE = "the best ridge lies at an edge of those tried"


@dataclass(frozen=True)
class Fitted:
    """A fit on disk, as predictions and curves need it."""

    machine: Machine
    before: Machine
    """The machine that has not seen the selection split: what is scored on it."""
    record: dict[str, Any]
    """``fit.json``"""

    @classmethod
    def open(cls, folder: RunFolder, method: str) -> "Fitted":
        """The finished fit of a method."""
        record = read_json(folder.fit(method) / "fit.json")
        arrays = read_arrays(folder.fit(method) / "dual.npz")
        found = {name: torch.from_numpy(array) for name, array in arrays.items()}
        machine = Machine(found["dual"], found["mean"], record["certificate"])
        before = Machine(found["selection_dual"], found["selection_mean"], {})
        return cls(machine, before, record)


def fit_entk(job: Job, road: KernelRoad) -> None:
    """Fit both machines, each unless it is there; both choose on one path."""
    task = fit_task(job, road.plan)

    @cache
    def path() -> PathResult:
        found: PathResult = road.run(solve_path, task)
        return found

    makers: dict[str, Callable[[], tuple[Machine, Machine, dict[str, Any]]]] = {
        CONVERGED: lambda: _converged(road, task, path()),
        STOPPED: lambda: _stopped(road, task, path()),
    }
    for method, make in makers.items():

        def fit(folder: Path, make: Any = make) -> Mapping[str, Any]:
            machine, before, extra = make()
            record = {**_record(job, path(), extra["selected"], machine.certificate), **extra}
            record["notes"] += last_iteration_notes(extra["selected"], task.options.max_iterations)
            _write(folder, machine, before, record)
            return {**extra["selected"], **road.take_work()}

        run_stage(
            job.folder, f"fit {method}", job.folder.fit(method), fit_provenance(job, method), fit
        )


def fit_provenance(job: Job, method: str) -> Mapping[str, Any]:
    """What a fit depends on: K, the labels it may read, and the solver's options."""
    return stage_provenance(
        "fit",
        method=method,
        kernel=digest(read_json(job.folder.kernel / "provenance.json")),
        labels=job.labels_digest("train", job.config.selection),
        solver=job.config.solver.model_dump(mode="json"),
    )


def fit_task(job: Job, plan: Plan) -> FitTask:
    """The one place that reads the labels a choice is made on."""
    selection = job.config.selection
    return FitTask(
        targets=targets_of(job, "train"),
        refit_targets=targets_of(job, "train", selection) if job.config.refit else None,
        selection=labelled(job, selection),
        options=job.config.solver,
        solver=job.config.solver.kind if basis_fits(job, plan) else "cg",
    )


def basis_fits(job: Job, plan: Plan) -> bool:
    """Whether ``auto`` may keep a Krylov basis: by the plan's account of memory."""
    return job.config.solver.kind != "auto" or plan.road.method != "cg"


def targets_of(job: Job, *names: str) -> CenteredTargets:
    """Centred targets of some splits' rows, one under the other."""
    labels = np.concatenate([job.split(name).labels for name in names])
    if job.benchmark.classes:
        return class_targets(labels, len(job.benchmark.classes))
    return centered_targets(torch.from_numpy(labels.reshape(len(labels), -1)))


def labelled(job: Job, split: str) -> Labelled:
    """A split's labels as scores take them."""
    return Labelled(split, job.split(split).labels, bool(job.benchmark.classes))


def _converged(
    road: KernelRoad, task: FitTask, path: PathResult
) -> tuple[Machine, Machine, dict[str, Any]]:
    """The ridge of the best validation score, solved to convergence."""
    before = Machine(path.dual_weights, task.targets.mean, asdict(path.certificate))
    machine = before if task.refit_targets is None else road.run(refitted, task, path.ridge)
    iterations = machine.certificate["iterations"]
    selected = {"ridge": path.ridge, "stopping": "converged", "iterations": iterations}
    return machine, before, {"selected": selected}


def _stopped(
    road: KernelRoad, task: FitTask, path: PathResult
) -> tuple[Machine, Machine, dict[str, Any]]:
    """The (ridge, stopping time) of the best validation score, by Nesterov's method."""
    if path.plane is not None:
        ridge, steps = path.plane.selected_ridge, path.plane.selected_iterations
        scored: dict[str, Any] = {"plane": asdict(path.plane)}
        before = _at_plane(road, task, path)
    else:
        ridge = path.ridge
        steps, before, scored = road.run(stopping_time, task, ridge)
    refits = task.refit_targets is not None
    machine = road.run(stopped, task, ridge, steps, True) if refits else before
    selected = {"ridge": ridge, "stopping": "early", "iterations": steps}
    return machine, before, {"selected": selected, **scored}


def _at_plane(road: KernelRoad, task: FitTask, path: PathResult) -> Machine:
    """The plane's selected point: from the path's own basis, or by the iterations themselves."""
    if path.stopped is not None:
        facts = stopped_facts(path.stopped.certificate)
        return Machine(path.stopped.dual_weights, task.targets.mean, facts)
    assert path.plane is not None, "the point was selected on a plane"
    ridge, steps = path.plane.selected_ridge, path.plane.selected_iterations
    machine: Machine = road.run(stopped, task, ridge, steps, False)
    return machine


def _record(
    job: Job, path: PathResult, selected: Mapping[str, Any], certificate: Mapping[str, Any]
) -> dict[str, Any]:
    notes = []
    if path.at_edge:
        notes.append(RIDGE_AT_EDGE)
    if certificate["converged"] is False:
        residual, tol = certificate["residual"], certificate["tol"]
        notes.append(f"not converged: residual {residual:.1e}, asked for {tol:.0e}")
    return {
        "selected": dict(selected),
        "certificate": dict(certificate),
        "solver": path.solver,
        "reason_for_solver": path.reason,
        "ridge_path": [
            {
                "ridge": point.ridge,
                job.config.selection: {
                    job.metric: point.value if job.benchmark.classes else -point.value,
                    "stderr": point.stderr,
                },
                "converged": point.converged,
                "gcv": point.gcv,
            }
            for point in path.points
        ],
        "notes": notes,
    }


def last_iteration_notes(selected: Mapping[str, Any], most: int) -> list[str]:
    """A remark where stopping was chosen at the last iteration: it might have come later."""
    if selected["stopping"] != "early" or selected["iterations"] < most:
        return []
    return [
        f"stopping was best at the last iteration of those tried, {most:,}: raise "
        "solver.max_iterations"
    ]


def _write(folder: Path, machine: Machine, before: Machine, record: Mapping[str, Any]) -> None:
    np.savez(
        folder / "dual.npz",
        dual=machine.dual.numpy(),
        mean=machine.mean.numpy(),
        selection_dual=before.dual.numpy(),
        selection_mean=before.mean.numpy(),
    )
    write_json(folder / "fit.json", record)
