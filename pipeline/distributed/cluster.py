"""Joining a Ray cluster, or starting one on this machine, quietly; and what it has to offer."""

import importlib.util
import logging
import os
import signal
import socket
import threading
from dataclasses import dataclass
from typing import Any

from pipeline.types import InputError, MissingExtraError

logger = logging.getLogger(__name__)

OBJECT_STORE_BYTES = 128 * 2**20
"""Blocks carry numbers and results are small: Ray's default would take 30 % of the memory."""

PROBE_SECONDS = 10.0
"""How long a cluster may take to accept a connection."""


@dataclass(frozen=True)
class ClusterResources:
    """What a Ray cluster has, over all its nodes."""

    nodes: int
    cores: int
    gpus: int
    memory_bytes: int
    """Memory that Ray gives to workers, in bytes."""
    gpu_memory_bytes: int
    """Memory of one GPU, in bytes."""


def ray_installed() -> bool:
    """Whether Ray can be imported; does not import it."""
    return importlib.util.find_spec("ray") is not None


def cluster_address(address: str | None) -> str | None:
    """The cluster to join: the address given, or the environment's ``RAY_ADDRESS``."""
    return address or os.environ.get("RAY_ADDRESS") or None


def connect(address: str | None, *, cores: int | None = None, results_bytes: int = 0) -> bool:
    """Make Ray ready in this process; says whether this call did it.

    Joins the cluster at ``address`` or in ``RAY_ADDRESS``, otherwise starts one on this machine
    that has ``cores`` CPUs and room for ``results_bytes`` of results
    at a time. Authentication is left as ``RAY_AUTH_MODE`` and Ray have it.
    """
    if not ray_installed():
        raise MissingExtraError("ray", "cluster", "the Ray executor")
    # Before the import, which reads them. The second: workers that ask for no GPU see the
    # variables as they are, instead of a warning about a future change.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    if ray.is_initialized():
        _warn_of_small_store(results_bytes)
        return False
    on_sigterm = signal.getsignal(signal.SIGTERM)
    _start_or_join(cluster_address(address), cores, results_bytes)
    _warn_of_small_store(results_bytes)
    if threading.current_thread() is threading.main_thread() and callable(on_sigterm):
        signal.signal(signal.SIGTERM, on_sigterm)  # Ray replaces the program's own handler
    return True


def _start_or_join(address: str | None, cores: int | None, results_bytes: int) -> None:
    import ray

    quiet: dict[str, Any] = {
        "log_to_driver": False,
        "logging_level": logging.WARNING,
        "configure_logging": False,
    }
    if address is None:
        ray.init(
            address="local",  # never the cluster that somebody else runs on this machine
            num_cpus=cores,
            object_store_memory=OBJECT_STORE_BYTES + results_bytes,
            include_dashboard=False,
            **quiet,
        )
        return
    try:
        _probe(address)
        ray.init(address=address, **quiet)
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(
            f"no Ray cluster answers at {address!r} ({error}). Start one with `ray start --head`, "
            "or leave the address out to use this machine alone.",
            "executor.address",
        ) from None


def _warn_of_small_store(results_bytes: int) -> None:
    import ray

    room = int(ray.cluster_resources().get("object_store_memory", 0)) if results_bytes else 0
    if room < results_bytes:
        logger.warning(
            "the workers' batches may take %d MiB of Ray's object store, which has %d MiB: what "
            "does not fit goes over the disk. Lower executor.ahead or features.batch_size.",
            results_bytes >> 20,
            room >> 20,
        )


def _probe(address: str) -> None:
    """Raise OSError when nothing listens at ``host:port``; Ray itself would wait for minutes."""
    host, separator, port = address.removeprefix("ray://").rpartition(":")
    if separator and port.isdigit():
        with socket.create_connection((host.strip("[]"), int(port)), timeout=PROBE_SECONDS):
            pass


def cluster_resources(address: str | None, *, cores: int | None = None) -> ClusterResources:
    """What the cluster's computing nodes have; connects when that has not been done."""
    connect(address, cores=cores)
    import ray

    total = ray.cluster_resources()
    gpus = int(total.get("GPU", 0))
    computing = [n for n in ray.nodes() if n["Alive"] and n["Resources"].get("CPU", 0) > 0]
    probe = ray.remote(_gpu_memory).options(num_cpus=0, num_gpus=0.01)
    return ClusterResources(
        nodes=len(computing),
        cores=int(total.get("CPU", 0)),
        gpus=gpus,
        memory_bytes=int(total.get("memory", 0)),
        gpu_memory_bytes=ray.get(probe.remote()) if gpus else 0,
    )


def free_resources() -> dict[str, float]:
    """CPUs and GPUs of the cluster that nobody holds now; Ray must be ready."""
    import ray

    free = ray.available_resources()
    return {name: free.get(name, 0.0) for name in ("CPU", "GPU")}


def _gpu_memory() -> int:
    """Bytes of the GPU that this task was given."""
    import torch

    return int(torch.cuda.get_device_properties(0).total_memory)
