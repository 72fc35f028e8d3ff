"""Predictions of the kernel machines on every evaluated split, in the format all methods share."""

from pipeline.artefact import digest, is_done, read_json
from pipeline.stages.fit import CONVERGED, STOPPED, Fitted
from pipeline.stages.job import Job, stage_provenance
from pipeline.stages.predictions import write_method_predictions
from pipeline.stages.road import KernelRoad
from pipeline.stages.solve import predicted


def predict_entk(job: Job, road: KernelRoad) -> None:
    """Predict with both machines, unless that is done."""
    refit, selection = job.config.refit, job.config.selection
    for method in (CONVERGED, STOPPED):
        provenance = stage_provenance(
            "predictions",
            fit=digest(read_json(job.folder.fit(method) / "provenance.json")),
            labels=job.labels_digest(*job.evaluated),
        )
        if is_done(job.folder.predictions(method), provenance):
            continue
        fitted = Fitted.open(job.folder, method)
        # A refitted machine has seen the selection rows: the one that was chosen by them does.
        scores = road.run(predicted, fitted.before, [selection], False)
        others = [split for split in job.evaluated if split != selection]
        scores |= road.run(predicted, fitted.machine, others, refit)
        write_method_predictions(job, method, scores, provenance)
