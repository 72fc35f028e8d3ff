"""The baselines that train the network: from scratch, fine-tuning, and LP-FT."""

import copy
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from pipeline.artefact import PROVENANCE, ForeignArtefactError, read_json, write_json
from pipeline.baselines.finetune import FinetuneOptions
from pipeline.baselines.grid import TrainedFit, train_point, tune
from pipeline.baselines.lp_ft import LpFtOptions, with_probe_head
from pipeline.baselines.probe import Linear
from pipeline.baselines.scratch import ScratchOptions, untrained
from pipeline.baselines.training import Images, Progress, Recipe, image_size
from pipeline.data.preprocess import PreprocessOptions
from pipeline.data.split import Split
from pipeline.distributed.choose import choose_kind, make_executor
from pipeline.distributed.worker import computing_threads, peak_resident_bytes
from pipeline.log import BlockDone
from pipeline.models.head import with_head
from pipeline.models.network import state_digest
from pipeline.planner import Plan
from pipeline.registry import build_backbone
from pipeline.stages.job import Instrument, Job, stage_provenance
from pipeline.stages.predictions import forget_fit_without_predictions, write_method_predictions
from pipeline.stages.stage import run_stage
from pipeline.stages.training_images import joined, split_images, training_preprocess
from pipeline.types import InputError

Trained = FinetuneOptions | ScratchOptions | LpFtOptions
"""Options of the methods that train."""


@dataclass(frozen=True)
class TrainingSpec:
    """One method's grid, as a worker is told of it: options, paths and splits, no images."""

    options: Trained
    model: Any
    classes: int
    probe: Linear | None
    """The head that LP-FT starts from."""
    preprocess: PreprocessOptions
    train: Split
    selection: Split
    recipe: Recipe
    folder: Path
    """Where the points lie and their checkpoints."""
    provenance: Mapping[str, Any]
    """What every point depends on beside its recipe."""
    device: str
    threads: int

    @property
    def rates(self) -> list[float]:
        """The learning rates given; a point's place here is its block number."""
        return sorted(set(self.options.learning_rates))

    def training_images(self, split: Split) -> Images:
        """Rows to learn from: augmented later, hence loaded whole where boxes are cut."""
        preprocess = training_preprocess(self.preprocess, self.recipe.augmentation)
        return split_images(split, preprocess, keep=True, threads=self.threads)

    def scored_images(self, split: Split, *, keep: bool = False) -> Images:
        """Rows to predict."""
        return split_images(split, self.preprocess, keep=keep, threads=self.threads)


def run_training(
    job: Job,
    options: Trained,
    instrument: Instrument,
    plan: Plan,
    probe: Linear | None = None,
) -> None:
    """Train one method's grid, choose, predict; finished points and epochs are taken up.

    ``probe`` is the head that LP-FT starts from: a linear probe that has not seen the selection
    rows.
    """
    spec = make_training_spec(job, options, instrument.model_options, plan, probe)
    method = options.kind
    provenance = stage_provenance(
        method,
        options=options.model_dump(mode="json"),
        network=spec.provenance["network"],
        preprocess=spec.preprocess.model_dump(mode="json"),
        samples={name: job.split(name).digest() for name in job.featurized},
        labels=job.labels_digest(*job.featurized),
        selection=job.config.selection,
        refit=job.config.refit,
    )

    def make(folder: Path) -> Mapping[str, Any]:
        _train_on_workers(job, spec, plan)
        fit = _refused_if_not_finite(_tuned(job, spec))
        write_json(folder / "fit.json", fit.record() | _reason(fit))
        if fit.selected is None:
            # Predictions of an earlier config would otherwise pass for this one's.
            shutil.rmtree(job.folder.predictions(method), ignore_errors=True)
            return {"status": "diverged"}
        scores = {name: fit.scores[name] for name in job.evaluated}
        write_method_predictions(job, method, scores, provenance)
        return fit.selected

    forget_fit_without_predictions(job, method, provenance)
    run_stage(job.folder, method, job.folder.fit(method), provenance, make)


def make_training_spec(
    job: Job, options: Trained, model: Any, plan: Plan, probe: Linear | None
) -> TrainingSpec:
    """What the grid of one method needs, fixed before any of it is trained."""
    preprocess = _preprocess(job, options)
    train, selection = job.split("train"), job.split(job.config.selection)
    classes = len(job.benchmark.classes)
    _, network = starting_point(options, model, classes, probe)
    frozen = isinstance(options, LpFtOptions)
    size = image_size(split_images(selection, preprocess))
    return TrainingSpec(
        options=options,
        model=model,
        classes=classes,
        probe=probe,
        preprocess=preprocess,
        train=train,
        selection=selection,
        recipe=options.recipe(size, freeze_batch_norm=frozen),
        folder=job.folder.path.absolute() / "baselines" / options.kind,
        provenance={
            "network": network,
            "preprocess": preprocess.model_dump(mode="json"),
            "samples": {split.name: split.digest() for split in (train, selection)},
            "labels": {split.name: split.label_digest() for split in (train, selection)},
        },
        device=plan.device,
        threads=plan.threads,
    )


def _preprocess(job: Job, options: Trained) -> PreprocessOptions:
    usual: PreprocessOptions = job.config.benchmark.preprocess
    own = options.preprocess if isinstance(options, ScratchOptions) else None
    if own is not None and own.channels != usual.channels:
        raise InputError(
            f"the preprocessing of scratch gives {own.channels} channels, the network takes "
            f"{usual.channels}. Set its channels: {usual.channels}.",
            "baselines",
        )
    return own or usual


def starting_point(
    options: Trained, model: Any, classes: int, probe: Linear | None
) -> tuple[Callable[[], nn.Module], dict[str, Any]]:
    """A factory of the network that training starts from, and that network's provenance."""
    network = with_head(build_backbone(model), "random", classes, options.seed)

    def pretrained() -> nn.Module:
        return copy.deepcopy(network.module)

    make_module = pretrained
    match options:
        case ScratchOptions():
            make_module = untrained(pretrained, options.seed)
        case LpFtOptions():
            if probe is None:
                raise TypeError("LP-FT starts from a linear probe, and none was given")
            make_module = with_probe_head(pretrained, network.head, probe)
    return make_module, {**network.provenance(), "state": state_digest(make_module())}


def make_trainer(spec: TrainingSpec) -> Callable[[int], BlockDone]:
    """Build the network once; the function returned trains at one learning rate."""
    make_module, network = starting_point(spec.options, spec.model, spec.classes, spec.probe)
    if network["state"] != spec.provenance["network"]["state"]:
        raise ForeignArtefactError(
            "the weights changed while the run was going. Run the command again."
        )
    training = spec.training_images(spec.train)
    validation = spec.scored_images(spec.selection, keep=True)

    def train_block(block: int) -> BlockDone:
        started = time.perf_counter()
        point = train_point(
            make_module,
            training,
            validation,
            replace(spec.recipe, learning_rate=spec.rates[block]),
            folder=spec.folder,
            provenance=spec.provenance,
            device=spec.device,
        )
        seconds = time.perf_counter() - started
        epochs = len(point.history)
        return BlockDone(spec.options.kind, block, epochs, seconds, peak_resident_bytes())

    return train_block


def unfinished(spec: TrainingSpec) -> list[int]:
    """Positions among ``spec.rates`` of the points that are still to be trained."""
    marks = [read_json(path) for path in spec.folder.glob(f"*/{PROVENANCE}")]
    wanted = {**spec.provenance, "recipe": asdict(spec.recipe), "stop_after": None}
    done = {
        mark["recipe"]["learning_rate"]
        for mark in marks
        if "recipe" in mark and _but_for_the_rate(mark) == _but_for_the_rate(wanted)
    }
    return [block for block, rate in enumerate(spec.rates) if rate not in done]


def _but_for_the_rate(mark: Mapping[str, Any]) -> dict[str, Any]:
    return {**mark, "recipe": {**mark["recipe"], "learning_rate": None}}


def _train_on_workers(job: Job, spec: TrainingSpec, plan: Plan) -> None:
    """Have Ray's workers, where there are any, train the given points, several at a time."""
    blocks = unfinished(spec)
    if not blocks or choose_kind(job.config.executor, plan.workers)[0] == "local":
        return
    method, epochs = spec.options.kind, spec.recipe.epochs
    points = len(spec.rates)
    job.progress.start(method, points * epochs, (points - len(blocks)) * epochs, "epochs")

    def on_done(event: BlockDone) -> None:
        rate, seconds = spec.rates[event.block], round(event.seconds, 3)
        job.folder.record_event("point_done", stage=method, learning_rate=rate, seconds=seconds)
        job.progress.advance(event)

    with make_executor(
        job.config.executor,
        workers=min(plan.workers, len(blocks)),
        threads=plan.threads,
        gpus_per_worker=plan.gpus_per_worker,
        log_folder=job.folder.path.absolute() / "logs",
    ) as executor:
        executor.run(make_trainer, spec, blocks, on_done)
    job.progress.finish(method)


def _tuned(job: Job, spec: TrainingSpec) -> TrainedFit:
    """Train what is left of the grid in this process, choose, and score every split."""
    method, epochs = spec.options.kind, spec.recipe.epochs
    selection = spec.selection.name
    training = spec.training_images(spec.train)
    splits = {name: spec.scored_images(job.split(name)) for name in job.evaluated}
    splits |= {"train": training, selection: spec.scored_images(spec.selection, keep=True)}
    make_module, _ = starting_point(spec.options, spec.model, spec.classes, spec.probe)
    points = len(spec.rates)
    done = points - len(unfinished(spec))
    job.progress.start(method, points * epochs, done * epochs, "epochs")
    with computing_threads(spec.threads):
        fit = tune(
            make_module,
            splits,
            spec.recipe,
            learning_rates=spec.rates,
            folder=spec.folder,
            provenance=spec.provenance,
            selection=selection,
            refit=joined(training, spec.training_images(spec.selection))
            if job.config.refit
            else None,
            extensions=spec.options.extensions,
            device=spec.device,
            on_epoch=_Epochs(job, method),
        )
    job.progress.finish(method)
    return fit


class _Epochs:
    """Tells whoever watches of each finished epoch."""

    def __init__(self, job: Job, method: str) -> None:
        self._job, self._method = job, method
        self._before = time.perf_counter()

    def __call__(self, progress: Progress) -> None:
        now = time.perf_counter()
        seconds, self._before = now - self._before, now
        event = BlockDone(self._method, progress.epoch, 1, seconds, peak_resident_bytes())
        self._job.progress.advance(event)


def _refused_if_not_finite(fit: TrainedFit) -> TrainedFit:
    """The fit, as diverged where some split's scores are no numbers."""
    broken = [name for name, scores in fit.scores.items() if not np.isfinite(scores).all()]
    if not broken:
        return fit
    note = f"the chosen network's scores are not finite on {', '.join(broken)}"
    return replace(fit, selected=None, scores={}, notes=[*fit.notes, note])


def _reason(fit: TrainedFit) -> dict[str, str]:
    """Why there is nothing to show, where it is not that every learning rate diverged."""
    trained = any(point.accuracy is not None for point in fit.points)
    return {"reason": fit.notes[-1]} if fit.selected is None and trained else {}
