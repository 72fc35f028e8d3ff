"""Batch size, workers and threads of the feature stage, and the memory of one worker.

The batch size does not depend on the number of workers: it moves float32 rounding, and the same
job should give the same bytes on one worker and on many.
"""

from dataclasses import dataclass
from typing import Literal

from pipeline.distributed.choose import choose_kind
from pipeline.distributed.cluster import cluster_address
from pipeline.distributed.options import ExecutorOptions
from pipeline.planner.facts import JobFacts
from pipeline.planner.limits import LimitsOptions
from pipeline.planner.machine import Machine
from pipeline.planner.units import bytes_text
from pipeline.types import InputError

MIB = 2**20

BASE_BYTES = {"cpu": 450 * MIB, "cuda": 2500 * MIB}
"""A worker under Ray that has computed a batch of next to nothing (440 MiB measured), and CUDA's
host side."""

DRIVER_BYTES = 560 * MIB
"""The driver before its algebra: package, images, network, Ray (577 MiB measured, CIFAR-100)."""

MEMBER_BYTES = 420 * MIB
"""A worker before it holds its part of the kernel: solvers and store beside the package."""

AVAILABLE_SHARE = 0.8
"""Of the available memory; the rest is for the file cache and for what was not foreseen."""

GPU_SHARE = 0.6
"""Of a GPU's memory; the rest is fragmentation and the libraries' own workspaces."""

BATCH_BYTES = 1536 * MIB
"""Working memory of a batch on CPUs: larger ones are no faster."""

LARGEST_BATCH = {"cpu": 128, "cuda": 512}

MOST_WORKERS_PER_NODE = 16
"""On CPUs; beyond this, one more copy of the network costs more than one more thread loses."""

Device = Literal["cpu", "cuda"]
Executor = Literal["local", "ray"]


@dataclass(frozen=True, kw_only=True)
class FeatureWorkers:
    """How the features are computed."""

    executor: Executor
    device: Device
    workers: int
    threads: int
    gpus_per_worker: float
    batch_size: int
    worker_bytes: int
    """Peak memory of one worker's process, in bytes."""
    worker_limit: int
    """What it may use, in bytes."""
    reasons: tuple[str, ...]


def plan_workers(
    facts: JobFacts,
    machine: Machine,
    *,
    executor: ExecutorOptions,
    limits: LimitsOptions,
    batch_size: int | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
) -> FeatureWorkers:
    """What fits; raises :class:`InputError` with the figures when nothing does."""
    chosen = _device(device, machine)
    share = _gpus_per_worker(executor, chosen)
    batch = batch_size or _fitting_batch(facts, machine, limits, chosen, share)
    needed = worker_bytes(facts, batch, chosen)
    room = _room_on_node(machine, limits, needed)
    if room == 0:
        raise _too_little_memory(facts, machine, limits, batch, chosen)
    wished, why = _wished(facts, machine, executor, chosen, share)
    kind, why_kind = choose_kind(executor, wished)
    workers = wished if kind == "ray" else 1
    if workers > room * machine.nodes:
        if executor.workers != "auto":
            raise _too_many_workers(workers, room * machine.nodes, needed)
        workers, why = room * machine.nodes, f"each needs {bytes_text(needed)} of memory"
    on_node = -(-workers // machine.nodes)
    cores = _cores_of_workers(machine, executor)
    threads = max(1, cores // on_node) if executor.threads == "auto" else executor.threads
    return FeatureWorkers(
        executor=kind,
        device=chosen,
        workers=workers,
        threads=threads,
        gpus_per_worker=share,
        batch_size=batch,
        worker_bytes=needed,
        worker_limit=process_limit(machine, limits, on_node),
        reasons=(
            f"executor {kind}: {why_kind}",
            f"workers {workers}: {why if kind == 'ray' else 'this process'}",
            f"batch size {batch}: {_batch_reason(facts, batch, batch_size, chosen)}",
        ),
    )


def process_limit(machine: Machine, limits: LimitsOptions, processes: int) -> int:
    """Bytes that one of some processes on a node may use."""
    if limits.memory != "auto":
        return limits.memory
    return int(AVAILABLE_SHARE * machine.memory_bytes / processes)


def worker_bytes(facts: JobFacts, batch: int, device: Device) -> int:
    """Peak bytes in main memory of a worker process.

    The network twice (while weights load), one batch at work and, of this shard and of the next,
    one loaded and one being loaded; and the stored numbers of two shards, before and after
    encoding: one shard is written while the next is computed.
    """
    network = 2 * 4 * facts.P
    working = batch * sample_bytes(facts) if device == "cpu" else 0
    decoded = 5 * batch * facts.input_bytes
    entries = facts.rows_per_shard * facts.outputs * facts.p
    shard = 2 * entries * 2 * facts.itemsize
    base = BASE_BYTES[device] + facts.library_bytes
    return base + network + working + decoded + shard


def sample_bytes(facts: JobFacts) -> int:
    """What one more sample in a batch takes on the device: its share of the layers, its row."""
    return facts.bytes_per_sample + 4 * facts.p * facts.outputs


def default_batch(facts: JobFacts, machine: Machine, device: Device, share: float) -> int:
    """The largest power of two within the device's memory, a shard, and what still helps."""
    if device == "cuda":
        target = int(GPU_SHARE * machine.gpu_memory_bytes * min(share, 1.0)) - 2 * 4 * facts.P
    else:
        target = BATCH_BYTES
    most = min(target // sample_bytes(facts), LARGEST_BATCH[device], facts.rows_per_shard)
    return 1 << (max(1, most).bit_length() - 1)


def _fitting_batch(
    facts: JobFacts, machine: Machine, limits: LimitsOptions, device: Device, share: float
) -> int:
    batch = default_batch(facts, machine, device, share)
    while batch > 1 and not _room_on_node(machine, limits, worker_bytes(facts, batch, device)):
        batch //= 2
    return batch


def _room_on_node(machine: Machine, limits: LimitsOptions, needed: int) -> int:
    """Workers of this size that fit on a node."""
    if needed > process_limit(machine, limits, 1):
        return 0
    return int(AVAILABLE_SHARE * machine.memory_bytes) // needed


def _device(wanted: Literal["auto", "cpu", "cuda"], machine: Machine) -> Device:
    if wanted == "cuda" and machine.gpus == 0:
        raise InputError(
            "cuda is asked for and there is no GPU here or in the cluster. Use auto or cpu.",
            "features.device",
        )
    if wanted == "auto":
        return "cuda" if machine.gpus else "cpu"
    return wanted


def _gpus_per_worker(executor: ExecutorOptions, device: Device) -> float:
    if device == "cpu":
        return 0.0
    return 1.0 if executor.gpus_per_worker == "auto" else executor.gpus_per_worker


def _wished(
    facts: JobFacts, machine: Machine, executor: ExecutorOptions, device: Device, share: float
) -> tuple[int, str]:
    """Workers before memory is looked at, and why so many; never more than there are shards."""
    if executor.workers != "auto":
        return executor.workers, "asked for"
    if device == "cuda" and share > 0:
        count, why = machine.nodes * max(1, int(machine.gpus / share)), "one for each GPU's share"
    elif executor.kind == "ray" or machine.nodes > 1 or cluster_address(executor.address):
        count, why = _for_cores(machine, executor)
    else:
        return 1, "one machine without GPUs: its cores serve one process as threads"
    if facts.shards < count:
        return facts.shards, "one for each shard"
    return count, why


def _for_cores(machine: Machine, executor: ExecutorOptions) -> tuple[int, str]:
    threads = 1 if executor.threads == "auto" else executor.threads
    cores = _cores_of_workers(machine, executor)
    on_node = max(1, min(cores // threads, MOST_WORKERS_PER_NODE))
    return machine.nodes * on_node, f"{on_node} for {cores} of the {machine.cores} cores of a node"


def _cores_of_workers(machine: Machine, executor: ExecutorOptions) -> int:
    """Cores of a node that decoders leave."""
    return max(1, machine.cores - -(-executor.decoders // machine.nodes))


def _batch_reason(facts: JobFacts, batch: int, wanted: int | None, device: Device) -> str:
    if wanted is not None:
        return "asked for"
    if batch == facts.rows_per_shard:
        return "one shard"
    if batch == LARGEST_BATCH[device]:
        return "larger ones are no faster"
    return f"{bytes_text(sample_bytes(facts))} of memory a sample"


def _too_little_memory(
    facts: JobFacts, machine: Machine, limits: LimitsOptions, batch: int, device: Device
) -> InputError:
    needed, allowed = worker_bytes(facts, batch, device), process_limit(machine, limits, 1)
    ways = ["lower sketch.size", "raise limits.memory or free memory"]
    if batch > 1:
        ways.insert(0, "lower features.batch_size")
    return InputError(
        f"one worker needs {bytes_text(needed)} of memory at batch size {batch} "
        f"(shard of {facts.rows_per_shard} rows × {facts.p:,} columns, network of "
        f"{facts.P:,} parameters); {bytes_text(allowed)} are allowed. "
        f"What helps: {'; '.join(ways)}.",
        "limits.memory",
    )


def _too_many_workers(workers: int, room: int, needed: int) -> InputError:
    return InputError(
        f"{workers} workers need {bytes_text(needed)} of memory each, and there is room for "
        f"{room}. Ask for fewer, or lower features.batch_size.",
        "executor.workers",
    )
