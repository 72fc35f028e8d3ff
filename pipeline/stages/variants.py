"""Further kernel machines of a run: other sketches, heads or precisions, fewer rows, a kernel sum.

Each is fitted to convergence at the ridge that validation chooses for it, and becomes a row of the
table. What needs features of its own gets a folder of its own, ``variants/NAME/``, where the same
stages run; features that another run or variant has made come from the cache.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.artefact import digest, read_json, write_json
from pipeline.evaluation import read_predictions
from pipeline.planner import Plan
from pipeline.registry import RunConfig, VariantOptions, variant_config
from pipeline.runs import RunFolder
from pipeline.solvers.operator import product
from pipeline.solvers.ridge_path import fit_path
from pipeline.solvers.targets import CenteredTargets, centered_targets, class_targets
from pipeline.stages.baselines import starting_probe
from pipeline.stages.features import featurize
from pipeline.stages.fit import CONVERGED, RIDGE_AT_EDGE, fit_entk, fit_task
from pipeline.stages.job import Instrument, Job, make_instrument, stage_provenance
from pipeline.stages.kernel import build_kernel
from pipeline.stages.kernel_files import KernelBlocks
from pipeline.stages.plan import make_plan
from pipeline.stages.predict import predict_entk
from pipeline.stages.predictions import forget_fit_without_predictions, write_method_predictions
from pipeline.stages.road import KernelRoad
from pipeline.stages.stage import run_stage
from pipeline.store import FeatureStore
from pipeline.store.place import Location
from pipeline.types import InputError

Splits = Mapping[str, np.ndarray]


def refuse_impossible_variants(job: Job, plan: Plan) -> None:
    """Refuse, before any work, variants that cannot be made."""
    for name, options in job.config.variants.items():
        where = f"variants.{name}"
        if options.own_features:
            for _, member in member_jobs(job, name, options, _stand_in(job, options)):
                _refuse_impossible_member(member, where)
        elif plan.strategy not in ("memory", "disk"):
            raise InputError(
                f"it takes blocks of K, which the plan never forms (road {plan.strategy}). Raise "
                "limits.memory, or leave it out.",
                where,
            )
        if options.rows is not None and options.rows > len(job.split("train")):
            raise InputError(
                f"{options.rows} rows asked for, the training split has {len(job.split('train'))}.",
                f"{where}.rows",
            )
        if options.probe_head and not job.benchmark.classes:
            raise InputError("a regression has no logistic probe to take a head from.", where)


def _refuse_impossible_member(member: Job, where: str) -> None:
    try:
        make_plan(member, make_instrument(member.config))
    except InputError as error:
        if error.where is not None and error.where.startswith(where):
            raise
        raise InputError(str(error), where) from None


def run_variants(
    job: Job, instrument: Instrument, plan: Plan, stores: Mapping[str, Location]
) -> None:
    """Fit and predict with every variant of the config."""
    for name, options in job.config.variants.items():
        if options.own_features:
            _run_members(job, name, options, instrument, stores)
        else:
            _run_on_blocks(job, name, options, plan, stores)


def member_jobs(
    job: Job, name: str, options: VariantOptions, overrides: tuple[str, ...] = ()
) -> Iterator[tuple[str, Job]]:
    """The jobs whose scores a variant averages: one, or one a head."""
    for seed in options.heads or (None,):
        member = "0" if seed is None else f"head_{seed}"
        head = () if seed is None else (f"model.head.seed={seed}",)
        changes = (*options.set, *head, *overrides)
        config: RunConfig = variant_config(job.config, changes, name)
        folder = RunFolder(job.folder.path / "variants" / name / member)
        yield member, replace(job, config=config, folder=folder)


def _stand_in(job: Job, options: VariantOptions) -> tuple[str, ...]:
    """A random head of the fitted one's size, for a plan made before anything is fitted."""
    return (f"model.head.outputs={len(job.benchmark.classes)}",) if options.probe_head else ()


def _run_members(
    job: Job,
    name: str,
    options: VariantOptions,
    instrument: Instrument,
    stores: Mapping[str, Location],
) -> None:
    """Every member through features, kernel, fit and predictions; then their mean."""
    overrides: tuple[str, ...] = ()
    if options.probe_head:
        head = starting_probe(job, stores).absolute() / "model.npz"
        overrides = (f"model.head={{kind: fitted, path: {str(head)!r}}}",)
    members = [member for _, member in member_jobs(job, name, options, overrides)]
    for member in members:
        _run_member(member, instrument)
    provenance = stage_provenance(
        "variant",
        fits=[digest(read_json(m.folder.fit(CONVERGED) / "provenance.json")) for m in members],
        labels=job.labels_digest(*job.evaluated),
    )

    def make(folder: Path) -> Mapping[str, Any]:
        files = {
            s: [m.folder.predictions(CONVERGED) / f"{s}.npz" for m in members]
            for s in job.evaluated
        }
        scores = {s: np.mean([read_predictions(f).scores for f in files[s]], axis=0) for s in files}
        records = [read_json(member.folder.fit(CONVERGED) / "fit.json") for member in members]
        selected = dict(records[0]["selected"]) if len(members) == 1 else {"members": len(members)}
        notes = list(dict.fromkeys(note for record in records for note in record["notes"]))
        write_json(folder / "fit.json", {"selected": selected, "notes": notes})
        write_method_predictions(job, name, scores, provenance)
        return selected

    forget_fit_without_predictions(job, name, provenance)
    run_stage(job.folder, name, job.folder.fit(name), provenance, make)


def _run_member(member: Job, instrument: Instrument) -> None:
    """Features, kernel, fit and predictions of a variant; ``instrument`` lends trained weights."""
    own = make_instrument(member.config, instrument.model_options.weights)
    plan = make_plan(member, own)
    member.folder.path.mkdir(parents=True, exist_ok=True)
    stores = featurize(member, own, plan)
    with KernelRoad(member, stores, plan) as road:
        build_kernel(member, road)
        fit_entk(member, road)
        predict_entk(member, road)


def _run_on_blocks(
    job: Job, name: str, options: VariantOptions, plan: Plan, stores: Mapping[str, Location]
) -> None:
    """A machine on the run's own kernel: on its first rows, or with another kernel added."""
    provenance = stage_provenance(
        "variant",
        options=options.model_dump(mode="json"),
        fit=digest(read_json(job.folder.fit(CONVERGED) / "provenance.json")),
        labels=job.labels_digest(*job.evaluated),
    )

    def make(folder: Path) -> Mapping[str, Any]:
        blocks = KernelBlocks.open(job.folder.kernel)
        K = blocks.train()
        cross = {split: blocks.cross(split) for split in job.evaluated}
        if options.rows is not None:
            m = options.rows
            K, cross = K[:m, :m], {split: block[:, :m] for split, block in cross.items()}
        if options.penultimate is not None:
            activations = {s: FeatureStore.open(path).penultimate() for s, path in stores.items()}
            K, cross = with_penultimate(K, cross, activations, options.penultimate)
        selected, notes, scores = _fitted(job, plan, np.ascontiguousarray(K), cross)
        write_json(folder / "fit.json", {"selected": selected, "notes": notes})
        write_method_predictions(job, name, scores, provenance)
        return selected

    forget_fit_without_predictions(job, name, provenance)
    run_stage(job.folder, name, job.folder.fit(name), provenance, make)


def with_penultimate(
    K: np.ndarray, cross: Splits, activations: Splits, weight: float
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """K / mean(diag K) + weight · H Hᵀ / mean(diag H Hᵀ), and the same of every cross-kernel."""
    H = activations["train"].astype(np.float32)
    unit = float(np.trace(K)) / len(K)
    own = weight / float(np.mean(np.sum(H.astype(np.float64) ** 2, axis=1)))

    def added(block: np.ndarray, rows: np.ndarray) -> np.ndarray:
        found: np.ndarray = block / np.float32(unit) + np.float32(own) * (rows @ H.T)
        return found

    others = {s: added(block, activations[s].astype(np.float32)) for s, block in cross.items()}
    return added(K, H), others


def _fitted(
    job: Job, plan: Plan, K: np.ndarray, cross: Splits
) -> tuple[dict[str, Any], list[str], dict[str, np.ndarray]]:
    """What was selected, remarks, and every split's scores, from a kernel on the first rows."""
    task = fit_task(job, plan)
    targets = _targets(job, len(K))
    options, selection = task.options, task.selection
    path = fit_path(
        K,
        targets.matrix,
        cross[selection.split],
        selection.score(targets.mean),
        solver=task.solver,
        ridges=(options.ridge,) if isinstance(options.ridge, float) else options.ridge,
        ridge_scale=options.ridge_scale,
        tol=options.tol,
    )
    scores = {
        split: (
            product(torch.from_numpy(np.ascontiguousarray(block)), path.dual_weights) + targets.mean
        ).numpy()
        for split, block in cross.items()
    }
    iterations = path.certificate.iterations
    selected = {"ridge": path.ridge, "stopping": "converged", "iterations": iterations}
    return selected, [RIDGE_AT_EDGE] if path.at_edge else [], scores


def _targets(job: Job, rows: int) -> CenteredTargets:
    labels = job.split("train").labels[:rows]
    if job.benchmark.classes:
        return class_targets(labels, len(job.benchmark.classes))
    return centered_targets(torch.from_numpy(labels.reshape(len(labels), -1)))
