"""What a job cannot do, found before any work: network, images and methods that do not meet."""

from torch import Tensor

from pipeline.jacobian.costs import SampleCosts, sample_costs, shape_costs
from pipeline.models.network import check_forward
from pipeline.planner import read_machine
from pipeline.planner.units import bytes_text
from pipeline.registry import TRAINED
from pipeline.stages.job import Instrument, Job
from pipeline.types import InputError, Inputs

OF_IMAGES = ("linear_probe_augmented", *TRAINED)
"""Baselines that cut and flip images."""

CLASSIFIERS = ("linear_probe", *OF_IMAGES)
"""Baselines that learn classes and nothing else."""


def checked_costs(job: Job, instrument: Instrument, samples: Inputs) -> SampleCosts:
    """What one of these samples (n, …) costs the network.

    Raises :class:`InputError` where the network cannot take them, or memory not hold their layers,
    or where a method does not fit the benchmark.
    """
    _refuse_methods(job, samples)
    _refuse_sizes(job, instrument)
    try:
        costs = shape_costs(instrument.network.module, samples)
    except Exception:  # Whatever a network does that shapes cannot follow: it is run for real.
        _refuse_misfit(instrument, samples)
        return sample_costs(instrument.network.module, samples)
    _refuse_large(costs, read_machine(job.config.store.root).memory_bytes)
    _refuse_misfit(instrument, samples)
    return costs


def _refuse_misfit(instrument: Instrument, samples: Inputs) -> None:
    try:
        check_forward(instrument.network, samples)
    except InputError as error:
        keys = "channels, resize, crop" if isinstance(samples, Tensor) else "max_length"
        hint = f"Change the model, or benchmark.preprocess ({keys})."
        raise InputError(f"{str(error).rstrip('.')}. {hint}", "model") from None


def _refuse_large(costs: SampleCosts, available: int) -> None:
    """Before the network is run for the first time: that alone could fill the memory."""
    if costs.bytes > available:
        raise InputError(
            f"one sample needs {bytes_text(costs.bytes)} of memory in the network's layers; "
            f"{bytes_text(available)} are free. Lower benchmark.preprocess.resize or crop, or take "
            "a smaller network.",
            "benchmark.preprocess",
        )


def _refuse_methods(job: Job, samples: Inputs) -> None:
    kinds = [options.kind for options in job.config.baselines]
    classifiers = [kind for kind in kinds if kind in CLASSIFIERS]
    if classifiers and not job.benchmark.classes:
        raise InputError(
            f"{', '.join(classifiers)}: learns classes, and {job.benchmark.name} has real "
            "targets. Leave it out; linear_probe_ridge regresses.",
            "baselines",
        )
    of_images = [kind for kind in kinds if kind in OF_IMAGES]
    if of_images and not (isinstance(samples, Tensor) and samples.ndim == 4):
        raise InputError(
            f"{', '.join(of_images)}: trains on images, and {job.benchmark.name} holds none. "
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
