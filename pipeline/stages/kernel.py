"""The kernel stage: one pass over the features, every block of K in one artefact.

| file | block |
|---|---|
| ``train.npy`` | K among the training rows, float32 (n, n) |
| ``SPLIT.npy`` | a split against the training rows (m, n) |
| ``SPLIT_diagonal.npy`` | k(x, x) of a split's rows, float64 (m,) |
| ``refit_SPLIT.npy`` | a split against the selection split's rows, where the run refits on both |

Blocks of the first columns only (``kernel.sizes``) lie in folders of that name, ``1000/train.npy``.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.artefact import digest, open_artefact, read_json
from pipeline.gram.blocks import gram_blocks, gram_prefixes
from pipeline.stages.job import Job, stage_provenance
from pipeline.stages.stage import run_stage
from pipeline.store import FeatureStore
from pipeline.types import InputError

STAGE = "kernel"
REFIT = "refit_"


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
        own = self._block(REFIT + self.selection)
        return np.block([[self.train(), cross.T], [cross, own]])

    def refit_cross(self, split: str) -> np.ndarray:
        """(m, n): a split against the training and the selection rows."""
        return np.hstack([self.cross(split), self._block(REFIT + split)])

    def _block(self, name: str) -> np.ndarray:
        block: np.ndarray = np.load(self.path / f"{name}.npy", mmap_mode="r")
        return block


def build_kernel(job: Job, stores: Mapping[str, Path]) -> Path:
    """Make all blocks of K unless they are there; the artefact's folder."""
    provenance = kernel_provenance(job)

    def make(folder: Path) -> Mapping[str, Any]:
        opened = {name: FeatureStore.open(path) for name, path in stores.items()}
        for q, blocks in _all_blocks(job, opened):
            target = folder if q is None else folder / str(q)
            target.mkdir(exist_ok=True)
            for name, block in blocks.items():
                refuse_not_finite(name, block)
                np.save(target / f"{name}.npy", np.ascontiguousarray(block))
        n, p = opened["train"].shape
        rows = sum(store.shape[0] for store in opened.values())
        return {"n": n, "p": p, "bytes_read": rows * p * opened["train"].dtype.itemsize}

    run_stage(job.folder, STAGE, job.folder.kernel, provenance, make)
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


def _all_blocks(
    job: Job, stores: Mapping[str, FeatureStore]
) -> Iterator[tuple[int | None, Mapping[str, np.ndarray]]]:
    options = job.config.kernel
    form: dict[str, Any] = {"center": options.center, "normalize": options.normalize}
    others = {name: stores[name] for name in job.evaluated}
    if options.sizes:
        p = stores["train"].shape[1]
        for q, blocks in gram_prefixes(stores["train"], others, options.sizes, **form):
            yield (None if q == p else q), blocks
    else:
        yield None, gram_blocks(stores["train"], others, **form)
    if job.config.refit:
        # The selection rows against themselves and the tests: the few rows that the first pass,
        # which reads every feature once, has not multiplied.
        held_out = job.config.selection
        rest = {name: store for name, store in others.items() if name != held_out}
        blocks = gram_blocks(stores[held_out], rest, **form)
        named = {REFIT + name: blocks[name] for name in rest}
        yield None, {**named, REFIT + held_out: blocks["train"]}


def refuse_not_finite(name: str, block: np.ndarray) -> None:
    """Raise for a kernel entry that is NaN or infinite, naming its place."""
    finite = np.isfinite(block)
    if not finite.all():
        place = tuple(int(i) for i in np.argwhere(~finite)[0])
        raise InputError(f"the kernel block {name!r} is not finite at {place}.")
