"""The kernel stage: one pass over the features for what the run's road needs of K on disk."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.artefact import digest, read_json
from pipeline.gram import gram_to_disk, save_by_rows, shard_to_disk
from pipeline.gram.disk import link_or_copy
from pipeline.planner import Plan
from pipeline.stages.job import Job, stage_provenance
from pipeline.stages.kernel_files import BLOCKS, NOTHING, REFIT, SHARDS, shard_folder
from pipeline.stages.road import KernelRoad
from pipeline.stages.stage import run_stage
from pipeline.stages.views import KernelView
from pipeline.store import FeatureStore

STAGE = "kernel"

LAYOUTS = {"memory": BLOCKS, "disk": BLOCKS, "sharded": SHARDS, "matrix_free": NOTHING}


def build_kernel(job: Job, road: KernelRoad) -> Path:
    """Make what the road needs of K unless it is there; its folder.

    What is accumulated is kept in ``kernel.work`` from time to time: a killed pass goes on there.
    """
    provenance, work = kernel_provenance(job, road.plan), job.folder.path / "kernel.work"

    def make(folder: Path) -> Mapping[str, Any]:
        if road.plan.strategy == "sharded":
            return _make_shards(job, road, provenance, work, folder)
        if road.plan.strategy == "matrix_free":
            return {"bytes_read": 0}
        return _make_blocks(job, road, provenance, work, folder)

    run_stage(job.folder, STAGE, job.folder.kernel, provenance, make)
    shutil.rmtree(work, ignore_errors=True)
    return job.folder.kernel


def kernel_provenance(job: Job, plan: Plan) -> Mapping[str, Any]:
    """What K depends on: the features of every split, the kernel's options, how it is laid out."""
    features = read_json(job.folder.features)
    layout = LAYOUTS[plan.strategy]
    return stage_provenance(
        STAGE,
        features={name: digest(entry["provenance"]) for name, entry in features.items()},
        options=job.config.kernel.model_dump(mode="json"),
        selection=job.config.selection,
        refit=job.config.refit,
        layout=layout,
        # Rows of the whole K that are multiplied from a file lie together there.
        whole=job.config.refit and plan.strategy == "disk",
        workers=plan.road.workers if layout == SHARDS else 1,
    )


def _make_blocks(
    job: Job, road: KernelRoad, provenance: Mapping[str, Any], work: Path, folder: Path
) -> Mapping[str, Any]:
    opened = {name: FeatureStore.open(path) for name, path in road.stores.items()}
    options = job.config.kernel
    form: dict[str, Any] = {
        "memory": road.plan.algebra_bytes,
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
        if road.plan.strategy == "disk":
            join_refit(folder, job.config.selection)
    n, p = opened["train"].shape
    rows = sum(store.shape[0] for store in opened.values())
    return {"n": n, "p": p, "bytes_read": rows * p * opened["train"].dtype.itemsize}


def join_refit(folder: Path, selection: str) -> None:
    """K among training and selection rows in one file, a tile of rows in memory."""
    blocks = [folder / "train.npy", folder / f"{selection}.npy", folder / REFIT / "train.npy"]
    K, cross, own = (np.load(file, mmap_mode="r") for file in blocks)

    def rows(tile: slice) -> np.ndarray:
        above = np.hstack([K[tile], cross.T[tile]])
        below = slice(max(tile.start - len(K), 0), max(tile.stop - len(K), 0))
        return np.vstack([above, np.hstack([cross[below], own[below]])])

    n = len(K) + len(own)
    save_by_rows(folder / REFIT / "whole.npy", (n, n), rows)


def _make_shards(
    job: Job, road: KernelRoad, provenance: Mapping[str, Any], work: Path, folder: Path
) -> Mapping[str, Any]:
    road.run(make_shard, work.absolute(), digest(provenance))
    for rank in range(road.workers):
        target = shard_folder(folder, rank)
        target.mkdir()
        for file in shard_folder(work, rank).iterdir():
            # Links: the work stays until the artefact is safe.
            link_or_copy(file, target / file.name, copy=False)
    sizes, p = road.spec.sizes, FeatureStore.open(road.stores["train"]).shape[1]
    itemsize = FeatureStore.open(road.stores["train"]).dtype.itemsize
    rows = road.workers * sum(sizes.values()) + sum(sizes[name] for name in road.spec.fitted)
    return {"n": sizes["train"], "p": p, "bytes_read": rows * p * itemsize}


def make_shard(view: KernelView, work: Path, key: str) -> None:
    """This worker's rows of K and of the cross-kernels, into the work folder."""
    spec, rank = view.spec, view.group.rank
    rows = view.rows(refit=True)
    shard_to_disk(
        [FeatureStore.open(spec.stores[name]) for name in (*spec.fitted, *spec.others)],
        spec.parts(view.group.size),
        rank,
        shard_folder(work, rank),
        provenance={"kernel": key, "rows": [rows.start, rows.stop]},
    )
