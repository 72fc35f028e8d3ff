"""The one format of predictions: a folder per method, a file per split."""

import shutil
from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline.artefact import is_done, new_artefact, read_json
from pipeline.evaluation import Predictions, write_predictions
from pipeline.stages.job import Job


def write_method_predictions(
    job: Job,
    method: str,
    scores: Mapping[str, np.ndarray],
    provenance: Mapping[str, Any],
    variances: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Write one method's scores (m, k) of every split as one artefact, unless it is there.

    ``variances`` (m, k) are those of a regression that knows its own.
    """
    path = job.folder.predictions(method)
    if is_done(path, provenance):
        return
    with new_artefact(path, provenance) as folder:
        for name, values in scores.items():
            split = job.split(name)
            groups = None
            if split.groups is not None and job.benchmark.group_names:
                groups = np.asarray(job.benchmark.group_names)[split.groups]
            variance = (variances or {}).get(name)
            predictions = Predictions(
                values, split.labels, np.asarray(split.ids), variance=variance, groups=groups
            )
            write_predictions(folder / f"{name}.npz", predictions)


def forget_fit_without_predictions(job: Job, method: str, provenance: Mapping[str, Any]) -> None:
    """Remove a baseline's fit whose predictions were deleted or cut, so that both are made again.

    A fit that chose nothing, because training diverged, has none and stays.
    """
    record = job.folder.fit(method) / "fit.json"
    if is_done(job.folder.predictions(method), provenance) or not record.is_file():
        return
    if read_json(record).get("selected") is not None:
        shutil.rmtree(record.parent)
