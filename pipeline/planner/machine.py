"""What there is to compute with: read from this machine, or from a file for another one.

A file (``--machine``) states only what differs from this machine, for example::

    nodes: 8
    gpus: 8
    gpu_memory: 80GiB
    gemm_flops: 3.0e14
    network_bandwidth: 2.5e10
"""

import math
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import psutil
from pydantic import Field

from pipeline.config import Options, read_yaml, validated
from pipeline.distributed.cluster import ClusterResources
from pipeline.planner import cgroup
from pipeline.planner.limits import Bytes

Rate = Annotated[float, Field(gt=0)]


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Measured speeds; None where nobody has measured. A device is a GPU, or a node's cores."""

    features_flops: float | None = None
    """Arithmetic of features on one device, FLOP/s."""
    gemm_flops: float | None = None
    """The Gram's products on one device, FLOP/s."""
    gemm64_flops: float | None = None
    """float64 products on one device, FLOP/s."""
    memory_bandwidth: float | None = None
    """Memory of one device, bytes/s."""
    network_bandwidth: float | None = None
    """Between two devices, bytes/s."""
    disk_bandwidth: float | None = None
    """The store, read by all together, bytes/s."""
    disk_write_bandwidth: float | None = None
    """The store, written by all together, bytes/s."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A machine, or a cluster of equal nodes."""

    cores: int
    """Cores of one node that the run may use."""
    memory_bytes: int
    """Memory of one node that is available now, in bytes."""
    disk_bytes: int | None
    """Free where the store lies, in bytes; None where it cannot be known (object stores)."""
    nodes: int = 1
    gpus: int = 0
    """GPUs of one node."""
    gpu_memory_bytes: int = 0
    """Memory of one GPU, in bytes."""
    rates: Rates = Rates()

    @property
    def devices(self) -> int:
        """GPUs of all nodes, or the nodes where there are none."""
        return self.nodes * max(self.gpus, 1)


class MachineOptions(Options):
    """A machine file; what it leaves out is taken from this machine."""

    nodes: int | None = Field(None, ge=1)
    """Equal nodes of the cluster."""
    cores: int | None = Field(None, ge=1)
    """Cores of one node."""
    memory: Bytes | None = None
    """Memory of one node: bytes, or a text such as 64GiB."""
    disk: Bytes | None = None
    """Free space where the store lies: bytes, or a text such as 2TiB."""
    gpus: int | None = Field(None, ge=0)
    """GPUs of one node."""
    gpu_memory: Bytes | None = None
    """Memory of one GPU: bytes, or a text such as 80GiB."""
    features_flops: Rate | None = None
    """Arithmetic of features on one device (a GPU, or a node's cores), FLOP/s."""
    gemm_flops: Rate | None = None
    """Matrix products of the Gram on one device, FLOP/s."""
    gemm64_flops: Rate | None = None
    """float64 matrix products on one device, FLOP/s."""
    memory_bandwidth: Rate | None = None
    """Memory of one device, bytes/s."""
    network_bandwidth: Rate | None = None
    """Between two devices, bytes/s."""
    disk_bandwidth: Rate | None = None
    """Reading the store by all devices together, bytes/s."""
    disk_write_bandwidth: Rate | None = None
    """Writing the store by all devices together, bytes/s."""


def read_machine(store_root: Path | str) -> Machine:
    """This machine as it is now, with the limits of its container."""
    gpus, gpu_memory = _gpus()
    available = psutil.virtual_memory().available
    allowed = cgroup.available_memory()
    return Machine(
        cores=usable_cores(),
        memory_bytes=available if allowed is None else min(available, allowed),
        disk_bytes=free_disk(store_root),
        gpus=gpus,
        gpu_memory_bytes=gpu_memory,
    )


def described_machine(path: Path, here: Machine) -> Machine:
    """The machine that a file describes; ``here`` stands in for what it leaves out."""
    options = validated(MachineOptions, read_yaml(path), str(path))
    rates = {name: getattr(options, name) for name in Rates.__dataclass_fields__}

    def given(value: int | None, otherwise: int) -> int:
        return otherwise if value is None else value

    return Machine(
        nodes=given(options.nodes, here.nodes),
        cores=given(options.cores, here.cores),
        memory_bytes=given(options.memory, here.memory_bytes),
        disk_bytes=here.disk_bytes if options.disk is None else options.disk,
        gpus=given(options.gpus, here.gpus),
        gpu_memory_bytes=given(options.gpu_memory, here.gpu_memory_bytes),
        rates=Rates(**rates),
    )


def cluster_machine(resources: ClusterResources, here: Machine) -> Machine:
    """A Ray cluster as equal nodes, each with its share; disk and rates are those of ``here``."""
    nodes = max(1, resources.nodes)
    return replace(
        here,
        nodes=nodes,
        cores=max(1, resources.cores // nodes),
        memory_bytes=resources.memory_bytes // nodes,
        gpus=resources.gpus // nodes,
        gpu_memory_bytes=resources.gpu_memory_bytes,
    )


def free_disk(root: Path | str) -> int | None:
    """Free bytes where a folder is or would be made; None for an object store's URL."""
    text = str(root)
    if "://" in text and not text.startswith("file://"):
        return None
    folder = Path(text.removeprefix("file://")).absolute()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def usable_cores() -> int:
    """Physical cores, as far as affinity and container let this process use them."""
    counts = [os.cpu_count() or 1]
    if hasattr(os, "sched_getaffinity"):
        counts.append(len(os.sched_getaffinity(0)))
    if physical := psutil.cpu_count(logical=False):
        counts.append(physical)
    if (quota := cgroup.cpu_quota()) is not None:
        counts.append(math.floor(quota))
    return max(1, min(counts))


def _gpus() -> tuple[int, int]:
    """Number of GPUs and the smallest one's memory in bytes."""
    import torch

    if not torch.cuda.is_available():
        return 0, 0
    count = torch.cuda.device_count()
    return count, min(torch.cuda.get_device_properties(i).total_memory for i in range(count))
