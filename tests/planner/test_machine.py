import pytest

from pipeline.distributed.cluster import ClusterResources
from pipeline.planner import read_machine
from pipeline.planner.cgroup import available_memory, cpu_quota
from pipeline.planner.machine import cluster_machine, described_machine, free_disk
from pipeline.types import InputError


def test_this_machine_has_cores_memory_and_disk(tmp_path):
    machine = read_machine(tmp_path / "not" / "yet" / "there")
    assert machine.cores >= 1
    assert machine.memory_bytes > 2**20
    assert machine.disk_bytes > 0
    assert machine.nodes == 1


def test_free_space_of_an_object_store_is_unknown(tmp_path):
    assert free_disk("s3://bucket/features") is None
    assert free_disk(f"file://{tmp_path}") > 0


def test_a_machine_file_replaces_what_it_states(tmp_path, laptop):
    file = tmp_path / "cluster.yaml"
    file.write_text("nodes: 4\ngpus: 8\ngpu_memory: 80GiB\ngemm_flops: 3.0e+14\n")
    machine = described_machine(file, laptop)
    assert (machine.nodes, machine.gpus, machine.devices) == (4, 8, 32)
    assert machine.gpu_memory_bytes == 80 * 2**30
    assert machine.rates.gemm_flops == 3e14
    assert machine.rates.disk_bandwidth is None
    assert machine.cores == laptop.cores


def test_a_wrong_machine_file_names_key_and_file(tmp_path, laptop):
    file = tmp_path / "cluster.yaml"
    file.write_text("gemm_flop: 3.0e+14\n")
    with pytest.raises(InputError, match=r"cluster\.yaml.*\n.*gemm_flop: unknown key.*gemm_flops"):
        described_machine(file, laptop)


def test_a_cluster_is_planned_as_equal_nodes(laptop):
    resources = ClusterResources(
        nodes=4, cores=128, gpus=32, memory_bytes=4 * 2**38, gpu_memory_bytes=80 * 2**30
    )
    machine = cluster_machine(resources, laptop)
    assert (machine.nodes, machine.cores, machine.gpus) == (4, 32, 8)
    assert machine.memory_bytes == 2**38
    assert machine.disk_bytes == laptop.disk_bytes


@pytest.fixture
def cgroups(tmp_path):
    root, membership = tmp_path / "cgroup", tmp_path / "membership"
    root.mkdir()
    return root, membership


def test_the_tightest_limit_of_all_parent_groups_counts(cgroups):
    root, membership = cgroups
    membership.write_text("0::/job/step\n")
    (root / "job" / "step").mkdir(parents=True)
    (root / "job" / "step" / "memory.max").write_text("max\n")
    (root / "job" / "step" / "memory.current").write_text("10\n")
    (root / "job" / "memory.max").write_text("1000\n")
    (root / "job" / "memory.current").write_text("400\n")
    (root / "job" / "memory.stat").write_text("anon 300\ninactive_file 100\n")
    (root / "job" / "cpu.max").write_text("150000 100000\n")
    assert available_memory(root, membership) == 700
    assert cpu_quota(root, membership) == 1.5


def test_version_1_groups_are_read(cgroups):
    root, membership = cgroups
    membership.write_text("4:memory:/job\n3:cpu,cpuacct:/job\n")
    (root / "memory" / "job").mkdir(parents=True)
    (root / "memory" / "job" / "memory.limit_in_bytes").write_text("500\n")
    (root / "memory" / "job" / "memory.usage_in_bytes").write_text("200\n")
    (root / "cpu" / "job").mkdir(parents=True)
    (root / "cpu" / "job" / "cpu.cfs_quota_us").write_text("200000\n")
    (root / "cpu" / "job" / "cpu.cfs_period_us").write_text("100000\n")
    assert available_memory(root, membership) == 300
    assert cpu_quota(root, membership) == 2.0


def test_no_groups_means_no_limit(cgroups):
    root, membership = cgroups
    assert available_memory(root, membership) is None
    membership.write_text("0::/\n")
    assert available_memory(root, membership) is None
    assert cpu_quota(root, membership) is None
