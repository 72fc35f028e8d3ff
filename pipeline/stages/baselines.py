"""Every baseline of a run; here the linear probes, fitted on stored activations."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from pipeline.artefact import digest, read_arrays, read_json, write_json
from pipeline.baselines.augmented_probe import AugmentedProbeOptions
from pipeline.baselines.finetune import FinetuneOptions
from pipeline.baselines.linear_probe import LinearProbeOptions, logistic_probe
from pipeline.baselines.lp_ft import LpFtOptions
from pipeline.baselines.probe import Linear, ProbeFit
from pipeline.baselines.ridge_probe import RidgeProbeOptions, ridge_probe
from pipeline.baselines.scratch import ScratchOptions
from pipeline.distributed.worker import peak_resident_bytes
from pipeline.log import BlockDone
from pipeline.planner import Plan
from pipeline.stages.augmented_probe import augmented_rows, forget_rows
from pipeline.stages.job import Instrument, Job, stage_provenance
from pipeline.stages.predictions import forget_fit_without_predictions, write_method_predictions
from pipeline.stages.stage import run_stage
from pipeline.stages.training import run_training
from pipeline.store import FeatureStore
from pipeline.store.place import Location

Views = Callable[[], ndarray]
"""Makes rows to learn from, float32 (passes · n, h), one pass after the other."""


def run_baselines(
    job: Job, instrument: Instrument, plan: Plan, stores: Mapping[str, Location]
) -> None:
    """Fit and predict with every baseline of the config."""
    for options in job.config.baselines:
        match options:
            case LpFtOptions():
                probe = _read_model(starting_probe(job, stores))
                run_training(job, options, instrument, plan, probe)
            case FinetuneOptions() | ScratchOptions():
                run_training(job, options, instrument, plan)
            case AugmentedProbeOptions():
                views = partial(augmented_rows, job, options, instrument, plan)
                _run_probe(job, options, stores, views)
                forget_rows(job, options)
            case _:
                _run_probe(job, options, stores)


def _probe_provenance(job: Job, options: Any, refit: bool) -> Mapping[str, Any]:
    features = read_json(job.folder.features)
    return stage_provenance(
        options.kind,
        options=options.model_dump(mode="json"),
        features={name: digest(entry["provenance"]) for name, entry in features.items()},
        labels=job.labels_digest(*job.featurized),
        selection=job.config.selection,
        refit=refit,
    )


def starting_probe(job: Job, stores: Mapping[str, Location]) -> Path:
    """The folder of the linear probe that a head is taken from: the run's own, where that will do.

    A probe refitted with the selection rows would have seen what its successor is chosen on.
    """
    asked = [o for o in job.config.baselines if isinstance(o, LinearProbeOptions)]
    if asked and not job.config.refit:
        _run_probe(job, asked[0], stores)
        return job.folder.fit(asked[0].kind)
    options = asked[0] if asked else LinearProbeOptions()
    path = job.folder.path / "baselines" / "lp_ft" / "probe"

    def fit(folder: Path) -> Mapping[str, Any]:
        probe = _fit_probe(job, options, stores, refit=False)
        _write_fit(folder, probe)
        return probe.selected

    run_stage(job.folder, "lp_ft probe", path, _probe_provenance(job, options, False), fit)
    return path


def _run_probe(
    job: Job, options: Any, stores: Mapping[str, Location], views: Views | None = None
) -> None:
    """Fit a probe and predict; ``views`` makes the rows to learn from, instead of the stored."""
    provenance = _probe_provenance(job, options, job.config.refit)

    def fit(folder: Path) -> Mapping[str, Any]:
        probe = _fit_probe(job, options, stores, refit=job.config.refit, views=views)
        _write_fit(folder, probe)
        scores = {name: probe.scores[name] for name in job.evaluated}
        write_method_predictions(job, options.kind, scores, provenance)
        return probe.selected

    forget_fit_without_predictions(job, options.kind, provenance)
    run_stage(job.folder, options.kind, job.folder.fit(options.kind), provenance, fit)


def _write_fit(folder: Path, probe: ProbeFit) -> None:
    write_json(folder / "fit.json", probe.record())
    np.savez(folder / "model.npz", weights=probe.model.weights, bias=probe.model.bias)


def _read_model(folder: Path) -> Linear:
    return Linear(**read_arrays(folder / "model.npz"))


def _fit_probe(
    job: Job,
    options: Any,
    stores: Mapping[str, Location],
    *,
    refit: bool,
    views: Views | None = None,
) -> ProbeFit:
    penultimate = {name: FeatureStore.open(path).penultimate() for name, path in stores.items()}
    labels = {name: job.split(name).labels for name in penultimate}
    if views is not None:
        penultimate["train"] = views()
        labels["train"] = np.tile(
            labels["train"], len(penultimate["train"]) // len(labels["train"])
        )
    shared: dict[str, Any] = {
        "classes": len(job.benchmark.classes),
        "selection": job.config.selection,
        "refit": refit,
    }
    match options:
        case LinearProbeOptions() | AugmentedProbeOptions():
            return _logistic_probe(job, options, penultimate, labels, shared)
        case RidgeProbeOptions():
            return ridge_probe(penultimate, labels, ridges=options.ridges(), **shared)
        case _:
            raise TypeError(f"no probe of kind {options.kind}")


def _logistic_probe(
    job: Job,
    options: LinearProbeOptions | AugmentedProbeOptions,
    features: Mapping[str, Any],
    labels: Mapping[str, Any],
    shared: Mapping[str, Any],
) -> ProbeFit:
    """The path over C, with a bar: many rows take minutes."""
    name, Cs = options.kind, options.Cs()
    job.progress.start(name, len(Cs) * (2 if shared["refit"] else 1), 0, "strengths")

    def on_fit(number: int) -> None:
        job.progress.advance(BlockDone(name, number, 1, 0.0, peak_resident_bytes()))

    found = logistic_probe(
        features, labels, Cs=Cs, max_iterations=options.max_iterations, on_fit=on_fit, **shared
    )
    job.progress.finish(name)
    return found
