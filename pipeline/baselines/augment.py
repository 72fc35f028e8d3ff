"""Random crops and flips whose randomness is a function of (seed, epoch, sample id) alone.

A run that was killed, or that batches its samples otherwise, draws the same numbers for the same
sample; no generator has a state that could be lost.
"""

import hashlib
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor
from torch.nn import functional

Augmentation = Literal["none", "crop", "crop_flip", "resized_crop_flip"]
"""``crop`` pads by 4 and crops; ``resized_crop`` takes a random box to the network's size."""

SMALL_SIDE = 64
"""Images up to this side are cropped with padding, larger ones by random boxes."""


PADDING = 4
"""Pixels added on every side before a random crop (He et al. 2016, section 4.2)."""

AREA = (0.08, 1.0)
RATIO = (3.0 / 4.0, 4.0 / 3.0)
TRIES = 10
"""Random resized crops as in Szegedy et al. (2015): share of the area, aspect ratio, attempts."""

FLIP, ORDER, CROP = 0, 1, 2
"""Columns of the draws: the flip, the place in the epoch's order, then what a crop needs."""
DRAWS = CROP + 4 * TRIES

GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def sample_keys(ids: Sequence[str]) -> ndarray:
    """uint64 (n,): one key a sample, from its id."""
    digests = (hashlib.sha256(name.encode()).digest()[:8] for name in ids)
    return np.array([int.from_bytes(digest, "little") for digest in digests], dtype=np.uint64)


def epoch_draws(keys: ndarray, seed: int, epoch: int) -> Float[ndarray, "n d"]:
    """``DRAWS`` independent uniforms in [0, 1) for every sample of one epoch.

    SplitMix64 (Steele et al. 2014) from the state that key, seed and epoch give.
    """
    with np.errstate(over="ignore"):  # Arithmetic modulo 2⁶⁴ is what is wanted.
        run = _mixed(_mixed(np.array([seed], dtype=np.uint64)) + np.uint64(epoch) * GOLDEN)
        state = _mixed(keys ^ run)
        steps = (np.arange(DRAWS, dtype=np.uint64) + np.uint64(1)) * GOLDEN
        return (_mixed(state[:, None] + steps) >> np.uint64(11)) * 2.0**-53


def epoch_order(draws: Float[ndarray, "n d"]) -> ndarray:
    """int64 (n,): the order in which an epoch visits the samples."""
    return np.argsort(draws[:, ORDER], kind="stable")


def augmented(
    images: Sequence[Tensor],
    draws: Float[ndarray, "b d"],
    kind: Augmentation,
    size: tuple[int, int],
) -> Float[Tensor, "b c height width"]:
    """One batch of images (c, h, w), each cropped and flipped by its own draws to one size."""
    if kind == "none":
        return torch.stack(list(images))
    cropped = _resized_crop if kind.startswith("resized") else _padded_crop
    batch = [cropped(image, row[CROP:], size) for image, row in zip(images, draws, strict=True)]
    stacked = torch.stack(batch)
    if not kind.endswith("flip"):
        return stacked
    flips = torch.from_numpy(draws[:, FLIP] < 0.5)[:, None, None, None]
    return torch.where(flips, stacked.flip(-1), stacked)


def usual_augmentation(size: tuple[int, int]) -> Augmentation:
    """What is customary for photographs of this height and width."""
    return "crop_flip" if max(size) <= SMALL_SIDE else "resized_crop_flip"


def _padded_crop(image: Tensor, draws: ndarray, size: tuple[int, int]) -> Tensor:
    height, width = size
    padded = functional.pad(image, (PADDING,) * 4)
    top = int(draws[0] * (padded.shape[1] - height + 1))
    left = int(draws[1] * (padded.shape[2] - width + 1))
    return padded[:, top : top + height, left : left + width]


def _resized_crop(image: Tensor, draws: ndarray, size: tuple[int, int]) -> Tensor:
    top, left, height, width = _crop_box(image.shape[1], image.shape[2], draws)
    box = image[None, :, top : top + height, left : left + width]
    return functional.interpolate(box, size, mode="bilinear", antialias=True, align_corners=False)[
        0
    ]


def _crop_box(height: int, width: int, draws: ndarray) -> tuple[int, int, int, int]:
    """Top, left, height and width of the first attempt that fits, or else of the whole image."""
    for share, shape, down, right in draws.reshape(TRIES, 4):
        area = height * width * (AREA[0] + share * (AREA[1] - AREA[0]))
        ratio = math.exp(math.log(RATIO[0]) + shape * math.log(RATIO[1] / RATIO[0]))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return int(down * (height - h + 1)), int(right * (width - w + 1)), h, w
    return 0, 0, height, width


def _mixed(state: ndarray) -> ndarray:
    """SplitMix64's output function."""
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
