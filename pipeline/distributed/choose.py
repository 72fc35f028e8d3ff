"""From options to an executor, with the reason for an automatic choice logged."""

import logging
from pathlib import Path
from typing import Literal

from pipeline.distributed.cluster import cluster_address, ray_installed
from pipeline.distributed.executor import Executor
from pipeline.distributed.local import LocalExecutor
from pipeline.distributed.options import ExecutorOptions

logger = logging.getLogger(__name__)

Kind = Literal["local", "ray"]


def choose_kind(options: ExecutorOptions, workers: int) -> tuple[Kind, str]:
    """Where the blocks run, and why; ``workers`` is the number that options or plan ask for."""
    address = cluster_address(options.address)
    if options.kind != "auto":
        return options.kind, "asked for"
    if address is None and workers == 1:
        return "local", "one worker and no cluster address"
    wish = f"the cluster at {address}" if address else f"{workers} workers"
    if not ray_installed():
        return "local", f"{wish} would need Ray, which is not installed"
    return "ray", wish


def make_executor(
    options: ExecutorOptions,
    *,
    workers: int,
    threads: int,
    gpus_per_worker: float = 0.0,
    log_folder: Path | None = None,
) -> Executor:
    """The executor for these options, with every ``auto`` decided by the caller."""
    kind, reason = choose_kind(options, workers)
    logger.info("executor %s: %s", kind, reason)
    if kind == "local":
        return LocalExecutor(
            threads=threads,
            max_retries_per_block=options.max_retries_per_block,
            log_folder=log_folder,
        )
    from pipeline.distributed.ray import RayExecutor

    return RayExecutor(
        workers=workers,
        threads=threads,
        address=options.address,
        gpus_per_worker=gpus_per_worker,
        max_retries_per_block=options.max_retries_per_block,
        block_timeout=options.block_timeout,
        log_folder=log_folder,
    )
