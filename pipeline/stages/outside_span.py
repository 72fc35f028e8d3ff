"""How far every test row lies outside the span of the training features, where a config asks."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.artefact import PROVENANCE, digest, read_arrays, read_json, write_json
from pipeline.evaluation.share_outside import OutsideSpan
from pipeline.solvers.outside_span import TrainingSpan
from pipeline.stages.job import Job, stage_provenance
from pipeline.stages.kernel_files import KernelBlocks, as_tensor
from pipeline.stages.stage import run_stage

FACTS, SHARES = "outside_span.json", "shares.npz"


def measure_outside_span(job: Job) -> None:
    """Write every test row's share, and the rank that K has at the tolerance."""
    options = job.config.outside_span
    if options is None:
        return
    tested = [split for split in job.evaluated if split != "val"]
    provenance = stage_provenance(
        "outside_span",
        kernel=digest(read_json(job.folder.kernel / PROVENANCE)),
        splits=tested,
        tolerance=options.tolerance,
    )

    def make(folder: Path) -> Mapping[str, Any]:
        blocks = KernelBlocks.open(job.folder.kernel)
        K = as_tensor(blocks.train())
        span = TrainingSpan.of(K, options.tolerance)
        shares = {
            split: span.share_outside(
                as_tensor(blocks.cross(split)), as_tensor(blocks.diagonal(split))
            ).numpy()
            for split in tested
        }
        np.savez(folder / SHARES, allow_pickle=False, **shares)
        facts = {"rank": span.rank, "n": len(K), "tolerance": options.tolerance}
        write_json(folder / FACTS, facts)
        return facts

    run_stage(job.folder, "outside_span", job.folder.outside_span, provenance, make)


def outside_span(job: Job) -> OutsideSpan | None:
    """What was measured, in the groups that the config asks for."""
    options, folder = job.config.outside_span, job.folder.outside_span
    if options is None:
        return None
    shares = read_arrays(folder / SHARES)
    return OutsideSpan(shares=shares, groups=options.groups, **read_json(folder / FACTS))


def span_provenance(job: Job) -> dict[str, Any]:
    """What the comparisons depend on besides; nothing where no span was asked for."""
    options = job.config.outside_span
    if options is None:
        return {}
    measured = digest(read_json(job.folder.outside_span / PROVENANCE))
    return {"outside_span": {"measured": measured, "groups": options.groups}}
