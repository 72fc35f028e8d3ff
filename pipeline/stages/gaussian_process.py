"""The run's kernel as a Gaussian process: one more row of the table, with its own uncertainty.

Scores of a classification are log-probabilities, the mean softmax over draws of the logits, so that
its raw NLL is the process's own; a regression's predictions carry their variances.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.artefact import digest, read_json, write_json
from pipeline.gp.class_probabilities import class_probabilities
from pipeline.gp.dirichlet_kernel import DirichletFit, DirichletKernel
from pipeline.gp.kernel_regression import KernelRegression
from pipeline.metrics import nll
from pipeline.registry import GPOptions
from pipeline.stages.fit import targets_of
from pipeline.stages.job import Job, stage_provenance
from pipeline.stages.kernel_files import KernelBlocks, as_tensor
from pipeline.stages.predictions import forget_fit_without_predictions, write_method_predictions
from pipeline.stages.stage import run_stage

GAUSSIAN = "entk_gp"

BATCH = 256
"""Samples whose logits are drawn at once."""

Scored = dict[str, tuple[np.ndarray, np.ndarray | None]]
"""Scores of every split, and variances where the targets are real."""


def fit_gp(job: Job) -> None:
    """Fit and predict with the Gaussian process, where the config asks for it."""
    options = job.config.gp
    if options is None:
        return
    provenance = stage_provenance(
        GAUSSIAN,
        kernel=digest(read_json(job.folder.kernel / "provenance.json")),
        labels=job.labels_digest("train", *job.evaluated),
        options=options.model_dump(mode="json"),
    )

    def fit(folder: Path) -> Mapping[str, Any]:
        blocks = KernelBlocks.open(job.folder.kernel)
        make = _classified if job.benchmark.classes else _regressed
        record, scored = make(job, blocks, options)
        write_json(folder / "fit.json", record)
        scores = {name: values for name, (values, _) in scored.items()}
        variances = {name: spread for name, (_, spread) in scored.items() if spread is not None}
        write_method_predictions(job, GAUSSIAN, scores, provenance, variances)
        return dict(record["selected"])

    forget_fit_without_predictions(job, GAUSSIAN, provenance)
    run_stage(job.folder, "fit entk_gp", job.folder.fit(GAUSSIAN), provenance, fit)


def _classified(
    job: Job, blocks: KernelBlocks, options: GPOptions
) -> tuple[dict[str, Any], Scored]:
    """The concentration of the least NLL on the selection split, and its probabilities."""
    labels = torch.from_numpy(job.split("train").labels)
    kernel = DirichletKernel.of(as_tensor(blocks.train()), labels, len(job.benchmark.classes))
    selection = job.config.selection
    tried = []
    for concentration in options.concentrations:
        found = kernel.likeliest(concentration)
        loss = nll(
            _log_probabilities(found, blocks, selection, options), job.split(selection).labels
        )
        tried.append((loss, found))
    best = min(tried, key=lambda pair: pair[0])[1]
    selected = {
        "outputscale": best.outputscale,
        "concentration": best.concentration,
        "log_marginal_likelihood": best.log_marginal_likelihood,
    }
    record = {
        "selected": selected,
        "certificate": {"converged": True, "solver": "eigh", "precision": "float64"},
        "concentrations": [
            {"concentration": found.concentration, f"{selection}_nll": loss}
            for loss, found in tried
        ],
    }
    record["notes"] = _edge_notes(best.concentration, options.concentrations)
    names = job.evaluated
    return record, {n: (_log_probabilities(best, blocks, n, options), None) for n in names}


def _edge_notes(chosen: float, tried: Sequence[float]) -> list[str]:
    if min(tried) < chosen < max(tried):
        return []
    return [
        f"the chosen concentration {chosen:g} is at the edge of those tried: gp.concentrations "
        "beyond it may have a lower NLL."
    ]


def _log_probabilities(
    found: DirichletFit, blocks: KernelBlocks, split: str, options: GPOptions
) -> np.ndarray:
    mean, spread = found.moments(*_against_train(blocks, split))
    generator = torch.Generator().manual_seed(options.seed)
    parts = [
        class_probabilities(
            mean[i : i + BATCH],
            torch.diag_embed(spread[i : i + BATCH]),
            generator=generator,
            draws=options.draws,
        )
        for i in range(0, len(mean), BATCH)
    ]
    return torch.cat(parts).log().numpy()


def _regressed(job: Job, blocks: KernelBlocks, options: GPOptions) -> tuple[dict[str, Any], Scored]:
    targets = targets_of(job, "train")
    found = KernelRegression.of(as_tensor(blocks.train()), targets.matrix)
    fit = found.hyperparameters
    scored: Scored = {}
    for name in job.evaluated:
        mean, spread = found.moments(*_against_train(blocks, name))
        scores = targets.scores(mean).numpy()
        scored[name] = (scores, np.repeat(spread.numpy()[:, None], scores.shape[1], axis=1))
    selected = {"outputscale": fit.outputscale, "noise": fit.noise[0]}
    return {"selected": selected, "certificate": asdict(fit)}, scored


def _against_train(blocks: KernelBlocks, split: str) -> tuple[Tensor, Tensor]:
    return as_tensor(blocks.cross(split)), as_tensor(blocks.diagonal(split))
