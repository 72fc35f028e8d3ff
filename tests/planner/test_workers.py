from dataclasses import replace

import pytest

from pipeline.distributed import choose
from pipeline.distributed.options import ExecutorOptions
from pipeline.planner import LimitsOptions
from pipeline.planner.workers import plan_workers, worker_bytes
from pipeline.types import InputError


@pytest.fixture(autouse=True)
def _ray_is_there(monkeypatch):
    monkeypatch.setattr(choose, "ray_installed", lambda: True)


def planned(facts, machine, limits=None, batch_size=None, device="auto", **executor):
    return plan_workers(
        facts,
        machine,
        executor=ExecutorOptions(**executor),
        limits=limits or LimitsOptions(),
        batch_size=batch_size,
        device=device,
    )


def test_one_machine_without_gpus_runs_in_one_process_on_all_cores(facts, laptop):
    plan = planned(facts, laptop)
    assert (plan.executor, plan.workers, plan.threads) == ("local", 1, 2)


def test_ray_asked_for_gets_a_worker_for_each_core(facts, laptop):
    plan = planned(facts, laptop, kind="ray")
    assert (plan.executor, plan.workers, plan.threads) == ("ray", 2, 1)


def test_cores_are_divided_among_the_workers_of_a_node(facts, laptop):
    machine = replace(laptop, cores=64, memory_bytes=2**40, nodes=2)
    plan = planned(facts, machine, kind="ray")
    assert (plan.workers, plan.threads) == (32, 4)


def test_decoders_leave_fewer_cores_to_the_workers(facts, laptop, gpu_node):
    machine = replace(laptop, cores=64, memory_bytes=2**40, nodes=2)
    plan = planned(facts, machine, kind="ray", decoders=32)
    assert (plan.workers, plan.threads) == (32, 3)
    assert planned(facts, gpu_node, decoders=16).threads == 6


def test_every_gpu_gets_a_worker(facts, gpu_node):
    plan = planned(facts, gpu_node)
    assert (plan.executor, plan.device, plan.workers) == ("ray", "cuda", 8)
    assert (plan.gpus_per_worker, plan.threads) == (1.0, 8)


def test_workers_may_share_a_gpu(facts, gpu_node):
    assert planned(facts, gpu_node, gpus_per_worker=0.5).workers == 16


def test_no_more_workers_than_shards(facts, gpu_node):
    few = replace(facts, splits={"train": 400, "val": 100})
    assert planned(few, gpu_node).workers == few.shards == 3


def test_workers_and_threads_asked_for_are_taken(facts, laptop):
    plan = planned(facts, laptop, workers=3, threads=1)
    assert (plan.executor, plan.workers, plan.threads) == ("ray", 3, 1)
    assert "workers 3: asked for" in plan.reasons


def test_the_batch_size_does_not_depend_on_the_number_of_workers(facts, laptop):
    sizes = {planned(facts, laptop, kind="ray", workers=w).batch_size for w in (1, 2, 4)}
    assert len(sizes) == 1


def test_large_samples_make_small_batches(facts, laptop):
    large = replace(facts, bytes_per_sample=180_000_000)
    assert planned(large, laptop).batch_size == 8


def test_batches_divide_shards(facts, laptop, gpu_node):
    for machine in (laptop, gpu_node):
        plan = planned(facts, machine)
        assert facts.rows_per_shard % plan.batch_size == 0


def test_a_lower_limit_makes_smaller_batches(facts, laptop):
    plan = planned(facts, laptop, LimitsOptions(memory="800MiB"))
    assert plan.batch_size < planned(facts, laptop).batch_size
    assert plan.worker_bytes <= 800 * 2**20


def test_little_memory_makes_fewer_workers(facts, laptop):
    machine = replace(laptop, cores=16, memory_bytes=6 * 2**30)
    plan = planned(facts, machine, kind="ray")
    assert 1 <= plan.workers < 16
    assert plan.workers * plan.worker_bytes <= 6 * 2**30
    assert plan.threads == 16 // plan.workers


def test_too_little_memory_for_one_worker_is_said_with_figures(facts, laptop):
    with pytest.raises(InputError, match=r"limits\.memory: one worker needs .* MiB .* 400\.0 MiB"):
        planned(facts, laptop, LimitsOptions(memory="400MiB"))


def test_a_batch_asked_for_is_not_changed_but_refused(facts, laptop):
    assert planned(facts, laptop, batch_size=96).batch_size == 96
    with pytest.raises(InputError, match=r"at batch size 4096.*lower features\.batch_size"):
        planned(facts, laptop, batch_size=4096)


def test_more_workers_than_memory_has_room_for_are_refused(facts, laptop):
    with pytest.raises(InputError, match=r"executor\.workers: 64 workers need"):
        planned(facts, laptop, kind="ray", workers=64)


def test_cuda_without_a_gpu_is_refused(facts, laptop):
    with pytest.raises(InputError, match=r"features\.device: cuda is asked for"):
        planned(facts, laptop, device="cuda")


def test_a_cpu_asked_for_on_a_gpu_machine_leaves_the_gpus_alone(facts, gpu_node):
    plan = planned(facts, gpu_node, device="cpu", kind="ray")
    assert (plan.device, plan.gpus_per_worker) == ("cpu", 0.0)


def test_memory_of_a_worker_grows_with_batch_and_columns(facts):
    assert worker_bytes(facts, 64, "cpu") < worker_bytes(facts, 128, "cpu")
    assert worker_bytes(facts, 64, "cpu") < worker_bytes(replace(facts, p=200_000), 64, "cpu")


def test_a_library_that_only_the_backbone_needs_is_counted_once_a_worker(facts):
    library = replace(facts, library_bytes=10**8)
    for device in ("cpu", "cuda"):
        assert worker_bytes(library, 8, device) == worker_bytes(facts, 8, device) + 10**8
