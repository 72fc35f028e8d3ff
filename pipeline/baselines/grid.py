"""The learning-rate grid of a trained baseline: every point resumable, the best on validation.

Points do not depend on each other, so workers may train them in any order beforehand;
:func:`tune` then finds them finished. A point that diverged is a result like another, and the
grid goes on. Where the best rate lies at an end of the grid, the grid grows beyond it: a baseline
is not to lose for want of a setting.
"""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from safetensors.torch import load_file, save_file
from torch import nn

from pipeline.artefact import is_done, new_artefact, read_json, write_json
from pipeline.baselines.training import Images, Progress, Recipe, predict, train

logger = logging.getLogger(__name__)

RESULT, WEIGHTS = "result.json", "best.safetensors"


@dataclass(frozen=True)
class Point:
    """One finished training run of the grid."""

    learning_rate: float
    accuracy: float | None
    """Of the best epoch on validation; none where the run diverged."""
    epoch: int
    """The best epoch, counted from one."""
    history: list[dict[str, float]]
    diverged: str | None
    path: Path


@dataclass(frozen=True)
class TrainedFit:
    """A trained baseline after selection."""

    selected: dict[str, Any] | None
    """What was chosen, for ``metrics.json``; none where every run diverged."""
    scores: dict[str, Float[ndarray, "n k"]]
    """Scores of the chosen network on every split; empty where every run diverged."""
    points: list[Point]
    notes: list[str] = field(default_factory=list)

    def record(self) -> dict[str, Any]:
        """The content of ``fit.json``."""
        facts: dict[str, Any] = {"selected": self.selected, "notes": self.notes}
        facts["grid"] = [
            {"learning_rate": p.learning_rate, "accuracy": p.accuracy, "epoch": p.epoch}
            | ({"diverged": p.diverged} if p.diverged else {})
            for p in self.points
        ]
        if self.selected is None:
            return facts | {"status": "diverged", "reason": "every learning rate diverged"}
        best = _best(self.points)
        assert best is not None
        accuracies = [epoch["accuracy"] for epoch in best.history]
        epochs = list(range(1, len(accuracies) + 1))
        return facts | {
            "curve": {"iterations": epochs, "label": "epoch", "splits": {"val": accuracies}}
        }


def train_point(
    make_module: Callable[[], nn.Module],
    training: Images,
    validation: Images,
    recipe: Recipe,
    *,
    folder: Path,
    provenance: Mapping[str, Any],
    stop_after: int | None = None,
    device: str = "cpu",
    on_epoch: Callable[[Progress], None] | None = None,
) -> Point:
    """Train at one learning rate, or take up where a killed run stopped, or find it finished.

    ``provenance`` names the network's weights and the data; the recipe is added to it.
    """
    name = f"lr_{recipe.learning_rate}"
    path = folder / (name if stop_after is None else f"{name}_refit")
    made_by = {**provenance, "recipe": asdict(recipe), "stop_after": stop_after}
    if not is_done(path, made_by):
        checkpoint = folder / f"{path.name}.checkpoint"
        progress = train(
            make_module(),
            training,
            validation,
            recipe,
            checkpoint=checkpoint,
            provenance=provenance,
            stop_after=stop_after,
            device=device,
            on_epoch=on_epoch,
        )
        _finish(path, made_by, progress)
        checkpoint.unlink(missing_ok=True)
    result = read_json(path / RESULT)
    return Point(recipe.learning_rate, **result, path=path)


def tune(
    make_module: Callable[[], nn.Module],
    splits: Mapping[str, Images],
    recipe: Recipe,
    *,
    learning_rates: Sequence[float],
    folder: Path,
    provenance: Mapping[str, Any],
    selection: str = "val",
    refit: Images | None = None,
    extensions: int = 2,
    device: str = "cpu",
    on_epoch: Callable[[Progress], None] | None = None,
) -> TrainedFit:
    """Train at every learning rate, choose on the selection split, then score the other splits.

    ``splits`` holds "train", the selection split and those to score. ``recipe`` gives all but
    the learning rate. The grid grows at most ``extensions`` times, by half a power of ten. With
    ``refit``, the images of training and selection rows together, the chosen rate and epoch are
    trained again on them; the selection split's scores stay those of the model before.
    """

    def visit(rate: float, images: Images, stop_after: int | None = None) -> Point:
        return train_point(
            make_module,
            images,
            splits[selection],
            replace(recipe, learning_rate=rate),
            folder=folder,
            provenance=provenance,
            stop_after=stop_after,
            device=device,
            on_epoch=on_epoch,
        )

    points = [visit(rate, splits["train"]) for rate in sorted(set(learning_rates))]
    for _ in range(extensions):
        beyond = _beyond(points)
        if beyond is None:
            break
        logger.info("the best learning rate lies at the end of the grid: adding %.3g", beyond)
        points = sorted([*points, visit(beyond, splits["train"])], key=lambda p: p.learning_rate)
    unlearned = _no_better_than_one_class(points, splits[selection].labels)
    notes = [*_notes(points, recipe.epochs), *unlearned]
    best = _best(points)
    if best is None:
        return TrainedFit(None, {}, points, notes)
    final = best if refit is None else visit(best.learning_rate, refit, stop_after=best.epoch)
    if final.diverged:
        return TrainedFit(None, {}, points, [*notes, f"refitted on all rows: {final.diverged}"])
    scores = _scores(make_module, splits, selection, best, final, device)
    selected = {"learning_rate": best.learning_rate, "epoch": best.epoch, "seed": recipe.seed}
    return TrainedFit(selected, scores, points, notes)


def _scores(
    make_module: Callable[[], nn.Module],
    splits: Mapping[str, Images],
    selection: str,
    best: Point,
    final: Point,
    device: str,
) -> dict[str, Float[ndarray, "n k"]]:
    """Scores of the final network on every split, of the one before on the selection split."""
    module = make_module()
    module.load_state_dict(load_file(best.path / WEIGHTS))
    scores = {selection: predict(module, splits[selection], device=device)}
    module.load_state_dict(load_file(final.path / WEIGHTS))
    others = [split for split in splits if split not in ("train", selection)]
    return scores | {split: predict(module, splits[split], device=device) for split in others}


def _notes(points: Sequence[Point], epochs: int) -> list[str]:
    notes = [
        f"learning rate {p.learning_rate:g} diverged: {p.diverged}" for p in points if p.diverged
    ]
    if _beyond(points) is not None:
        notes.append("the chosen learning rate lies at the edge of its grid: widen the grid")
    best = _best(points)
    if best is not None and best.epoch == epochs:
        notes.append(f"the last of {epochs} epochs was the best: more epochs may do better")
    return notes


def _no_better_than_one_class(points: Sequence[Point], labels: Int[ndarray, " n"]) -> list[str]:
    share = np.bincount(labels).max() / len(labels)
    best = _best(points)
    if best is None or best.accuracy is None or best.accuracy > share:
        return []
    return [
        f"no learning rate did better than the most frequent class, {share:.1%} of the selection "
        "split: nothing was learned. Widen the grid, or give an untrained network a preprocessing "
        "of its own"
    ]


def _best(points: Sequence[Point]) -> Point | None:
    """The point of most validation accuracy.

    Of equals the one with the largest rate: where rates are too small to learn, all do as badly.
    """
    usable = [point for point in points if point.accuracy is not None]
    return max(usable, key=lambda p: (p.accuracy, p.learning_rate)) if usable else None


def _beyond(points: Sequence[Point]) -> float | None:
    """The next rate outside a grid whose best lies at its end, on the grid 1, 3, 10, 30, …"""
    best = _best(points)
    if best is None or len(points) < 2:
        return None
    rates = [point.learning_rate for point in points]
    half_decades = 2.0 * math.log10(best.learning_rate)
    if best.learning_rate == max(rates):
        return _rounded(math.floor(half_decades + 0.5) + 1)
    if best.learning_rate == min(rates):
        return _rounded(math.floor(half_decades + 0.5) - 1)
    return None


def _rounded(half_decades: int) -> float:
    power, odd = divmod(half_decades, 2)
    return float(f"{3 if odd else 1}e{power}")


def _finish(path: Path, provenance: Mapping[str, Any], progress: Progress) -> None:
    result = {
        "accuracy": None if progress.diverged else progress.best_accuracy,
        "epoch": progress.best_epoch,
        "history": progress.history,
        "diverged": progress.diverged,
    }
    with new_artefact(path, provenance) as folder:
        write_json(folder / RESULT, result)
        if not progress.diverged and progress.best_state is not None:
            state = {k: v.contiguous() for k, v in progress.best_state.items()}
            save_file(state, folder / WEIGHTS)
