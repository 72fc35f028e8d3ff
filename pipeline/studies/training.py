"""Training inside a study: a bar of epochs, and a checkpoint that a killed study continues from."""

import time
from collections.abc import Mapping
from typing import Any

import psutil
from torch import nn

from pipeline.baselines.training import Progress, Recipe, train
from pipeline.log import BlockDone
from pipeline.studies.images import Labelled, images_of
from pipeline.studies.study import Work


def trained(
    work: Work,
    name: str,
    module: nn.Module,
    data: Mapping[str, Labelled],
    recipe: Recipe,
    made_from: Mapping[str, Any],
) -> Progress:
    """Train ``module`` on ``train``, judged on ``val``; at once where its checkpoint is finished.

    The checkpoint counts if it has the same recipe and was ``made_from`` the same.
    """
    reached, since = 0, time.perf_counter()

    def on_epoch(progress: Progress) -> None:
        nonlocal reached, since
        seconds, peak = time.perf_counter() - since, psutil.Process().memory_info().rss
        epochs = progress.epoch - reached
        work.progress.advance(BlockDone(name, reached, epochs, seconds, peak))
        reached, since = progress.epoch, time.perf_counter()

    work.progress.start(name, recipe.epochs, 0, "epochs")
    outcome = train(
        module,
        images_of(data["train"]),
        images_of(data["val"]),
        recipe,
        checkpoint=work.checkpoint(f"{name}.training"),
        provenance=made_from,
        on_epoch=on_epoch,
    )
    work.progress.finish(name)
    return outcome
