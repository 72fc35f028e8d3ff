"""The one format of predictions: a folder per method, a file per split."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline.artefact import is_done, new_artefact
from pipeline.evaluation import Predictions, write_predictions
from pipeline.stages.job import Job


def write_method_predictions(
    job: Job, method: str, scores: Mapping[str, np.ndarray], provenance: Mapping[str, Any]
) -> None:
    """Write one method's scores (m, k) of every split as one artefact, unless it is there."""
    path = job.folder.predictions(method)
    if is_done(path, provenance):
        return
    with new_artefact(path, provenance) as folder:
        for name, values in scores.items():
            split = job.split(name)
            predictions = Predictions(values, split.labels, np.asarray(split.ids))
            write_predictions(folder / f"{name}.npz", predictions)
