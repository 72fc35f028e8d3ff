"""What a job cannot do, found before any work: network, images and methods that do not meet."""

from torch import Tensor

from pipeline.models.network import check_forward
from pipeline.registry import TRAINED
from pipeline.stages.job import Instrument, Job
from pipeline.types import InputError, Inputs

CLASSIFIERS = ("linear_probe", *TRAINED)
"""Baselines that learn classes and nothing else."""


def refuse_misfits(job: Job, instrument: Instrument, samples: Inputs) -> None:
    """Raise where the network cannot take these samples (n, …), or a method the benchmark."""
    _refuse_methods(job, samples)
    _refuse_sizes(job, instrument)
    try:
        check_forward(instrument.network, samples)
    except InputError as error:
        keys = "channels, resize, crop" if isinstance(samples, Tensor) else "max_length"
        hint = f"Change the model, or benchmark.preprocess ({keys})."
        raise InputError(f"{error} {hint}", "model") from None


def _refuse_methods(job: Job, samples: Inputs) -> None:
    kinds = [options.kind for options in job.config.baselines]
    classifiers = [kind for kind in kinds if kind in CLASSIFIERS]
    if classifiers and not job.benchmark.classes:
        raise InputError(
            f"{', '.join(classifiers)}: learns classes, and {job.benchmark.name} has real "
            "targets. Leave it out; linear_probe_ridge regresses.",
            "baselines",
        )
    trained = [kind for kind in kinds if kind in TRAINED]
    if trained and not (isinstance(samples, Tensor) and samples.ndim == 4):
        raise InputError(
            f"{', '.join(trained)}: trains on images, and {job.benchmark.name} holds none. "
            "Leave it out.",
            "baselines",
        )
    if job.config.pretrain is not None and "pretrain" not in job.benchmark.splits:
        raise InputError(
            f"the benchmark {job.benchmark.name} has no split to pretrain on. Set pretrain: null.",
            "pretrain",
        )


def _refuse_sizes(job: Job, instrument: Instrument) -> None:
    sizes = job.config.kernel.sizes
    if sizes and not instrument.sketch.prefix_closed:
        raise InputError(
            f"the first columns of a {instrument.sketch.kind} sketch are no smaller sketch of the "
            "same kind; sizes need sketch.kind: uniform.",
            "kernel.sizes",
        )
    if max(sizes, default=0) > instrument.sketch.size:
        raise InputError(
            f"{max(sizes):,} columns are asked for, the sketch has {instrument.sketch.size:,}.",
            "kernel.sizes",
        )
