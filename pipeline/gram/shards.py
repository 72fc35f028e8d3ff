"""The rows of the kernels that one worker of several holds, made from all features in one pass.

    SHARD/
      rows.npy    K of the worker's rows with all training rows, float32 (h, n)
      cross.npy   all other rows with the worker's rows, float32 (m, h)

K is symmetric, so each pair of workers' blocks is made by one of them: the columns of the others
are zeros in ``rows.npy``, and :func:`shard_rows` takes them from the worker that made them. Made
twice, the two would differ in rounding, and an unsymmetric K stalls conjugate gradients.

Features are read a chunk of rows at a time, each multiplied with the worker's own: the panels of
all rows, which a whole kernel's pass keeps, would outgrow the worker's share of K.
"""

import logging
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.artefact import is_done, new_artefact
from pipeline.gram.accumulate import add_product, new_block
from pipeline.gram.checkpoint import load_checkpoint, save_checkpoint
from pipeline.gram.disk import CHECKPOINT_SECONDS
from pipeline.gram.file_rows import save_by_rows
from pipeline.gram.finish import mirror_lower
from pipeline.gram.memory import CHUNK_ROWS
from pipeline.gram.panels import (
    PANEL_COLUMNS,
    column_ranges_of,
    converted,
    narrowed,
    read_ahead,
    row_ranges,
)
from pipeline.gram.sources import PanelSource, StackedSource
from pipeline.gram.weighting import weightings_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Piece:
    """Some columns of some rows of one source."""

    columns: slice
    source: int
    rows: slice
    first: int
    """Where the rows begin: among the worker's own, or among all rows."""
    own: bool


def shard_to_disk(
    sources: Sequence[PanelSource],
    parts: Sequence[slice],
    rank: int,
    target: Path,
    *,
    provenance: Mapping[str, Any],
    panel_columns: int = PANEL_COLUMNS,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> None:
    """Write the kernels of one worker's rows, ``parts[rank]`` of the stacked sources, unless done.

    The sources are those of the training rows, which the workers share in ``parts``, then all
    others'. Sums are float32, panel after panel in order. A killed pass goes on from its last
    checkpoint, which lies beside ``target``.
    """
    rows, training = parts[rank], parts[-1].stop
    if is_done(target, provenance):
        logger.info("kernel: rows %d to %d are there", rows.start, rows.stop)
        return
    stack = StackedSource(sources)
    wanted = [parts[other] for other in partners(rank, len(parts))]
    wanted.append(slice(training, stack.shape[0]))
    block = new_block(rows.stop - rows.start, stack.shape[0])
    checkpoint = target.with_name(f"{target.name}.checkpoint")
    start = load_checkpoint(checkpoint, rows.start, [block])
    ranges = [r for r in column_ranges_of(stack.shape[1], width=panel_columns) if r.start >= start]
    saved = time.monotonic()
    for done in _passes(stack, rows, wanted, block, ranges):
        if done < stack.shape[1] and time.monotonic() - saved >= checkpoint_seconds:
            save_checkpoint(checkpoint, rows.start, done, [block])
            saved = time.monotonic()
    factors = _row_factors(stack)
    block *= factors[rows, None]
    block *= factors
    mirror_lower(torch.from_numpy(block[:, rows]))
    with new_artefact(target, provenance) as folder:
        own = block[:, :training]
        save_by_rows(folder / "rows.npy", (len(own), training), own.__getitem__)
        np.save(folder / "cross.npy", block[:, training:].T)
    shutil.rmtree(checkpoint, ignore_errors=True)


def partners(rank: int, workers: int) -> list[int]:
    """The workers whose blocks with this one it makes: itself and half of the others."""
    half = [(rank + distance) % workers for distance in range((workers + 1) // 2)]
    opposite = workers % 2 == 0 and rank < workers // 2
    return [*half, rank + workers // 2] if opposite else half


def shard_rows(shards: Sequence[Path], parts: Sequence[slice], rank: int) -> np.ndarray:
    """All columns of a worker's rows of K, float32 (h, n), from all workers' finished shards."""
    own = parts[rank]
    K: np.ndarray = np.load(shards[rank] / "rows.npy")
    for other in set(range(len(parts))) - set(partners(rank, len(parts))):
        made = np.load(shards[other] / "rows.npy", mmap_mode="r")
        K[:, parts[other]] = made[:, own].T
    return K


def _passes(
    stack: StackedSource,
    rows: slice,
    wanted: Sequence[slice],
    block: np.ndarray,
    ranges: Sequence[slice],
) -> Iterator[int]:
    """Add the products of each range of columns to the block; the columns done so far."""
    if not ranges:
        return
    width = max(columns.stop - columns.start for columns in ranges)
    shape = (min(CHUNK_ROWS, stack.shape[0]), width)
    buffers = [torch.empty(shape, dtype=stack.dtype) for _ in range(2)]
    work = None if stack.dtype == torch.float32 else torch.empty(shape)
    panel = torch.empty((rows.stop - rows.start, width))
    weightings = weightings_of(stack.sources)

    def load(piece: Piece, index: int) -> Tensor:
        height = piece.rows.stop - piece.rows.start
        values = narrowed(buffers[index % 2][:height], piece.columns.stop - piece.columns.start)
        stack.sources[piece.source].read(piece.columns, values, piece.rows)
        return values

    pieces = [piece for columns in ranges for piece in _pieces(stack, rows, wanted, columns)]
    for number, (piece, values) in enumerate(read_ahead(load, pieces)):
        chunk = converted(values, work)
        weightings[piece.source].apply(chunk, piece.columns)
        taken, own = slice(piece.first, piece.first + len(chunk)), narrowed(panel, chunk.shape[1])
        if piece.own:
            own[taken] = chunk
        else:
            add_product(block[:, taken], own.numpy(), chunk.numpy())
        if number + 1 == len(pieces) or pieces[number + 1].columns != piece.columns:
            yield piece.columns.stop


def _pieces(
    stack: StackedSource, rows: slice, wanted: Sequence[slice], columns: slice
) -> Iterator[Piece]:
    """The worker's own rows first, then those wanted, chunk by chunk."""
    for own, taken in [(True, rows), *((False, part) for part in wanted)]:
        for source, placed in enumerate(stack.row_ranges):
            start, stop = max(placed.start, taken.start), min(placed.stop, taken.stop)
            for part in row_ranges(max(0, stop - start), CHUNK_ROWS):
                first = start + part.start
                inside = slice(first - placed.start, start + part.stop - placed.start)
                yield Piece(columns, source, inside, first - (rows.start if own else 0), own)


def _row_factors(stack: StackedSource) -> np.ndarray:
    """What each row's features are multiplied with, float32."""
    weightings = zip(weightings_of(stack.sources), stack.row_ranges, strict=True)
    return np.concatenate(
        [np.full(rows.stop - rows.start, w.factor, dtype=np.float32) for w, rows in weightings]
    )
