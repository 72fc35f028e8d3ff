"""The Gram: one pass over the features, panel by panel, for the kernel and all cross-kernels.

Training rows and all other rows are read together as one tall panel; its upper part gives the
triangle of K by SYRK, its lower part the cross-kernels by one GEMM. Sums are float32, panel after
panel in order, so that the same panels give the same bytes.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.gram import accumulate
from pipeline.gram.kernel_form import center_blocks, normalize_blocks
from pipeline.gram.panels import PANEL_COLUMNS, column_ranges_of, weighted_panels
from pipeline.gram.sources import StackedSource, as_source
from pipeline.gram.weighting import Weighting, weighting
from pipeline.types import InputError

DIAGONAL = "_diagonal"
"""``blocks[name + DIAGONAL]`` holds k(x, x) of the rows of a cross-kernel."""


@dataclass
class Sums:
    """What a pass accumulates: unweighted by common factors, one triangle only."""

    triangle: np.ndarray
    """Lower triangle of K (n, n), Fortran order."""
    cross: np.ndarray
    """K (n, m) of training rows with all others, Fortran order; m may be 0."""
    norms: np.ndarray
    """Squared norms of the other rows, float64 (m,)."""

    @classmethod
    def zeros(cls, n: int, m: int) -> "Sums":
        """Nothing added yet."""
        return cls(accumulate.new_block(n, n), accumulate.new_block(n, m), np.zeros(m))

    def add(self, panel: np.ndarray) -> None:
        """Add one panel (n + m, w)."""
        n = len(self.triangle)
        accumulate.add_triangle(self.triangle, panel[:n])
        if len(panel) > n:
            accumulate.add_product(self.cross, panel[:n], panel[n:])
            accumulate.add_squared_norms(self.norms, panel[n:])

    def copy(self) -> "Sums":
        """A copy to finish while the pass goes on."""
        return Sums(self.triangle.copy("F"), self.cross.copy("F"), self.norms.copy())


def gram_blocks(
    train: Any,
    others: Mapping[str, Any] | None = None,
    *,
    weights: Any = None,
    center: bool = False,
    normalize: bool = False,
    panel_columns: int = PANEL_COLUMNS,
    columns: slice = slice(None),
) -> dict[str, np.ndarray]:
    """K of the training rows and of all other rows with them, in one pass over the features.

    ``train`` and ``others`` are feature stores or arrays. Returns ``"train"`` (n, n) and, for each
    other ``name``, its (m, n) kernel and as ``name + "_diagonal"`` its rows' k(x, x), float64 (m,):
    what a Gaussian process and the share outside the training span need. K = Φ W² Φᵀ with the
    stores' own weights unless ``weights`` (p,) are given. ``columns`` restricts the sum: the
    kernels of the column ranges that workers compute add up to the whole.
    """
    ranges = column_ranges_of(as_source(train).shape[1], columns, panel_columns)
    [(_, blocks)] = _prefixes(train, others or {}, weights, ranges, (), center, normalize)
    return blocks


def gram_prefixes(
    train: Any,
    others: Mapping[str, Any] | None,
    sizes: Sequence[int],
    *,
    weights: Any = None,
    center: bool = False,
    normalize: bool = False,
    panel_columns: int = PANEL_COLUMNS,
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """The blocks of :func:`gram_blocks` for the first q columns, for each q of ``sizes`` and for p.

    All come out of one pass, each when it is reached. For sketches whose prefixes are samples
    (``prefix_closed``): a prefix of q columns is weighted by p/q more than those columns in all p.
    """
    p = as_source(train).shape[1]
    for size in sizes:
        if not 0 < size <= p:
            raise InputError(
                f"{size} columns are asked for, the features have {p}.", "kernel.sizes"
            )
    ranges = column_ranges_of(p, slice(None), panel_columns, sizes)
    yield from _prefixes(train, others or {}, weights, ranges, sizes, center, normalize)


def _prefixes(
    train: Any,
    others: Mapping[str, Any],
    weights: Any,
    ranges: list[slice],
    sizes: Sequence[int],
    center: bool,
    normalize: bool,
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    stack, weightings = stacked(train, others, weights)
    n, p = stack.row_ranges[0].stop, stack.shape[1]
    sums = Sums.zeros(n, stack.shape[0] - n)
    last = ranges[-1].stop
    for columns, panel in weighted_panels(stack, weightings, ranges):
        sums.add(panel)
        q = columns.stop
        if q in sizes or q == last:
            # A prefix stands for all columns; a worker's share of the columns is only a share.
            extra = p / q if sizes else 1.0
            part = sums if q == last else sums.copy()
            yield q, finished(part, list(others), stack, weightings, extra, center, normalize)


def stacked(
    train: Any, others: Mapping[str, Any], weights: Any
) -> tuple[StackedSource, list[Weighting]]:
    """All features one under the other, the training rows first, and each source's weighting."""
    if "train" in others:
        raise InputError("the name 'train' stands for the training rows themselves.")
    sources = [as_source(features, weights) for features in (train, *others.values())]
    return StackedSource(sources), [weighting(source) for source in sources]


def finished(
    sums: Sums,
    names: Sequence[str],
    stack: StackedSource,
    weightings: Sequence[Weighting],
    extra: float,
    center: bool,
    normalize: bool,
) -> dict[str, np.ndarray]:
    """Whole kernels from the sums, in the sums' memory: factors, the other triangle, options."""
    n, training = len(sums.triangle), weightings[0].factor
    # The transpose of a Fortran-ordered lower triangle is a row-major upper one.
    K = sums.triangle.T
    K *= np.float32(extra * training**2)
    accumulate.mirror_upper(K)
    crosses, norms = {}, {}
    for name, rows, weights in zip(names, stack.row_ranges[1:], weightings[1:], strict=True):
        own = slice(rows.start - n, rows.stop - n)
        crosses[name] = sums.cross.T[own]
        crosses[name] *= np.float32(extra * training * weights.factor)
        norms[name] = sums.norms[own] * (extra * weights.factor**2)
    if center:
        center_blocks(K, crosses, norms)
    if normalize:
        normalize_blocks(K, crosses, norms)
    diagonals = {name + DIAGONAL: values for name, values in norms.items()}
    return {"train": K, **crosses, **diagonals}
