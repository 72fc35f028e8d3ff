"""Predictions of the kernel machines on every evaluated split, in the format all methods share."""

import numpy as np
import torch

from pipeline.artefact import digest, is_done, read_json
from pipeline.stages.fit import CONVERGED, STOPPED, Fitted, targets_of
from pipeline.stages.job import Job, stage_provenance
from pipeline.stages.kernel import KernelBlocks
from pipeline.stages.predictions import write_method_predictions


def predict_entk(job: Job) -> None:
    """Predict with both machines, unless that is done."""
    for method in (CONVERGED, STOPPED):
        provenance = stage_provenance(
            "predictions",
            fit=digest(read_json(job.folder.fit(method) / "provenance.json")),
            labels=job.labels_digest(*job.evaluated),
        )
        if not is_done(job.folder.predictions(method), provenance):
            scores = {split: _scores(job, method, split) for split in job.evaluated}
            write_method_predictions(job, method, scores, provenance)


def _scores(job: Job, method: str, split: str) -> np.ndarray:
    blocks, fitted = KernelBlocks.open(job.folder.kernel), Fitted.open(job.folder, method)
    if not job.config.refit:
        return fitted.scores(blocks.cross(split))
    if split != job.config.selection:
        return fitted.scores(blocks.refit_cross(split))
    # The refitted machine has seen these rows: the one that was chosen by them scores them.
    chosen = np.load(job.folder.fit(method) / "selection_dual.npy")
    before = Fitted(torch.from_numpy(chosen), targets_of(job, "train").mean, {})
    return before.scores(blocks.cross(split))
