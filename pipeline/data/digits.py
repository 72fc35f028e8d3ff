"""scikit-learn's handwritten digits, shifted: the benchmark that needs no download.

1,797 images of 8×8 pixels (half of the UCI set), digits 0–4 for pretraining a small network,
digits 5–9 as the target task. The out-of-distribution splits are the images of ``id_test``
rotated, blurred or thickened. Every image passes exactly one bilinear interpolation, from 8×8 to
16×16; the rotation is part of it, so that resampling itself is no shift.
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pipeline.data.arrays import ArraySource
from pipeline.data.assemble import BenchmarkOptions
from pipeline.data.order import stratified_order, stream
from pipeline.data.preprocess import PreprocessOptions, over_default
from pipeline.data.split import Benchmark, Rows, Split, refuse_overlap
from pipeline.types import InputError

SIDE = 16
BRIGHTEST = 16.0
"""Largest value in scikit-learn's copy."""
PRETRAIN_DIGITS = 5
SMALLEST_ANGLE, LARGEST_ANGLE = 20.0, 30.0
BLUR_SIGMA = 1.5
DIGIT_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

PREPROCESS = PreprocessOptions(channels=1, mean=(0.5,), std=(0.5,))

NOTES = (
    "digits: target classes are the digits 5–9; the backbone is pretrained on 0–4. Images are "
    "enlarged from 8×8 to 16×16 by one bilinear interpolation",
    "ood_test: the id_test images rotated by 20–30°, direction at random; what leaves the frame is "
    "cut off",
    f"ood_blur: the id_test images under a Gaussian blur of {BLUR_SIGMA} pixels (of 16)",
    "ood_thick: the id_test images with strokes thickened by one pixel (of 16) on every side",
    "The three OOD splits show the same handwriting as id_test: their errors are not independent "
    "of its errors",
)


class DigitsOptions(BenchmarkOptions):
    """scikit-learn's digits: 5–9 as the target task, rotated, blurred and thickened as OOD."""

    kind: Literal["digits"] = "digits"
    val: Annotated[float, Field(ge=0, lt=1)] = 0.15
    """Share of the target digits held out as `val`; 0 for none."""
    id_test: Annotated[float, Field(gt=0, lt=1)] = 0.35
    """Share of the target digits held out as `id_test`."""
    preprocess: Annotated[PreprocessOptions, over_default(PREPROCESS)] = PREPROCESS
    """Preprocessing of the 16×16 images."""


def build(options: DigitsOptions) -> Benchmark:
    """Splits ``pretrain``, ``train``, ``val``, ``id_test``, ``ood_test``, ``ood_blur``,
    ``ood_thick``."""
    from sklearn.datasets import load_digits

    data = load_digits()
    small = np.asarray(data.images, dtype=np.float64) / BRIGHTEST
    digits = np.asarray(data.target, dtype=np.int64)
    target = digits >= PRETRAIN_DIGITS
    pretrain = np.flatnonzero(~target)
    positions = _partition(digits, np.flatnonzero(target), options)
    order = stratified_order(digits[pretrain], stream(options.seed, "order of pretrain"))
    positions = {"pretrain": pretrain[order], **positions}

    upright = ArraySource(_bytes(_enlarged(small, np.zeros(len(small)))), "digits")
    splits = {
        name: Split(name, upright, rows, digits[rows] % PRETRAIN_DIGITS)
        for name, rows in positions.items()
    }
    angles = _angles(len(small), stream(options.seed, "angles"))
    splits |= _shifted(small, angles, splits["id_test"])
    splits = _limited(splits, options)
    benchmark = Benchmark(
        "digits",
        list(DIGIT_NAMES[PRETRAIN_DIGITS:]),
        splits,
        NOTES,
        pretrain_classes=DIGIT_NAMES[:PRETRAIN_DIGITS],
    )
    refuse_overlap(benchmark.splits)
    return benchmark


def _partition(digits: Rows, target: Rows, options: DigitsOptions) -> dict[str, Rows]:
    if options.val + options.id_test >= 1:
        raise InputError(
            f"val ({options.val}) and id_test ({options.id_test}) leave nothing to train on.",
            "benchmark.val",
        )
    order = target[stratified_order(digits[target], stream(options.seed, "order of target"))]
    n_test = round(options.id_test * len(order))
    n_val = round(options.val * len(order))
    parts = {"train": order[n_test + n_val :], "val": order[n_test : n_test + n_val]}
    parts["id_test"] = order[:n_test]
    return {name: rows for name, rows in parts.items() if name != "val" or n_val}


def _shifted(
    small: NDArray[np.float64], angles: NDArray[np.float64], id_test: Split
) -> dict[str, Split]:
    from scipy.ndimage import gaussian_filter, grey_dilation

    upright = _enlarged(small, np.zeros(len(small)))
    images = {
        "ood_test": _enlarged(small, angles),
        "ood_blur": _each(upright, lambda image: gaussian_filter(image, BLUR_SIGMA)),
        "ood_thick": _each(upright, lambda image: grey_dilation(image, size=(3, 3))),
    }
    return {
        name: Split(
            name,
            ArraySource(_bytes(shifted), f"digits-{name}"),
            id_test.rows,
            id_test.labels,
            derived_from="id_test",
        )
        for name, shifted in images.items()
    }


def _angles(n: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Rotation of every image (n,), in degrees."""
    size = SMALLEST_ANGLE + (LARGEST_ANGLE - SMALLEST_ANGLE) * rng.random(n)
    return np.where(rng.random(n) < 0.5, -size, size)


def _enlarged(small: NDArray[np.float64], degrees: NDArray[np.float64]) -> NDArray[np.float64]:
    """Images (n, 8, 8) rotated about their centre and drawn on 16×16 pixels, black outside."""
    from scipy.ndimage import affine_transform

    scale = small.shape[1] / SIDE
    centre, small_centre = (SIDE - 1) / 2, (small.shape[1] - 1) / 2
    enlarged = np.empty((len(small), SIDE, SIDE))
    for i, angle in enumerate(np.deg2rad(degrees)):
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        matrix = scale * turn
        offset = small_centre - matrix @ np.full(2, centre)
        # order 1 is bilinear; "constant" fades to black at the border as strokes end there.
        enlarged[i] = affine_transform(
            small[i], matrix, offset, output_shape=(SIDE, SIDE), order=1, mode="grid-constant"
        )
    return enlarged


def _each(
    images: NDArray[np.float64], change: Callable[[NDArray[np.float64]], Any]
) -> NDArray[np.float64]:
    return np.stack([change(image) for image in images])


def _bytes(images: NDArray[np.float64]) -> NDArray[np.uint8]:
    return np.rint(np.clip(images, 0, 1) * 255).astype(np.uint8)


def _limited(splits: dict[str, Split], options: DigitsOptions) -> dict[str, Split]:
    for name in options.limit:
        if name not in splits:
            raise InputError(
                f"no split {name!r} to limit; this benchmark has {', '.join(splits)}.",
                f"benchmark.limit.{name}",
            )
    return {
        name: split.subset(slice(options.limit.get(name, len(split))))
        for name, split in splits.items()
    }
