"""One training run: SGD with momentum and a cosine schedule, resumable after any epoch.

The order of the samples and their augmentation are functions of (seed, epoch, sample id), and a
checkpoint holds weights, buffers, optimizer and history, so that a run killed at any moment and
started again ends at the same weights. The epoch kept is the best on the validation split.
"""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor, nn
from torch.nn import functional

from pipeline.artefact import atomic_path, canonical_json, read_checkpoint
from pipeline.baselines.augment import (
    Augmentation,
    augmented,
    epoch_draws,
    epoch_order,
    sample_keys,
)
from pipeline.baselines.memory_format import Feed, place
from pipeline.types import InputError, run_model

logger = logging.getLogger(__name__)

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)

State = dict[str, Tensor]


@dataclass(frozen=True)
class Images:
    """Labelled images behind a function that loads some of them."""

    load: Callable[[Int[ndarray, " b"]], Sequence[Tensor]]
    """Rows to float32 images (c, h, w), preprocessed; for training uncropped, of any size."""
    labels: Int[ndarray, " n"]
    ids: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides a training run, beside the network and the data."""

    learning_rate: float
    """At the first step; the cosine takes it to zero at the last."""
    epochs: int
    batch_size: int
    seed: int = 0
    momentum: float = 0.9
    weight_decay: float = 0.0
    augmentation: Augmentation = "none"
    freeze_batch_norm: bool = False
    """Keep BatchNorm at its stored statistics instead of the batch's."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the forward and backward pass (autocast); weights stay float32."""


@dataclass
class Progress:
    """Where a run stands; also its outcome."""

    epoch: int = 0
    """Epochs finished."""
    history: list[dict[str, float]] = field(default_factory=list)
    """Per epoch: mean training ``loss`` and validation ``accuracy``."""
    best_epoch: int = 0
    best_accuracy: float = -1.0
    best_state: State | None = None
    diverged: str | None = None
    """Why the run was given up, if it was."""


def train(
    module: nn.Module,
    training: Images,
    validation: Images,
    recipe: Recipe,
    *,
    checkpoint: Path | None = None,
    provenance: Mapping[str, Any] | None = None,
    stop_after: int | None = None,
    device: str = "cpu",
    on_epoch: Callable[[Progress], None] | None = None,
) -> Progress:
    """Train ``module`` in place and give the run's outcome; the best epoch's state is in it.

    With ``stop_after``, training ends after that many epochs of the schedule and keeps the last,
    whatever its validation accuracy: for a choice made before, refitted on more rows.

    With a ``checkpoint`` path, progress is saved there after every epoch and taken up from there,
    if it was made with the same recipe and ``provenance`` (else it is ignored). A loss or a
    validation score that is not finite ends the run as diverged: a result, not an error.
    """
    if len(training.labels) == 0 or len(validation.labels) == 0:
        raise InputError("training needs at least one training and one validation image.")
    feed = place(module, validation.load(np.arange(len(validation.labels))[:2]), device)
    optimizer = torch.optim.SGD(
        module.parameters(),
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
    )
    made_by = canonical_json(
        {"recipe": asdict(recipe), "stop_after": stop_after, "provenance": dict(provenance or {})}
    )
    progress = _resumed(checkpoint, made_by, module, optimizer)
    keys = sample_keys(training.ids)
    size = image_size(validation)
    last = recipe.epochs if stop_after is None else stop_after
    if 0 < progress.epoch < last:
        logger.info("training resumes after epoch %d from %s", progress.epoch, checkpoint)
    while progress.epoch < last and progress.diverged is None:
        draws = epoch_draws(keys, recipe.seed, progress.epoch)
        loss = _train_epoch(module, optimizer, training, draws, size, recipe, progress, feed)
        if progress.diverged is None:
            _validate(module, validation, loss, progress, device, keep=stop_after is not None)
        if checkpoint is not None:
            _save(checkpoint, made_by, module, optimizer, progress)
        if on_epoch is not None:
            on_epoch(progress)
    return progress


def predict(
    module: nn.Module, images: Images, *, batch_size: int = 64, device: str = "cpu"
) -> Float[ndarray, "n k"]:
    """The network's outputs on all images, float64, in evaluation mode."""
    rows = np.arange(len(images.labels))
    feed = place(module, images.load(rows[:2]), device)
    outputs = []
    with torch.inference_mode():
        for start in range(0, len(rows), batch_size):
            batch = torch.stack(list(images.load(rows[start : start + batch_size])))
            outputs.append(run_model(module, feed(batch)).double().cpu())
    return torch.cat(outputs).numpy()


def cosine(learning_rate: float, step: int, steps: int) -> float:
    """The learning rate at one step of the half cosine from its first value to zero."""
    return 0.5 * learning_rate * (1.0 + math.cos(math.pi * step / steps))


def _train_epoch(
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    training: Images,
    draws: Float[ndarray, "n d"],
    size: tuple[int, int],
    recipe: Recipe,
    progress: Progress,
    feed: Feed,
) -> float:
    """Mean loss of one epoch; a loss that is not finite marks the run as diverged."""
    batches = _batches(epoch_order(draws), recipe.batch_size)
    steps = recipe.epochs * len(batches)
    total = 0.0
    device = next(module.parameters()).device
    _training_mode(module, recipe.freeze_batch_norm)
    with torch.random.fork_rng(devices=_gpus(device)):
        # Dropout has no generator of its own; this seed makes it a function of (seed, epoch).
        torch.manual_seed(recipe.seed * 1_000_003 + progress.epoch)
        for index, rows in enumerate(batches):
            images = augmented(training.load(rows), draws[rows], recipe.augmentation, size)
            labels = torch.from_numpy(training.labels[rows]).to(device)
            step = progress.epoch * len(batches) + index
            for group in optimizer.param_groups:
                group["lr"] = cosine(recipe.learning_rate, step, steps)
            with _autocast(recipe.precision, device):
                loss = functional.cross_entropy(run_model(module, feed(images)).float(), labels)
            value = loss.item()
            if not math.isfinite(value):
                progress.diverged = f"the loss became {value} in epoch {progress.epoch + 1}"
                return value
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += value * len(rows)
    return total / sum(map(len, batches))


def _validate(
    module: nn.Module,
    validation: Images,
    loss: float,
    progress: Progress,
    device: str,
    *,
    keep: bool,
) -> None:
    """Record the epoch that has ended; its state is kept if none before did better, or always."""
    scores = predict(module, validation, device=device)
    if not np.isfinite(scores).all():
        progress.diverged = f"validation scores were not finite after epoch {progress.epoch + 1}"
        return
    accuracy = float(np.mean(scores.argmax(axis=1) == validation.labels))
    progress.epoch += 1
    progress.history.append({"loss": loss, "accuracy": accuracy})
    if keep or accuracy > progress.best_accuracy:
        progress.best_accuracy, progress.best_epoch = accuracy, progress.epoch
        progress.best_state = {k: v.detach().cpu().clone() for k, v in module.state_dict().items()}


def _training_mode(module: nn.Module, freeze_batch_norm: bool) -> None:
    module.train()
    if freeze_batch_norm:
        for layer in module.modules():
            if isinstance(layer, BATCH_NORMS):
                layer.eval()


def _batches(order: Int[ndarray, " n"], batch_size: int) -> list[Int[ndarray, " b"]]:
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches.pop()  # BatchNorm has no variance of a single sample.
    return batches


def image_size(images: Images) -> tuple[int, int]:
    """Height and width that the network is evaluated at, hence trained at."""
    first = images.load(np.zeros(1, dtype=np.int64))[0]
    return int(first.shape[-2]), int(first.shape[-1])


def _autocast(precision: str, device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16")


def _gpus(device: torch.device) -> list[torch.device]:
    return [device] if device.type == "cuda" else []


def _save(
    path: Path,
    made_by: str,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
) -> None:
    content = {
        "made_by": made_by,
        "module": module.state_dict(),
        "optimizer": optimizer.state_dict(),
        "progress": vars(progress),
    }
    with atomic_path(path) as partial:
        torch.save(content, partial)


def _resumed(
    path: Path | None, made_by: str, module: nn.Module, optimizer: torch.optim.Optimizer
) -> Progress:
    """The progress saved at ``path``, with module and optimizer put back to it."""
    if path is None or not path.is_file():
        return Progress()
    content = read_checkpoint(path)
    if content.get("made_by") != made_by:
        logger.info("%s was made with other settings or data: training starts anew", path)
        return Progress()
    module.load_state_dict(content["module"])
    optimizer.load_state_dict(content["optimizer"])
    return Progress(**content["progress"])
