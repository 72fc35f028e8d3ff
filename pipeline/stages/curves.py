"""Accuracy along ridges and iterations on every split: drawn after the choice, never part of it.

One eigensystem of the training kernel, exact or from a block Krylov basis grown until two sizes
agree, gives the predictions at every point of both curves.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from torch import Tensor

from pipeline.artefact import digest, read_json, write_json
from pipeline.solvers.agreement import Filters, ProbedSystem, agreeing, cross_probe
from pipeline.solvers.auto import EIGH_ROWS
from pipeline.solvers.eigensystem import CrossRows, Eigensystem, filtered_chunks
from pipeline.solvers.eigh import eigh_system
from pipeline.solvers.filters import log_spaced_iterations
from pipeline.solvers.lanczos import growing_systems
from pipeline.solvers.operator import DenseKernel, SharedKernel
from pipeline.solvers.plane import PlaneRequest
from pipeline.solvers.ridge_scale import ridge_unit
from pipeline.solvers.select import Score
from pipeline.solvers.spectral_path import ridge_filters
from pipeline.solvers.spectrum import spectrum_of
from pipeline.solvers.targets import CenteredTargets
from pipeline.stages.fit import CONVERGED, STOPPED, Fitted, basis_fits, labelled, targets_of
from pipeline.stages.job import Job, stage_provenance
from pipeline.stages.road import KernelRoad
from pipeline.stages.solve import Labelled, own_rows
from pipeline.stages.stage import run_stage
from pipeline.stages.views import KernelView

logger = logging.getLogger(__name__)

POINTS = 40
"""Points of the curve over iterations."""

TOL = 1e-3
"""Relative change of predictions between two basis sizes that a drawn curve may have."""


DRAWN = {CONVERGED: ["ridge_curve"], STOPPED: ["curve", "planes"]}
"""What is drawn for each machine."""


@dataclass(frozen=True)
class CurveTask:
    """The points of both curves, and the splits to score there."""

    targets: CenteredTargets
    ridges: list[float]
    """Ascending, in the config's unit."""
    stopped_ridge: float
    times: list[int]
    plane: tuple[list[float], list[int]] | None
    """Ridges and stopping times of the plane that the stopped machine was chosen on, if any."""
    ridge_scale: Any
    splits: list[Labelled]
    """The selection split first."""


def draw_curves(job: Job, road: KernelRoad) -> None:
    """Make the curves of both machines unless they are there."""
    if not basis_fits(job, road.plan):
        logger.info("curves: left out, a Krylov basis does not fit into the memory allowed")
        return

    @cache
    def drawn() -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = road.run(scored_curves, curve_task(job))
        return found

    for method, names in DRAWN.items():
        provenance = stage_provenance(
            "curves",
            fit=digest(read_json(job.folder.fit(method) / "provenance.json")),
            labels=job.labels_digest(*job.evaluated),
            drawn=names,
        )

        def make(folder: Path, names: list[str] = names) -> Mapping[str, Any]:
            write_json(folder / "curves.json", {name: drawn()[name] for name in names})
            return road.take_work()

        run_stage(job.folder, f"curves {method}", job.folder.curves(method), provenance, make)


def curve_task(job: Job) -> CurveTask:
    """Every ridge that was tried, and the path to the stopping time."""
    plane = Fitted.open(job.folder, STOPPED).record.get("plane")
    records = {method: Fitted.open(job.folder, method).record for method in (CONVERGED, STOPPED)}
    return CurveTask(
        targets=targets_of(job, "train"),
        ridges=sorted(point["ridge"] for point in records[CONVERGED]["ridge_path"]),
        stopped_ridge=records[STOPPED]["selected"]["ridge"],
        times=log_spaced_iterations(POINTS, job.config.solver.max_iterations),
        plane=None if plane is None else (plane["ridges"], plane["iterations"]),
        ridge_scale=job.config.solver.ridge_scale,
        splits=[labelled(job, split) for split in job.evaluated],
    )


def scored_curves(view: KernelView, task: CurveTask) -> dict[str, dict[str, Any]]:
    """Both curves, and the plane where there is one: every split's leading metric at each point.

    Along the ridges the squared error of the targets too: it is what GCV predicts.
    """
    operator = view.operator()
    largest = spectrum_of(operator).lambda_max
    unit = ridge_unit(operator, task.ridge_scale, largest)
    request = PlaneRequest("nesterov", task.times, largest)
    asked: dict[str, tuple[Filters, dict[str, Any]] | None] = {
        "ridge_curve": (
            ridge_filters([ridge * unit for ridge in task.ridges]),
            {"ridges": task.ridges, "label": "ridge / mean(diag K)"},
        ),
        "curve": (request.filters([task.stopped_ridge * unit]), {"iterations": task.times}),
        "planes": _plane(task, unit, largest),
    }
    curves = {name: points for name, points in asked.items() if points is not None}
    rows = CrossRows(view.cross(task.splits[0].split))
    system = _system(operator, task, rows, [filters for filters, _ in curves.values()])
    scores: dict[str, dict[str, list[float]]] = {name: {} for name in curves}
    risks: dict[str, list[float]] = {}
    for one in task.splits:
        # One split at a time: its rows on the whole basis are as large as a block of K.
        projected = (rows if one is task.splits[0] else CrossRows(view.cross(one.split))).on(system)
        for name, (filters, _) in curves.items():
            values = _means(projected, system, filters, one.score(task.targets.mean))
            scores[name][one.split] = values if one.classes else [-value for value in values]
        squares = _means(projected, system, curves["ridge_curve"][0], one.risk(task.targets.mean))
        risks[one.split] = [-value for value in squares]
    drawn = {name: {**axis, "splits": scores[name]} for name, (_, axis) in curves.items()}
    drawn["ridge_curve"]["risks"] = risks
    return {"planes": {}, **drawn}


def _plane(
    task: CurveTask, unit: float, lambda_max: float
) -> tuple[Filters, dict[str, Any]] | None:
    """The plane's filters, iterations varying fastest, and its axes."""
    if task.plane is None:
        return None
    ridges, times = task.plane
    filters = PlaneRequest("nesterov", times, lambda_max).filters([r * unit for r in ridges])
    return filters, {"ridges": ridges, "iterations": times}


def _system(
    operator: SharedKernel, task: CurveTask, rows: CrossRows, filters: Sequence[Filters]
) -> Eigensystem:
    """The smallest eigensystem whose predictions along the curves no longer change."""
    Y = own_rows(operator, task.targets)
    if isinstance(operator, DenseKernel) and operator.n <= EIGH_ROWS["cpu"]:
        return eigh_system(operator, Y)
    previous, probe = None, cross_probe(rows)
    for _, system in growing_systems(operator, Y):
        current = ProbedSystem(system, probe(system))
        if all(bool(agreeing(previous, current, wanted, TOL).all()) for wanted in filters):
            break
        previous = current
    return current.system


def _means(projected: Tensor, system: Eigensystem, filters: Filters, score: Score) -> list[float]:
    """The score at every point of a curve."""
    chunks = filtered_chunks(projected, filters(system.eigenvalues), system.coordinates)
    return [score(predictions).value for chunk in chunks for predictions in chunk]
