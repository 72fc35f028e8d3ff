"""Does the whole job fit: synthetic images of Living-17's size to predictions, all on the device.

Features stay in device memory as 16 bits; where Zarr is installed they are written to a store
behind the computation. The selection is the job's own: 10 % held out, the path by Lanczos with
Nesterov's stopping times, a refit on all rows. Beside each stage stands what the planner says of
it at this device's rates; the features' time is that of one batch, times the batches.
"""

import importlib.util
import tempfile
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpu.measure import stage
from gpu.planned import best_seconds, compared, planned
from pipeline.gram import gram_blocks
from pipeline.jacobian import FeatureExtractor
from pipeline.jacobian.costs import shape_costs
from pipeline.models.head import with_head
from pipeline.models.resnet import ResNetOptions, build
from pipeline.planner.roads import KernelProblem
from pipeline.sketch import make_sketch
from pipeline.solvers.cg import cg
from pipeline.solvers.operator import DenseKernel
from pipeline.solvers.ridge_path import fit_path
from pipeline.solvers.select import accuracy
from pipeline.solvers.solve import default_deflation
from pipeline.solvers.targets import class_targets
from pipeline.store import FeatureStore, power_of_two_scale

FLOAT32 = 4


@dataclass(frozen=True)
class Sizes:
    depth: int = 50
    side: int = 224
    train: int = 44_200
    evaluated: int = 3_400
    p: int = 500_000
    classes: int = 17
    batch: int = 256


QUICK = Sizes(depth=18, side=32, train=600, evaluated=85, p=3_000, batch=64)


def rows(device: str, quick: bool) -> list[dict[str, Any]]:
    """Seconds and peak memory of every stage, and the accuracy at the end."""
    sizes = QUICK if quick else Sizes()
    found: list[dict[str, Any]] = []
    with stage(found, "images", device, n=sizes.train + sizes.evaluated):
        labels, images = synthetic(sizes, device)
    n = sizes.train
    of = Extraction(images, sizes, device)
    one = best_seconds(lambda: of(slice(0, sizes.batch)), device)
    with stage(found, "features", device, p=sizes.p):
        phi, scale = features(of, len(images), sizes, device)
    found[-1]["samples_per_second"] = len(images) / found[-1]["seconds"]
    plan = planned(problem_of(sizes), phi.nbytes, device)
    plan["features"] = {
        "planned_seconds": one * len(images) / sizes.batch,
        "planned_GiB": (images.nbytes + phi.nbytes + of.batch_bytes) / 2**30,
    }
    with stage(found, "kernel", device, n=n):
        blocks = gram_blocks(phi[:n], {"test": phi[n:]}, weights=of.weights / scale, device=device)
    del phi
    K, K_test = (torch.as_tensor(blocks[name]) for name in ("train", "test"))
    with stage(found, "path and refit", device):
        alpha, mean = fitted(K, labels[:n], sizes.classes)
    with stage(found, "predictions", device):
        scores = (K_test.double() @ alpha).cpu() + mean
    share = float((scores.argmax(1).numpy() == labels[n:]).mean())
    compared(found, plan)
    total = sum(row["seconds"] for row in found)
    found.append({"what": "whole job", "seconds": total, "accuracy": share})
    found[-1]["ok"] = bool(torch.isfinite(scores).all()) and share > 2 / sizes.classes
    return found


def synthetic(sizes: Sizes, device: str) -> tuple[np.ndarray, Tensor]:
    """Labels, and uint8 images of one coarse pattern a class under noise."""
    generator = torch.Generator(device=device).manual_seed(0)
    n, side = sizes.train + sizes.evaluated, sizes.side
    labels = torch.arange(n) % sizes.classes
    coarse = torch.rand((sizes.classes, 3, 4, 4), generator=generator, device=device) * 120 + 60
    patterns = torch.nn.functional.interpolate(coarse, size=side, mode="bilinear")
    images = torch.empty((n, 3, side, side), dtype=torch.uint8, device=device)
    for start in range(0, n, 512):
        part = patterns[labels[start : start + 512].to(device)]
        noise = torch.randn(part.shape, generator=generator, device=device)
        images[start : start + 512] = (part + 40 * noise).clamp(0, 255).byte()
    return labels.numpy(), images


class Extraction:
    """float32 features of rows of the images, in bfloat16 arithmetic on the device."""

    def __init__(self, images: Tensor, sizes: Sizes, device: str) -> None:
        network = with_head(build(ResNetOptions(depth=sizes.depth)), "random", 1, 0).module
        network = network.to(device).to(memory_format=torch.channels_last)
        sketch = make_sketch("uniform", network, size=sizes.p)
        self._images = images
        self._extract = FeatureExtractor(network, sketch, compute_dtype="bfloat16")
        self.weights: np.ndarray = sketch.column_weights.numpy()
        costs = shape_costs(network, self._batch(slice(0, 2)))
        self.batch_bytes = sizes.batch * (costs.bytes + FLOAT32 * sizes.p)

    def __call__(self, rows: slice) -> Tensor:
        return self._extract(self._batch(rows)).phi.float()

    def _batch(self, rows: slice) -> Tensor:
        batch = self._images[rows].float().div_(127.5).sub_(1)
        return batch.contiguous(memory_format=torch.channels_last)


def features(of: Extraction, n: int, sizes: Sizes, device: str) -> tuple[Tensor, float]:
    """float16 features on the device, and their scale."""
    scale = power_of_two_scale(of(slice(0, sizes.batch)))
    phi = torch.empty((n, sizes.p), dtype=torch.float16, device=device)
    with tempfile.TemporaryDirectory() as folder, Behind(Path(folder), phi, scale) as store:
        for start in range(0, n, sizes.batch):
            rows = slice(start, min(start + sizes.batch, n))
            phi[rows] = of(rows) * scale
            store.offer(rows.stop)
    return phi, scale


def problem_of(sizes: Sizes) -> KernelProblem:
    """The job's kernel as the planner sees it; a tenth of the training rows is held out."""
    return KernelProblem(
        n=sizes.train,
        m=sizes.evaluated,
        val=sizes.train // 10,
        largest=sizes.evaluated,
        fitted=sizes.train,
        p=sizes.p,
        k=sizes.classes,
        itemsize=2,
        workers=1,
        process_bytes=2**60,
        disk_bytes=None,
    )


class Behind:
    """Writes finished shards to a store in the background, where Zarr is installed."""

    def __init__(self, folder: Path, phi: Tensor, scale: float) -> None:
        self._phi, self._scale = phi, scale
        self._store = None
        if importlib.util.find_spec("zarr"):
            n, p = phi.shape
            self._store = FeatureStore.create(
                folder / "store", n=n, p=p, dtype="float16", scale=scale, provenance={}
            )
        self._next = 0
        self._pool = ThreadPoolExecutor(2)
        self._writes: list[Future[None]] = []

    def __enter__(self) -> "Behind":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()
        for write in self._writes:
            write.result()

    def offer(self, rows: int) -> None:
        """The first ``rows`` rows are there: begin to write the shards that are whole."""
        while self._store and self._next < self._store.shards:
            samples = self._store.samples(self._next)
            if samples.stop > rows:
                return
            # Only a few copies wait in main memory, however slow the disk is.
            if len(self._writes) >= 4:
                self._writes[len(self._writes) - 4].result()
            values = self._phi[samples].cpu().float() / self._scale
            self._writes.append(self._pool.submit(self._write, self._next, samples, values))
            self._next += 1

    def _write(self, shard: int, samples: slice, values: Tensor) -> None:
        assert self._store is not None
        count = len(values)
        ids = [str(row) for row in range(samples.start, samples.stop)]
        self._store.write_rows(
            shard, values, f0=np.zeros((count, 1)), labels=np.zeros(count, int), ids=ids
        )


def fitted(K: Tensor, labels: np.ndarray, classes: int) -> tuple[Tensor, Tensor]:
    """Dual weights of all rows at the ridge that a held-out tenth chose, and the targets' mean."""
    held = np.arange(len(labels)) % 10 == 9
    rows, out = (torch.from_numpy(np.flatnonzero(part)).to(K.device) for part in (~held, held))
    targets = class_targets(labels[~held], classes)
    path = fit_path(
        K[rows][:, rows],
        targets.matrix.to(K.device),
        K[out][:, rows],
        accuracy(labels[held], targets.mean),
        solver="lanczos",
        dynamics="nesterov",
    )
    everything = class_targets(labels, classes)
    operator = DenseKernel(K)
    ridge = path.ridge * float(operator.diagonal().mean())
    root = default_deflation(operator, classes).root(operator, ridge)
    solution = cg(operator, everything.matrix.to(K.device), ridge, root=root)
    if not solution.converged:
        raise RuntimeError(f"the refit did not converge in {solution.iterations} iterations")
    return solution.dual_weights, everything.mean
