"""A finished run as studies read it: kernel, features, labels and ids by split."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from pipeline.artefact import read_json
from pipeline.registry import RunConfig, load_config
from pipeline.runs import RunFolder
from pipeline.stages.fit import CONVERGED, Fitted
from pipeline.stages.kernel_files import KernelBlocks
from pipeline.store import FeatureStore
from pipeline.types import InputError


@dataclass(frozen=True)
class FinishedRun:
    """The artefacts of a run that a study needs."""

    folder: RunFolder

    @classmethod
    def open(cls, path: Path) -> "FinishedRun":
        """The run in a folder; refused unless it has a kernel."""
        folder = RunFolder(path)
        if not (folder.kernel / "provenance.json").is_file():
            raise InputError(f"{path} has no finished kernel. Run it first: entk run CONFIG.")
        return cls(folder)

    @cached_property
    def config(self) -> RunConfig:
        """The resolved config."""
        return load_config(self.folder.config)

    @cached_property
    def kernel(self) -> KernelBlocks:
        """K of the training rows and of every split with them."""
        return KernelBlocks.open(self.folder.kernel)

    @cached_property
    def ridge(self) -> float:
        """The ridge that validation chose, absolute."""
        relative = Fitted.open(self.folder, CONVERGED).record["selected"]["ridge"]
        if self.config.solver.ridge_scale == "absolute":
            return float(relative)
        return float(relative) * float(self.train_kernel().diagonal().mean())

    def train_kernel(self) -> Float[ndarray, "n n"]:
        """K among the training rows, float32."""
        return np.asarray(self.kernel.train())

    def made_from(self) -> dict[str, Any]:
        """What tells this run's results from those of another: kernel and chosen ridge."""
        kernel = read_json(self.folder.kernel / "provenance.json")
        return {"kernel": kernel, "ridge": Fitted.open(self.folder, CONVERGED).record["selected"]}

    def store(self, split: str) -> FeatureStore:
        """The features of a split."""
        stores = self.folder.feature_stores()
        if split not in stores:
            raise InputError(f"the run has no split {split!r}; it has {', '.join(stores)}.")
        place = stores[split]
        if isinstance(place, Path) and not place.exists():
            raise InputError(
                f"the features of {self.folder.path} are not at {place}, seen from {Path.cwd()}. "
                "Call this where `entk run` was called; if they were removed, run it again."
            )
        return FeatureStore.open(place)
