"""The augmented linear probe inside a run: one artefact a pass, then the regression on all."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from pipeline.artefact import read_arrays
from pipeline.baselines.augment import Augmentation, usual_augmentation
from pipeline.baselines.augmented_probe import AugmentedProbeOptions, augmented_activations
from pipeline.baselines.training import Images, image_size
from pipeline.distributed.worker import computing_threads, peak_resident_bytes
from pipeline.log import BlockDone
from pipeline.planner import Plan
from pipeline.stages.job import Instrument, Job, stage_provenance
from pipeline.stages.stage import run_stage
from pipeline.stages.training_images import split_images, training_preprocess

ACTIVATIONS = "activations.npz"


def augmented_rows(
    job: Job, options: AugmentedProbeOptions, instrument: Instrument, plan: Plan
) -> Float[ndarray, "m h"]:
    """Activations of all passes over the training images, one pass after the other.

    A killed run continues with the pass that it was in.
    """
    folder = job.folder.path / "baselines" / options.kind
    images, augmentation, size = _images(job, options, plan)
    provenance = stage_provenance(
        "augmented activations",
        network=instrument.state_digest,
        samples=job.split("train").digest(),
        preprocess=job.config.benchmark.preprocess.model_dump(mode="json"),
        augmentation=augmentation,
        seed=options.seed,
    )
    job.progress.start(options.kind, options.passes, 0, "passes")
    for number in range(options.passes):

        def make(partial: Path, number: int = number) -> Mapping[str, Any]:
            with computing_threads(plan.threads):
                rows = augmented_activations(
                    instrument.network.module,
                    instrument.network.head,
                    images,
                    augmentation=augmentation,
                    size=size,
                    seed=options.seed,
                    number=number,
                    batch_size=options.batch_size,
                    device=plan.device,
                )
            np.savez(partial / ACTIVATIONS, rows=rows)
            return {"images": len(rows)}

        name, path = f"{options.kind} pass {number + 1}", folder / f"pass_{number}"
        run_stage(job.folder, name, path, {**provenance, "number": number}, make)
        job.progress.advance(BlockDone(options.kind, number, 1, 0.0, peak_resident_bytes()))
    job.progress.finish(options.kind)
    return np.concatenate([_read(folder / f"pass_{i}") for i in range(options.passes)])


def _images(
    job: Job, options: AugmentedProbeOptions, plan: Plan
) -> tuple[Images, Augmentation, tuple[int, int]]:
    """The training images ahead of the augmentation, its kind, and the size they are cut to.

    One reader serves all passes: what it keeps is decoded once, and only when it is asked.
    """
    train, preprocess = job.split("train"), job.config.benchmark.preprocess
    size = image_size(split_images(train, preprocess))
    kind: Augmentation = (
        usual_augmentation(size) if options.augmentation == "usual" else options.augmentation
    )
    before = training_preprocess(preprocess, kind)
    return split_images(train, before, keep=True, threads=plan.threads), kind, size


def forget_rows(job: Job, options: AugmentedProbeOptions) -> None:
    """Remove the activations, which the fitted probe has no more use for."""
    shutil.rmtree(job.folder.path / "baselines" / options.kind, ignore_errors=True)


def _read(path: Path) -> Float[ndarray, "n h"]:
    return read_arrays(path / ACTIVATIONS)["rows"]
