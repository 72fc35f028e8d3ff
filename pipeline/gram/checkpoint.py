"""What a pass has added up so far, kept on disk whole or not at all."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.artefact import new_artefact, open_artefact


def save_checkpoint(folder: Path, block: int, columns: int, sums: Sequence[np.ndarray]) -> None:
    """Keep the sums of a block of rows over the first columns."""
    with new_artefact(folder, {"block": block, "columns": columns}) as partial:
        for i, values in enumerate(sums):
            np.save(partial / f"{i}.npy", values)


def load_checkpoint(folder: Path, block: int, sums: Sequence[np.ndarray]) -> int:
    """Fill ``sums``; the columns that they cover, 0 without a checkpoint of this block."""
    if not folder.is_dir():
        return 0
    facts = open_artefact(folder)
    if facts["block"] != block:
        return 0
    for i, values in enumerate(sums):
        values[...] = np.load(folder / f"{i}.npy", mmap_mode="r")
    return int(facts["columns"])
