import pytest

from pipeline.planner import JobFacts, Machine
from pipeline.planner.machine import Rates

GIB = 2**30


@pytest.fixture(autouse=True)
def _no_cluster(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.fixture
def facts() -> JobFacts:
    """CIFAR-100 superclasses with a ResNet-20."""
    return JobFacts(
        splits={"train": 5000, "val": 2000, "id_test": 3000, "ood_test": 3000},
        p=100_000,
        P=270_000,
        targets=20,
        h=64,
        flops_per_sample=2.5e8,
        bytes_per_sample=3_000_000,
        input_bytes=12_288,
    )


@pytest.fixture
def laptop() -> Machine:
    return Machine(cores=2, memory_bytes=16 * GIB, disk_bytes=100 * GIB)


@pytest.fixture
def gpu_node() -> Machine:
    return Machine(
        cores=64,
        memory_bytes=512 * GIB,
        disk_bytes=None,
        gpus=8,
        gpu_memory_bytes=80 * GIB,
        rates=Rates(
            features_flops=1e13,
            gemm_flops=1e14,
            gemm64_flops=1e13,
            memory_bandwidth=2e12,
            network_bandwidth=5e10,
            disk_bandwidth=5e9,
            disk_write_bandwidth=2e9,
        ),
    )
