"""What the kernel stage leaves, by the road that was taken.

| file | block |
|---|---|
| ``train.npy`` | K among the training rows, float32 (n, n) |
| ``SPLIT.npy`` | a split against the training rows (m, n) |
| ``SPLIT_diagonal.npy`` | k(x, x) of a split's rows, float64 (m,) |
| ``refit/…`` | the same against the selection split's rows, where the run refits on both |
| ``refit/whole.npy`` | K among both, where it is multiplied from the file |
| ``00000/rows.npy`` | over workers: the first one's rows of K, float32 (h, n) |
| ``00000/cross.npy`` | all other rows with these, float32 (m, h) |

Blocks of the first columns only (``kernel.sizes``) lie in folders of that name, ``1000/train.npy``.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pipeline.artefact import open_artefact
from pipeline.types import InputError

REFIT = "refit"

BLOCKS, SHARDS, NOTHING = "blocks", "shards", "nothing"
"""What lies in the folder: whole blocks, workers' rows, or no kernel at all."""


@dataclass(frozen=True)
class KernelBlocks:
    """The finished kernel of a run in whole blocks; they are memory-mapped float32."""

    path: Path
    selection: str

    @classmethod
    def open(cls, path: Path, size: int | None = None) -> "KernelBlocks":
        """The kernel at ``path``, of all columns or of the first ``size``."""
        facts = open_artefact(path)
        if facts["layout"] != BLOCKS:
            raise InputError(
                f"the kernel at {path} was made for several workers or never formed; this needs "
                "it in whole blocks. Raise limits.memory and run again.",
                "limits.memory",
            )
        return cls(path if size is None else path / str(size), facts["selection"])

    def train(self) -> np.ndarray:
        """K among the training rows (n, n)."""
        return self._block("train")

    def cross(self, split: str) -> np.ndarray:
        """(m, n): a split against the training rows."""
        return self._block(split)

    def diagonal(self, split: str) -> np.ndarray:
        """k(x, x) of a split's rows, float64 (m,)."""
        return self._block(f"{split}_diagonal")

    def refit(self) -> np.ndarray:
        """K among the training and the selection rows together."""
        cross = self.cross(self.selection)
        own = self._block(f"{REFIT}/train")
        return np.block([[self.train(), cross.T], [cross, own]])

    def refit_cross(self, split: str) -> np.ndarray:
        """(m, n): a split against the training and the selection rows."""
        return np.hstack([self.cross(split), self._block(f"{REFIT}/{split}")])

    def _block(self, name: str) -> np.ndarray:
        block: np.ndarray = np.load(self.path / f"{name}.npy", mmap_mode="r")
        return block


def as_tensor(block: np.ndarray) -> torch.Tensor:
    """A block in memory; memory-mapped ones are read-only, and tensors want to be writable."""
    return torch.from_numpy(np.array(block))


def shard_folder(kernel: Path, rank: int) -> Path:
    """Where a worker's rows lie."""
    return kernel / f"{rank:05d}"
