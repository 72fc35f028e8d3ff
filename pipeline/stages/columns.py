"""Scores over the number of kept parameters, from kernels of the first columns: no new features.

Each size (``kernel.sizes``, and all columns) gets the ridge that validation chooses for it; the
other splits are scored afterwards. The machines are those of the training rows alone.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from pipeline.artefact import digest, read_json, write_json
from pipeline.solvers.operator import product
from pipeline.solvers.ridge_path import fit_path
from pipeline.solvers.select import Grade
from pipeline.stages.fit import CONVERGED, fit_task, labelled
from pipeline.stages.job import Job, stage_provenance
from pipeline.stages.kernel_files import KernelBlocks
from pipeline.stages.road import KernelRoad
from pipeline.stages.solve import FitTask
from pipeline.stages.stage import run_stage
from pipeline.store import FeatureStore


def draw_columns(job: Job, road: KernelRoad) -> None:
    """Fit and score every prefix of the columns that the config asks for."""
    if not job.config.kernel.sizes:
        return
    provenance = stage_provenance(
        "columns",
        fit=digest(read_json(job.folder.fit(CONVERGED) / "provenance.json")),
        labels=job.labels_digest(*job.evaluated),
    )
    whole = FeatureStore.open(road.stores["train"]).shape[1]
    sizes = sorted({*job.config.kernel.sizes, whole})

    def make(folder: Path) -> Mapping[str, Any]:
        task = fit_task(job, road.plan)
        points = []
        for size in sizes:
            blocks = KernelBlocks.open(job.folder.kernel, None if size == whole else size)
            points.append({"size": size, **scored_columns(job, blocks, task)})
        write_json(folder / "columns.json", {"columns": points})
        return {"sizes": len(sizes)}

    run_stage(job.folder, "columns", job.folder.columns, provenance, make)


def scored_columns(job: Job, blocks: KernelBlocks, task: FitTask) -> dict[str, Any]:
    """The ridge chosen on one kernel, and how every split does there."""
    options = task.options
    ridges = (options.ridge,) if isinstance(options.ridge, float) else options.ridge
    path = fit_path(
        blocks.train(),
        task.targets.matrix,
        blocks.cross(task.selection.split),
        task.selection.score(task.targets.mean),
        solver=task.solver,
        ridges=ridges,
        ridge_scale=options.ridge_scale,
        tol=options.tol,
    )
    sign = 1.0 if task.selection.classes else -1.0
    scores = {}
    for split in job.evaluated:
        predictions = product(torch.from_numpy(blocks.cross(split)), path.dual_weights)
        grade: Grade = labelled(job, split).score(task.targets.mean)(predictions)
        scores[split] = {job.metric: sign * grade.value, "stderr": grade.stderr}
    return {"ridge": path.ridge, "splits": scores}
