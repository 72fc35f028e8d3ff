"""Linear probing on augmented images: activations of several crops and flips of every image.

Kumar et al. (2022) probe features of augmented images. A pass of the network over the training
images, each cropped and flipped by draws of its own, gives one set of rows; several passes are
fitted together, so that the probe sees as many views of an image.
"""

from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from pipeline.baselines.augment import Augmentation, augmented, epoch_draws, sample_keys
from pipeline.baselines.linear_probe import LogisticOptions
from pipeline.baselines.memory_format import place
from pipeline.baselines.training import Images
from pipeline.config import Seed
from pipeline.types import run_model


class AugmentedProbeOptions(LogisticOptions):
    """Logistic regression on the penultimate activations of augmented training images."""

    kind: Literal["linear_probe_augmented"] = "linear_probe_augmented"
    passes: PositiveInt = 4
    """Views of every training image; each adds n rows to the regression."""
    augmentation: Augmentation | Literal["usual"] = "usual"
    """``usual``: padded crops and flips up to 64 pixels, random resized crops and flips beyond."""
    batch_size: int = Field(default=64, ge=1)
    """Images a forward pass."""
    seed: Seed = 0
    """Of the crops and flips."""


def augmented_activations(
    module: nn.Module,
    head: str,
    images: Images,
    *,
    augmentation: Augmentation,
    size: tuple[int, int],
    seed: int,
    number: int,
    batch_size: int = 64,
    device: str = "cpu",
) -> Float[ndarray, "n h"]:
    """float32 inputs of the layer ``head`` for one view of every image, in evaluation mode.

    The views of pass ``number`` are a function of (seed, number, sample id), whatever the batches.
    """
    draws = epoch_draws(sample_keys(images.ids), seed, number)
    rows = np.arange(len(images.ids))

    def views(some: Int[ndarray, " b"]) -> Float[Tensor, "b c height width"]:
        return augmented(images.load(some), draws[some], augmentation, size)

    feed = place(module, list(views(rows[:2])), device)
    caught: list[Tensor] = []
    hook = module.get_submodule(head).register_forward_pre_hook(
        lambda _, inputs: caught.append(inputs[0].float().cpu())
    )
    try:
        with torch.inference_mode():
            for start in range(0, len(rows), batch_size):
                run_model(module, feed(views(rows[start : start + batch_size])))
    finally:
        hook.remove()
    return torch.cat(caught).numpy()
