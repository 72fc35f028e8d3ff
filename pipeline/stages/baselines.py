"""The baselines that read stored activations: linear probes, fitted in seconds."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.artefact import digest, read_json, write_json
from pipeline.baselines.linear_probe import LinearProbeOptions, logistic_probe
from pipeline.baselines.probe import ProbeFit
from pipeline.baselines.ridge_probe import RidgeProbeOptions, ridge_probe
from pipeline.stages.job import Job, stage_provenance
from pipeline.stages.predictions import write_method_predictions
from pipeline.stages.stage import run_stage
from pipeline.store import FeatureStore


def run_baselines(job: Job, stores: Mapping[str, Path]) -> None:
    """Fit and predict with every baseline of the config."""
    for options in job.config.baselines:
        _run_probe(job, options, stores)


def _run_probe(job: Job, options: Any, stores: Mapping[str, Path]) -> None:
    features = read_json(job.folder.features)
    provenance = stage_provenance(
        options.kind,
        options=options.model_dump(mode="json"),
        features={name: digest(entry["provenance"]) for name, entry in features.items()},
        labels=job.labels_digest(*job.featurized),
        selection=job.config.selection,
        refit=job.config.refit,
    )
    fitted: list[ProbeFit] = []

    def fit(folder: Path) -> Mapping[str, Any]:
        fitted.append(_fit_probe(job, options, stores))
        write_json(folder / "fit.json", fitted[0].record())
        np.savez(folder / "model.npz", weights=fitted[0].model.weights, bias=fitted[0].model.bias)
        _write_all(job, options.kind, fitted[0], provenance)
        return fitted[0].selected

    run_stage(job.folder, options.kind, job.folder.fit(options.kind), provenance, fit)


def _fit_probe(job: Job, options: Any, stores: Mapping[str, Path]) -> ProbeFit:
    penultimate = {name: FeatureStore.open(path).penultimate() for name, path in stores.items()}
    labels = {name: job.split(name).labels for name in penultimate}
    shared: dict[str, Any] = {
        "classes": len(job.benchmark.classes),
        "selection": job.config.selection,
        "refit": job.config.refit,
    }
    match options:
        case LinearProbeOptions():
            limit = options.max_iterations
            return logistic_probe(
                penultimate, labels, Cs=options.Cs(), max_iterations=limit, **shared
            )
        case RidgeProbeOptions():
            return ridge_probe(penultimate, labels, ridges=options.ridges(), **shared)
        case _:
            raise TypeError(f"no probe of kind {options.kind}")


def _write_all(job: Job, method: str, probe: ProbeFit, provenance: Mapping[str, Any]) -> None:
    scores = {name: probe.scores[name] for name in job.evaluated}
    write_method_predictions(job, method, scores, provenance)
