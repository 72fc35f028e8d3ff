"""Accuracy along ridges and iterations on every split: drawn after the choice, never part of it.

One eigensystem of the training kernel, exact or from a block Krylov basis grown until two sizes
agree, gives the predictions at every point of both curves.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.artefact import digest, read_json, write_json
from pipeline.solvers.agreement import Filters, Probe, ProbedSystem, agreeing, cross_probe
from pipeline.solvers.auto import EIGH_ROWS
from pipeline.solvers.eigensystem import CrossRows, Eigensystem, filtered_chunks
from pipeline.solvers.eigh import eigh_system
from pipeline.solvers.filters import log_spaced_iterations
from pipeline.solvers.lanczos import growing_systems
from pipeline.solvers.operator import DenseKernel
from pipeline.solvers.plane import PlaneRequest
from pipeline.solvers.ridge_scale import ridge_unit
from pipeline.solvers.select import Score, accuracy, squared_error
from pipeline.solvers.spectral_path import ridge_filters
from pipeline.solvers.spectrum import spectrum_of
from pipeline.solvers.targets import CenteredTargets
from pipeline.stages.fit import CONVERGED, STOPPED, Fitted, as_rows, targets_of
from pipeline.stages.job import Job, stage_provenance
from pipeline.stages.kernel import KernelBlocks
from pipeline.stages.stage import run_stage

POINTS = 40
"""Points of the curve over iterations."""

TOL = 1e-3
"""Relative change of predictions between two basis sizes that a drawn curve may have."""


def draw_curves(job: Job) -> None:
    """Make the curves of both machines unless they are there."""
    for method in (CONVERGED, STOPPED):
        provenance = stage_provenance(
            "curves",
            fit=digest(read_json(job.folder.fit(method) / "provenance.json")),
            labels=job.labels_digest(*job.evaluated),
        )

        def make(folder: Path, method: str = method) -> Mapping[str, Any]:
            return _draw(job, method, folder)

        run_stage(job.folder, f"curves {method}", job.folder.curves(method), provenance, make)


def _draw(job: Job, method: str, folder: Path) -> Mapping[str, Any]:
    blocks = KernelBlocks.open(job.folder.kernel)
    targets = targets_of(job, "train")
    operator = DenseKernel(as_rows(blocks.train()))
    largest = spectrum_of(operator).lambda_max
    unit = ridge_unit(operator, job.config.solver.ridge_scale, largest)
    record = Fitted.open(job.folder, method).record
    filters: Filters
    if method == CONVERGED:
        ridges = sorted(point["ridge"] for point in record["ridge_path"])
        filters, name = ridge_filters([ridge * unit for ridge in ridges]), "ridge_curve"
        axis: dict[str, Any] = {"ridges": ridges, "label": "ridge / mean(diag K)"}
    else:
        times = log_spaced_iterations(POINTS, job.config.solver.max_iterations)
        request = PlaneRequest("nesterov", times, largest)
        filters, name = request.filters([record["selected"]["ridge"] * unit]), "curve"
        axis = {"iterations": times}
    probe = cross_probe(CrossRows(as_rows(blocks.cross(job.config.selection))))
    system = _system(operator, targets, probe, filters)
    splits = {
        split: _scores(job, blocks, system, filters, targets, split) for split in job.evaluated
    }
    write_json(folder / "curves.json", {name: {**axis, "splits": splits}})
    return {"points": len(next(iter(splits.values()))), "basis": len(system.eigenvalues)}


def _system(
    operator: DenseKernel, targets: CenteredTargets, probe: Probe, filters: Filters
) -> Eigensystem:
    """The smallest eigensystem whose predictions along the curve no longer change."""
    if operator.n <= EIGH_ROWS["cpu"]:
        return eigh_system(operator, targets.matrix)
    previous = None
    for _, system in growing_systems(operator, targets.matrix):
        current = ProbedSystem(system, probe(system))
        if bool(agreeing(previous, current, filters, TOL).all()):
            break
        previous = current
    return current.system


def _scores(
    job: Job,
    blocks: KernelBlocks,
    system: Eigensystem,
    filters: Filters,
    targets: CenteredTargets,
    split: str,
) -> list[float]:
    """The leading metric of one split at every point of the curve."""
    score = _score(job, split, targets)
    sign = 1.0 if job.benchmark.classes else -1.0
    projected = system.project(as_rows(blocks.cross(split)))
    chunks = filtered_chunks(projected, filters(system.eigenvalues), system.coordinates)
    return [sign * score(predictions).value for chunk in chunks for predictions in chunk]


def _score(job: Job, split: str, targets: CenteredTargets) -> Score:
    labels = job.split(split).labels
    if job.benchmark.classes:
        return accuracy(labels, targets.mean)
    return squared_error(torch.from_numpy(np.reshape(labels, (len(labels), -1))), targets.mean)
