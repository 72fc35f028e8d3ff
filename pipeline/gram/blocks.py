"""The Gram: one pass over the features, panel by panel, for the kernel and all cross-kernels.

Training rows and all other rows are read together as one tall panel; its upper part gives the
triangle of K by SYRK, its lower part the cross-kernels by one GEMM. Sums are float32, panel after
panel in order, so that the same panels give the same bytes.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from pipeline.gram.accumulate import Sums
from pipeline.gram.device import (
    DEVICE_PANEL_COLUMNS,
    Prefix,
    accumulate_on_device,
    device_of,
    resident_panels,
    streamed_panels,
)
from pipeline.gram.finish import Form, finish
from pipeline.gram.panels import PANEL_COLUMNS, check_sizes, column_ranges_of, weighted_panels
from pipeline.gram.sources import StackedSource, as_source
from pipeline.gram.weighting import Weighting, weightings_of
from pipeline.types import InputError

Blocks = dict[str, Any]
"""NumPy arrays, or tensors on the GPU that computed them, by name."""


def gram_blocks(
    train: Any,
    others: Mapping[str, Any] | None = None,
    *,
    weights: Any = None,
    center: bool = False,
    normalize: bool = False,
    columns: slice = slice(None),
    panel_columns: int | None = None,
    device: str | torch.device = "cpu",
) -> Blocks:
    """K of the training rows and of all other rows with them, in one pass over the features.

    ``train`` and ``others`` are feature stores or arrays. Returns ``"train"`` (n, n) and, for each
    other ``name``, its (m, n) kernel and as ``name + "_diagonal"`` its rows' k(x, x), float64 (m,):
    what a Gaussian process and the share outside the training span need. K = Φ W² Φᵀ with the
    stores' own weights unless ``weights`` (p,) are given. ``columns`` restricts the sum: the
    kernels of the column ranges that workers compute add up to the whole.

    NumPy arrays come back, float32; tensors on the GPU where ``device`` is one, or where all
    features are tensors on one.
    """
    form = Form(center, normalize)
    [(_, blocks)] = _pass(train, others or {}, weights, columns, (), panel_columns, device, form)
    return blocks


def gram_prefixes(
    train: Any,
    others: Mapping[str, Any] | None,
    sizes: Sequence[int],
    *,
    weights: Any = None,
    center: bool = False,
    normalize: bool = False,
    panel_columns: int | None = None,
    device: str | torch.device = "cpu",
) -> Iterator[tuple[int, Blocks]]:
    """The blocks of :func:`gram_blocks` for the first q columns, for each q of ``sizes`` and for p.

    All come out of one pass, each when it is reached. For sketches whose prefixes are samples
    (``prefix_closed``): a prefix of q columns is weighted by p/q more than those columns in all p.
    """
    form, everything = Form(center, normalize), slice(None)
    yield from _pass(train, others or {}, weights, everything, sizes, panel_columns, device, form)


def _pass(
    train: Any,
    others: Mapping[str, Any],
    weights: Any,
    columns: slice,
    sizes: Sequence[int],
    panel_columns: int | None,
    device: str | torch.device,
    form: Form,
) -> Iterator[tuple[int, Blocks]]:
    """One pass over the features; the finished blocks at every prefix asked for and at the end."""
    if "train" in others:
        raise InputError("the name 'train' stands for the training rows themselves.")
    features = [train, *others.values()]
    resident = device_of(features)
    sources = [as_source(values, weights) for values in features]
    p = sources[0].shape[1]
    check_sizes(sizes, p)
    default = PANEL_COLUMNS if resident is None else DEVICE_PANEL_COLUMNS
    ranges = column_ranges_of(p, columns, panel_columns or default, sizes)
    weightings = weightings_of(sources)
    factors = dict(zip(["train", *others], (w.factor for w in weightings), strict=True))
    on = resident or torch.device(device)
    if on.type == "cpu":
        prefixes = _on_cpu(StackedSource(sources), weightings, ranges, sizes)
    else:
        panels = (
            resident_panels(features, weightings, ranges)
            if resident
            else streamed_panels(StackedSource(sources), weightings, ranges, on)
        )
        rows = [source.shape[0] for source in sources]
        prefixes = accumulate_on_device(panels, rows, ranges, sizes, on)
    for q, K, crosses, norms in prefixes:
        # A prefix stands for all columns; a worker's range of columns only for itself.
        extra = p / q if sizes else 1.0
        named_crosses = dict(zip(others, crosses, strict=True))
        named_norms = dict(zip(others, norms, strict=True))
        blocks = finish(K, named_crosses, named_norms, factors, extra, form)
        yield q, {name: b if b.is_cuda else b.numpy() for name, b in blocks.items()}


def _on_cpu(
    stack: StackedSource,
    weightings: Sequence[Weighting],
    ranges: Sequence[slice],
    sizes: Sequence[int],
) -> Iterator[Prefix]:
    n = stack.row_ranges[0].stop
    own = [slice(rows.start - n, rows.stop - n) for rows in stack.row_ranges[1:]]
    sums = Sums.zeros(n, stack.shape[0] - n)
    for columns, panel in weighted_panels(stack, weightings, ranges):
        sums.add(panel)
        last = columns == ranges[-1]
        if last or columns.stop in sizes:
            part = sums if last else sums.copy()
            K, cross = torch.from_numpy(part.triangle), torch.from_numpy(part.cross.T)
            norms = torch.from_numpy(part.norms)
            yield columns.stop, K, [cross[rows] for rows in own], [norms[rows] for rows in own]
