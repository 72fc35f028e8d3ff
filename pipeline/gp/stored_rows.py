"""Rows of J from stored features: the inputs of a kernel are then row ids.

Ids are samples of the store, 0 … n − 1; a sample of q outputs has q rows.
"""

from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.jacobian.tensor_version import Version
from pipeline.types import InputError

PANEL_COLUMNS = 8_192
"""Columns read at a time: an inner chunk of the store."""


@runtime_checkable
class StoredFeatures(Protocol):
    """What is asked of a feature store."""

    facts: Any
    """Has ``outputs``: rows per sample."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows (samples × outputs) and columns."""
        ...

    def weights(self) -> np.ndarray:
        """What stored columns are multiplied with."""
        ...

    def panel(self, columns: slice, rows: slice = ...) -> np.ndarray:
        """Stored values of some columns and rows, float32."""
        ...


class StoredRows:
    """J by row id, weighted as the store's sketch says."""

    def __init__(self, store: StoredFeatures, dtype: torch.dtype = torch.float64) -> None:
        self.store, self.dtype = store, dtype
        self.version: tuple[Version, ...] = ()
        self.per_sample = int(store.facts.outputs)
        self.samples = store.shape[0] // self.per_sample

    def rows(self, inputs: Tensor) -> Float[Tensor, "n*q p"]:
        """Rows of the ids in (n, 1) or (n,); integers in a floating type are ids too."""
        ids = self._checked(inputs)
        first = int(ids.min()) * self.per_sample
        read = slice(first, (int(ids.max()) + 1) * self.per_sample)
        wanted = (ids[:, None] * self.per_sample + np.arange(self.per_sample)).ravel() - first
        weights, p = self.store.weights(), self.store.shape[1]
        out = torch.empty((len(wanted), p), dtype=self.dtype)
        for start in range(0, p, PANEL_COLUMNS):
            columns = slice(start, min(start + PANEL_COLUMNS, p))
            panel = self.store.panel(columns, read)[wanted] * weights[columns]
            out[:, columns] = torch.from_numpy(panel).to(self.dtype)
        return out

    def _checked(self, inputs: Tensor) -> np.ndarray:
        values = inputs.detach().cpu().numpy().reshape(len(inputs), -1)
        if values.shape != (len(inputs), 1):
            raise InputError(f"a row id is one number; got inputs of shape {tuple(inputs.shape)}.")
        ids = values[:, 0].astype(np.int64)
        if not np.array_equal(ids, values[:, 0]):
            raise InputError("the inputs of stored features are row ids: whole numbers.")
        outside = (ids < 0) | (ids >= self.samples)
        if outside.any():
            raise InputError(
                f"row id {ids[outside][0]} is outside 0 … {self.samples - 1}, the samples of the "
                "store."
            )
        return ids
