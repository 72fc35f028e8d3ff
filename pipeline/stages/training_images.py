"""Splits as training reads them: rows decoded on demand, small splits only once."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property

import numpy as np
from jaxtyping import Int
from numpy import ndarray
from torch import Tensor

from pipeline.baselines.augment import Augmentation
from pipeline.baselines.training import Images
from pipeline.data.preprocess import Preprocess, PreprocessOptions
from pipeline.data.split import Split
from pipeline.types import InputError

KEPT_BYTES = 2**30
"""Splits up to this many bytes of float32 stay in memory: all of CIFAR does, ImageNet does not."""


class Decoder:
    """Positions of a split to preprocessed images (c, h, w), which may differ in size.

    With ``keep``, a split that is small enough is decoded whole at the first call.
    """

    def __init__(
        self, split: Split, preprocess: PreprocessOptions, *, keep: bool = False, threads: int = 1
    ) -> None:
        self._split = split
        self._transform = Preprocess(preprocess)
        self._keep = keep
        self._threads = threads

    def __call__(self, positions: Int[ndarray, " b"]) -> list[Tensor]:
        """The images at these positions, in the order given."""
        if self._kept is not None:
            return [self._kept[position] for position in positions]
        return self._decoded(positions)

    @cached_property
    def _kept(self) -> list[Tensor] | None:
        first = self._one(0)
        size = len(self._split) * first.numel() * first.element_size()
        if not self._keep or size > KEPT_BYTES:
            return None
        return self._decoded(np.arange(len(self._split)))

    def _decoded(self, positions: Int[ndarray, " b"]) -> list[Tensor]:
        if self._threads == 1:
            return [self._one(position) for position in positions]
        with ThreadPoolExecutor(self._threads) as pool:
            return list(pool.map(self._one, positions))

    def _one(self, position: int) -> Tensor:
        image = self._transform(self._split.source.image(int(self._split.rows[position])))
        if image.ndim != 3:
            raise InputError(
                f"split {self._split.name} holds feature vectors; scratch, finetune and lp_ft "
                "train on images. Leave them out.",
                "baselines",
            )
        return image


def split_images(
    split: Split, preprocess: PreprocessOptions, *, keep: bool = False, threads: int = 1
) -> Images:
    """A split behind a function that loads some of it."""
    return Images(
        Decoder(split, preprocess, keep=keep, threads=threads), split.labels, list(split.ids)
    )


def joined(first: Images, second: Images) -> Images:
    """The rows of one after those of the other."""
    n = len(first.labels)

    def load(rows: Int[ndarray, " b"]) -> Sequence[Tensor]:
        of_first = rows < n
        ahead = iter(first.load(rows[of_first]))
        behind = iter(second.load(rows[~of_first] - n))
        return [next(ahead if inside else behind) for inside in of_first]

    labels = np.concatenate([first.labels, second.labels])
    return Images(load, labels, [*first.ids, *second.ids])


def training_preprocess(
    preprocess: PreprocessOptions, augmentation: Augmentation
) -> PreprocessOptions:
    """Preprocessing ahead of the augmentation: random boxes are cut from the uncropped image."""
    if augmentation == "resized_crop_flip":
        return preprocess.model_copy(update={"crop": None})
    return preprocess
