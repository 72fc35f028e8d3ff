"""The kernel stage: one pass over the features, every block of K in one artefact.

| file | block |
|---|---|
| ``train.npy`` | K among the training rows, float32 (n, n) |
| ``SPLIT.npy`` | a split against the training rows (m, n) |
| ``SPLIT_diagonal.npy`` | k(x, x) of a split's rows, float64 (m,) |
| ``refit/…`` | the same against the selection split's rows, where the run refits on both |

Blocks of the first columns only (``kernel.sizes``) lie in folders of that name, ``1000/train.npy``.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.artefact import digest, open_artefact, read_json
from pipeline.gram import gram_to_disk
from pipeline.stages.job import Job, stage_provenance
from pipeline.stages.stage import run_stage
from pipeline.store import FeatureStore

STAGE = "kernel"
REFIT = "refit"


@dataclass(frozen=True)
class KernelBlocks:
    """The finished kernel of a run; blocks are memory-mapped float32."""

    path: Path
    selection: str

    @classmethod
    def open(cls, path: Path, size: int | None = None) -> "KernelBlocks":
        """The kernel at ``path``, of all columns or of the first ``size``."""
        facts = open_artefact(path)
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


def build_kernel(job: Job, stores: Mapping[str, Path], memory: int) -> Path:
    """Make all blocks of K in at most ``memory`` bytes unless they are there; their folder.

    What is accumulated is kept in ``kernel.work`` from time to time: a killed pass goes on there.
    """
    provenance, work = kernel_provenance(job), job.folder.path / "kernel.work"

    def make(folder: Path) -> Mapping[str, Any]:
        opened = {name: FeatureStore.open(path) for name, path in stores.items()}
        options = job.config.kernel
        form: dict[str, Any] = {
            "memory": memory,
            "center": options.center,
            "normalize": options.normalize,
            "provenance": provenance,
        }
        tests = {name: opened[name] for name in job.evaluated}
        first = work / "train"
        gram_to_disk(opened["train"], tests, folder, first, sizes=options.sizes, **form)
        if job.config.refit:
            # The few rows that the first pass, which reads every feature once, has not multiplied.
            held_out = tests.pop(job.config.selection)
            gram_to_disk(held_out, tests, folder / REFIT, work / REFIT, **form)
        n, p = opened["train"].shape
        rows = sum(store.shape[0] for store in opened.values())
        return {"n": n, "p": p, "bytes_read": rows * p * opened["train"].dtype.itemsize}

    run_stage(job.folder, STAGE, job.folder.kernel, provenance, make)
    shutil.rmtree(work, ignore_errors=True)
    return job.folder.kernel


def kernel_provenance(job: Job) -> Mapping[str, Any]:
    """What K depends on: the features of every split and the kernel's options."""
    features = read_json(job.folder.features)
    return stage_provenance(
        STAGE,
        features={name: digest(entry["provenance"]) for name, entry in features.items()},
        options=job.config.kernel.model_dump(mode="json"),
        selection=job.config.selection,
        refit=job.config.refit,
    )
