"""The Gram with its kernels on disk: resumable, and in no more memory than is allowed.

    WORK/
      progress.json     what was asked for, and how many blocks of rows are finished
      checkpoint/       the sums of the block at hand after so many columns
      200000/train.npy  kernels of the first 200,000 columns, before centring and normalizing

While K fits in memory it is one block, and every feature byte is read once. Beyond that K is cut
into blocks of rows, each a pass over the rows it needs. Either way a killed run goes on from the
last checkpoint and gives the same bytes as one that was not killed.
"""

import logging
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.artefact import digest, read_json, write_json
from pipeline.gram.checkpoint import load_checkpoint, save_checkpoint
from pipeline.gram.finish import DIAGONAL, Form, apply_form, mirror_lower
from pipeline.gram.memory import block_rows, gram_bytes
from pipeline.gram.panels import PANEL_COLUMNS, check_sizes, column_ranges_of, weighted_panels
from pipeline.gram.row_blocks import RowBlock, TriangleBlock, WholeBlock
from pipeline.gram.sources import PanelSource, as_source

logger = logging.getLogger(__name__)

CHECKPOINT_SECONDS = 300.0
"""Default time between checkpoints; each writes the sums of one block."""


def gram_to_disk(
    train: Any,
    others: Mapping[str, Any] | None,
    target: Path,
    work: Path,
    *,
    memory: int,
    sizes: Sequence[int] = (),
    weights: Any = None,
    center: bool = False,
    normalize: bool = False,
    panel_columns: int = PANEL_COLUMNS,
    provenance: Mapping[str, Any] | None = None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> None:
    """Write the blocks of :func:`gram_blocks` as ``.npy`` files into the folder ``target``.

    Those of a prefix of q columns go into ``target/q``. At most ``memory`` bytes are used; ``work``
    keeps what is done so far, for the same features, ``provenance`` and settings only, and is the
    caller's to delete when ``target`` is safe. The files are written once, so they may be links.
    """
    sources = {"train": as_source(train, weights)}
    sources |= {name: as_source(values, weights) for name, values in (others or {}).items()}
    p = sources["train"].shape[1]
    check_sizes(sizes, p)
    blocks = plan_blocks(sources, memory, panel_columns)
    ranges = column_ranges_of(p, width=panel_columns, edges=sizes)
    edges = sorted({*sizes, p})
    key = _key(sources, blocks, edges, panel_columns, provenance)
    done = _resume(work, key, sources, edges)
    for number, block in enumerate(blocks):
        if number < done:
            continue
        logger.info("kernel: block %d of %d (%s)", number + 1, len(blocks), block.describe())
        _accumulate(block, number, ranges, edges, work, bool(sizes), checkpoint_seconds)
        write_json(work / "progress.json", {"key": key, "blocks_done": number + 1})
        shutil.rmtree(work / "checkpoint", ignore_errors=True)
    form = Form(center, normalize)
    for q in edges:
        folder = target if q == p else target / str(q)
        _publish(work / str(q), folder, list(sources), form, whole=len(blocks) == 1)


def plan_blocks(
    sources: Mapping[str, PanelSource], memory: int, panel_columns: int
) -> list[RowBlock]:
    """One block if all kernels fit in ``memory`` bytes, else blocks of rows."""
    train, *others = sources.values()
    n, p = train.shape
    m = sum(source.shape[0] for source in others)
    if gram_bytes(n, m, p=p, panel_columns=panel_columns) <= memory:
        return [WholeBlock(sources)]
    height = block_rows(n, m, memory, p=p, panel_columns=panel_columns)
    return [
        TriangleBlock(sources, name, slice(start, min(start + height, source.shape[0])))
        for name, source in sources.items()
        for start in range(0, source.shape[0], height)
    ]


def _key(
    sources: Mapping[str, PanelSource],
    blocks: Sequence[RowBlock],
    edges: Sequence[int],
    panel_columns: int,
    provenance: Mapping[str, Any] | None,
) -> str:
    return digest(
        {
            "shapes": {name: list(source.shape) for name, source in sources.items()},
            "blocks": [block.describe() for block in blocks],
            "edges": list(edges),
            "panel_columns": panel_columns,
            "provenance": dict(provenance or {}),
        }
    )


def _resume(work: Path, key: str, sources: Mapping[str, PanelSource], edges: Sequence[int]) -> int:
    """The number of finished blocks in ``work``; a folder of another job is emptied first."""
    progress = work / "progress.json"
    if progress.is_file():
        found = read_json(progress)
        if found["key"] == key:
            logger.info("kernel: going on after %d finished blocks", found["blocks_done"])
            return int(found["blocks_done"])
        shutil.rmtree(work)
    n = sources["train"].shape[0]
    for q in edges:
        folder = work / str(q)
        folder.mkdir(parents=True, exist_ok=True)
        for name, source in sources.items():
            rows = source.shape[0]
            np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.float32, (rows, n))
            if name != "train":
                diagonal = folder / f"{name}{DIAGONAL}.npy"
                np.lib.format.open_memmap(diagonal, "w+", np.float64, (rows,))
    write_json(progress, {"key": key, "blocks_done": 0})
    return 0


def _accumulate(
    block: RowBlock,
    number: int,
    ranges: Sequence[slice],
    edges: Sequence[int],
    work: Path,
    prefixes: bool,
    checkpoint_seconds: float,
) -> None:
    """One pass for one block, from its checkpoint on; its rows are on disk afterwards."""
    sums = block.sums()
    start = load_checkpoint(work / "checkpoint", number, sums)
    remaining = [columns for columns in ranges if columns.start >= start]
    p = ranges[-1].stop
    saved = time.monotonic()
    for columns, panel in weighted_panels(block.stack, block.weightings, remaining):
        block.add(sums, panel)
        q = columns.stop
        if q in edges:
            block.write(sums, work / str(q), p / q if prefixes else 1.0)
        if q < p and time.monotonic() - saved >= checkpoint_seconds:
            save_checkpoint(work / "checkpoint", number, q, sums)
            saved = time.monotonic()


def _publish(source: Path, target: Path, names: Sequence[str], form: Form, whole: bool) -> None:
    """Complete the kernels of one prefix and put them into the target folder."""
    if not whole:
        # Repeating it after a kill changes nothing: only the lower triangle is read.
        K = np.load(source / "train.npy", mmap_mode="r+")
        mirror_lower(torch.from_numpy(K))
        K.flush()
    target.mkdir(parents=True, exist_ok=True)
    changed = form.center or form.normalize
    for file in source.glob("*.npy"):
        link_or_copy(file, target / file.name, copy=changed)
    if changed:
        files = {file.stem: np.load(file, mmap_mode="r+") for file in target.glob("*.npy")}
        blocks = {name: torch.from_numpy(values) for name, values in files.items()}
        others = [name for name in names if name != "train"]
        crosses = {name: blocks[name] for name in others}
        norms = {name: blocks[name + DIAGONAL] for name in others}
        apply_form(blocks["train"], crosses, norms, form)
        for values in files.values():
            values.flush()


def link_or_copy(source: Path, target: Path, *, copy: bool) -> None:
    """Put a file that is written once into another folder, by a link where that is possible."""
    target.unlink(missing_ok=True)
    if not copy:
        try:
            os.link(source, target)
        except OSError:
            # Another file system, or one without links.
            copy = True
    if copy:
        shutil.copyfile(source, target)
