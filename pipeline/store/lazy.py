"""The store as a lazy Dask array, for what runs over it out of core."""

from typing import Any, Protocol

import numpy as np

from pipeline.store.shard import ShardLayout
from pipeline.types import MissingExtraError

CHUNK_BYTES = 8 * 2**20
"""A chunk at most, float32, where a shard's columns allow it: of larger ones the C library keeps
many beside those in use, smaller ones make graphs that take more memory than the chunks."""


class Gradients(Protocol):
    """What is asked of a store: raw gradients of a range of columns and rows."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        ...

    def gradients(self, columns: slice, rows: slice) -> np.ndarray:
        """Raw gradients, float32."""
        ...


def lazy_chunks(layout: ShardLayout) -> tuple[int, int]:
    """Rows and columns of a chunk: whole shards × an inner chunk, so that nothing is read twice."""
    shard_bytes = layout.rows * layout.chunk_columns * np.dtype(np.float32).itemsize
    return layout.rows * max(1, CHUNK_BYTES // shard_bytes), layout.chunk_columns


def lazy_array(store: Gradients, chunks: tuple[int, int]) -> Any:
    """A Dask array over ``store``; every chunk is read, and its checksums compared, when needed."""
    try:
        import dask.array as da
    except ImportError:
        raise MissingExtraError("dask", "cluster", "FeatureStore.as_dask") from None
    return da.from_array(_ArrayView(store), chunks=chunks, name=False, asarray=False)


class _ArrayView:
    """The store as Dask sees an array: a shape, a type, and slices."""

    ndim = 2
    dtype = np.dtype(np.float32)

    def __init__(self, store: Gradients) -> None:
        self.store = store
        self.shape = store.shape

    def __getitem__(self, key: tuple[slice, slice]) -> np.ndarray:
        rows, columns = key
        return self.store.gradients(columns, rows)
