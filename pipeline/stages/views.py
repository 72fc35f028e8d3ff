"""The kernel as solvers take it: in memory, in files, over workers, or never formed.

| road | the kernel stage leaves | a view multiplies with |
|---|---|---|
| ``memory`` | K and the cross-kernels | K in memory |
| ``disk`` | the same | tiles read from the files |
| ``sharded`` | each worker's rows of them | the worker's rows in memory |
| ``matrix_free`` | nothing | the features, panel by panel |
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.gram import FeaturePanels, FileRows, PanelSource, resident, shard_rows
from pipeline.planner.roads import Strategy
from pipeline.solvers.cross import CrossKernel, DenseCross
from pipeline.solvers.feature_kernel import FeatureCross, FeatureKernel
from pipeline.solvers.group import Alone, Group, clipped, shares
from pipeline.solvers.operator import DenseKernel, SharedKernel
from pipeline.solvers.row_kernel import RowKernel
from pipeline.stages.kernel_files import REFIT, KernelBlocks, shard_folder
from pipeline.store import FeatureStore
from pipeline.store.place import Location


@dataclass(frozen=True, kw_only=True)
class ViewSpec:
    """Where the kernel lies, in a form that travels to workers: paths are absolute."""

    road: Strategy
    kernel: Path
    stores: Mapping[str, Location]
    sizes: Mapping[str, int]
    """Feature rows of every split."""
    fitted: tuple[str, ...]
    """The splits whose rows are fitted in the end: training rows, and the selection's on refit."""
    resident: bool
    """Whether the fitted rows' features stay in memory (``matrix_free``)."""

    @property
    def others(self) -> list[str]:
        """The splits that are only predicted."""
        return [name for name in self.sizes if name not in self.fitted]

    def parts(self, size: int) -> list[slice]:
        """The fitted rows of each worker."""
        return shares(sum(self.sizes[name] for name in self.fitted), size)

    def ranges(self, names: Sequence[str]) -> dict[str, slice]:
        """Where each split's rows lie when the splits are stacked."""
        edges = np.cumsum([0, *(self.sizes[name] for name in names)]).tolist()
        return {name: slice(edges[i], edges[i + 1]) for i, name in enumerate(names)}


class KernelView(ABC):
    """A worker's view, or the only one; ``refit`` takes the selection rows into the kernel."""

    def __init__(self, spec: ViewSpec, group: Group) -> None:
        self.spec = spec
        self.group = group
        self.n = spec.sizes["train"]
        self._given: list[SharedKernel] = []
        self._sent = group.sent

    def operator(self, *, refit: bool = False) -> SharedKernel:
        """The kernel among the training rows."""
        found = self._operator(refit)
        self._given.append(found)
        return found

    @abstractmethod
    def cross(self, split: str, *, refit: bool = False) -> CrossKernel:
        """A split's kernel with the training rows."""

    def rows(self, *, refit: bool = False) -> slice:
        """The training rows held here."""
        return self._parts(refit)[self.group.rank]

    def take_work(self) -> dict[str, int]:
        """Products with one column, and bytes sent by all workers, since this was last asked.

        Beside the products, inner products and predictions are sent around.
        """
        given, self._given = self._given, []
        before, self._sent = self._sent, self.group.sent
        in_products = sum(operator.sent for operator in given)
        return {
            "products": sum(operator.products for operator in given),
            "bytes_sent_in_products": in_products * self.group.size,
            "bytes_sent": (self._sent - before) * self.group.size,
        }

    def _parts(self, refit: bool) -> list[slice]:
        parts = self.spec.parts(self.group.size)
        return parts if refit else clipped(parts, self.n)

    @abstractmethod
    def _operator(self, refit: bool) -> SharedKernel:
        """The kernel as :meth:`operator` gives it, before its work is counted."""


class MemoryView(KernelView):
    """K in this process."""

    @cached_property
    def _blocks(self) -> KernelBlocks:
        return KernelBlocks.open(self.spec.kernel)

    def cross(self, split: str, *, refit: bool = False) -> CrossKernel:
        """Read from the file when it is needed."""
        if refit:
            return DenseCross(torch.from_numpy(self._blocks.refit_cross(split)))
        return DenseCross(torch.from_numpy(np.asarray(self._blocks.cross(split))))

    def _operator(self, refit: bool) -> SharedKernel:
        return DenseKernel(self._blocks.refit() if refit else self._blocks.train())


class DiskView(KernelView):
    """K in files, multiplied tile by tile."""

    def cross(self, split: str, *, refit: bool = False) -> CrossKernel:
        """Tiles of the split's rows."""
        path = self.spec.kernel
        first = DenseCross(FileRows(path / f"{split}.npy"))
        if not refit:
            return first
        return JoinedCross(first, self.n, DenseCross(FileRows(path / REFIT / f"{split}.npy")))

    def _operator(self, refit: bool) -> SharedKernel:
        name = f"{REFIT}/whole.npy" if refit else "train.npy"
        return RowKernel(FileRows(self.spec.kernel / name))


class JoinedCross:
    """Two cross-kernels side by side: with the first rows, and with the others."""

    def __init__(self, first: CrossKernel, n: int, second: CrossKernel) -> None:
        self.m = first.m
        self._first, self._n, self._second = first, n, second

    def matvec(self, V: Float[Tensor, "n k"]) -> Float[Tensor, "m k"]:
        """The sum of both products."""
        return self._first.matvec(V[: self._n]) + self._second.matvec(V[self._n :])


class ShardView(KernelView):
    """This worker's rows of K, in memory."""

    @cached_property
    def _rows(self) -> Float[Tensor, "h n"]:
        parts = self.spec.parts(self.group.size)
        shards = [shard_folder(self.spec.kernel, rank) for rank in range(self.group.size)]
        return torch.from_numpy(shard_rows(shards, parts, self.group.rank)).to(self.group.device)

    @cached_property
    def _cross(self) -> Float[Tensor, "m h"]:
        file = shard_folder(self.spec.kernel, self.group.rank) / "cross.npy"
        return torch.from_numpy(np.load(file)).to(self.group.device)

    def cross(self, split: str, *, refit: bool = False) -> CrossKernel:
        """The split's columns of this worker's rows."""
        own = self.rows(refit=refit)
        height = own.stop - own.start
        if split in self.spec.fitted:
            columns = self.spec.ranges(self.spec.fitted)[split]
            return DenseCross(self._rows[:height, columns].T, self.group)
        rows = self.spec.ranges(self.spec.others)[split]
        return DenseCross(self._cross[rows, :height], self.group)

    def _operator(self, refit: bool) -> SharedKernel:
        parts = self._parts(refit)
        own = parts[self.group.rank]
        return RowKernel(self._rows[: own.stop - own.start, : parts[-1].stop], parts, self.group)


class FeatureView(KernelView):
    """This worker's rows of the features, in memory or read at every product."""

    @cached_property
    def _held(self) -> list[tuple[PanelSource, slice]]:
        """The fitted rows held here, source by source."""
        own, held = self.rows(refit=True), []
        for name, placed in self.spec.ranges(self.spec.fitted).items():
            start, stop = max(own.start, placed.start), min(own.stop, placed.stop)
            if stop > start:
                part = (self._store(name), slice(start - placed.start, stop - placed.start))
                held.append((resident(*part), slice(0, stop - start)) if self._keeps else part)
        return held

    @property
    def _keeps(self) -> bool:
        return self.spec.resident

    def cross(self, split: str, *, refit: bool = False) -> CrossKernel:
        """Through the features of the training rows and of the split's."""
        others = shares(self.spec.sizes[split], self.group.size)
        held = self._first(self.rows(refit=refit))
        panels = FeaturePanels(
            [*held, (self._store(split), others[self.group.rank])], self.group.device
        )
        height = sum(rows.stop - rows.start for _, rows in held)
        return FeatureCross(panels, height, others, self.group, scale=panels.factors)

    def _operator(self, refit: bool) -> SharedKernel:
        parts = self._parts(refit)
        panels = FeaturePanels(self._first(parts[self.group.rank]), self.group.device)
        return FeatureKernel(panels, parts, self.group, scale=panels.factors)

    def _first(self, own: slice) -> list[tuple[PanelSource, slice]]:
        """The first of the rows held here, as many as ``own`` has."""
        found, left = [], own.stop - own.start
        for source, rows in self._held:
            taken = min(left, rows.stop - rows.start)
            found.append((source, slice(rows.start, rows.start + taken)))
            left -= taken
        return found

    def _store(self, name: str) -> PanelSource:
        return FeatureStore.open(self.spec.stores[name])


VIEWS: dict[Strategy, type[KernelView]] = {
    "memory": MemoryView,
    "disk": DiskView,
    "sharded": ShardView,
    "matrix_free": FeatureView,
}


def open_view(spec: ViewSpec, group: Group | None = None) -> KernelView:
    """The view of one worker of a group, or of a process alone."""
    return VIEWS[spec.road](spec, group or Alone())
