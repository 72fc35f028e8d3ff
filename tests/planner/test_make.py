import json
from dataclasses import replace

import pytest

from pipeline.distributed.options import ExecutorOptions
from pipeline.planner import LimitsOptions, Plan, make_plan
from pipeline.planner.describe import ROAD_COLUMNS, plan_rows, road_rows
from pipeline.types import InputError

LOCAL = ExecutorOptions(kind="local")
TWO = ExecutorOptions(kind="ray", workers=2)


def test_an_ordinary_job_keeps_its_kernel_in_memory(facts, laptop):
    plan = make_plan(facts, laptop, executor=LOCAL)
    assert plan.strategy == "memory"
    assert plan.store_bytes == pytest.approx(13_000 * 100_000 * 2, rel=0.1)
    assert plan.kernel_bytes == 4 * 5000 * 13_000
    assert plan.feature_flops == 13_000 * 2.5e8
    assert plan.driver_bytes < plan.driver_limit


def test_limits_lead_to_every_road(facts, laptop):
    def strategy(memory, executor):
        limits = LimitsOptions(memory=memory)
        return make_plan(facts, laptop, executor=executor, limits=limits).strategy

    assert strategy("2GiB", LOCAL) == "memory"
    assert strategy("1GiB", LOCAL) == "disk"
    assert strategy("1500MiB", TWO) == "matrix_free"
    assert strategy("900MiB", TWO) == "sharded"


def test_a_road_that_cannot_be_taken_is_not_chosen(facts, laptop):
    limits = LimitsOptions(memory="1300MiB")
    plan = make_plan(facts, laptop, executor=TWO, limits=limits, strategies=("memory", "disk"))
    assert plan.strategy == "disk"
    assert {road.strategy for road in plan.roads} == {"memory", "disk"}


def test_a_full_disk_leaves_the_road_without_a_kernel(facts, laptop):
    limits = LimitsOptions(memory="1150MiB", disk=facts.store_bytes + 10**6)
    assert make_plan(facts, laptop, executor=LOCAL, limits=limits).strategy == "matrix_free"


def test_the_choice_of_a_road_says_why(facts, laptop):
    plan = make_plan(facts, laptop, executor=TWO, limits=LimitsOptions(memory="1100MiB"))
    assert "K does not fit into one process; at ordinary rates: sharded" in plan.reasons[-1]


def test_workers_that_share_a_machine_share_its_memory(facts, laptop):
    large = replace(facts, splits={"train": 60_000})
    alone = make_plan(large, replace(laptop, disk_bytes=None), executor=TWO)
    apart = make_plan(large, replace(laptop, disk_bytes=None, nodes=2), executor=TWO)
    sharded = [{r.strategy: r for r in plan.roads}["sharded"].fits for plan in (alone, apart)]
    assert sharded == [False, True]


def test_too_little_disk_is_refused_with_a_size_that_would_fit(facts, laptop):
    with pytest.raises(InputError, match=r"limits\.disk: the features of 13,000 samples") as caught:
        make_plan(facts, replace(laptop, disk_bytes=10**9))
    fitting = int(str(caught.value).split("at most ")[1].split()[0].replace(",", "").rstrip(","))
    assert make_plan(replace(facts, p=fitting // 2), replace(laptop, disk_bytes=10**9))


def test_what_is_on_disk_already_needs_no_more_space(facts, laptop):
    nearly_full = replace(laptop, disk_bytes=10**9)
    assert make_plan(replace(facts, stored_bytes=facts.store_bytes), nearly_full)


def test_no_road_at_all_is_refused_with_what_each_lacks(facts, laptop):
    limits = LimitsOptions(memory="1GiB")
    with pytest.raises(InputError, match=r"limits\.memory: no way to solve") as caught:
        make_plan(
            replace(facts, splits={"train": 3_000_000}, p=1000),
            laptop,
            executor=LOCAL,
            limits=limits,
        )
    for strategy in ("memory", "disk", "matrix_free"):
        assert f"  {strategy}: needs " in str(caught.value)


def test_a_plan_survives_json(facts, gpu_node):
    plan = make_plan(facts, gpu_node)
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan


def test_seconds_appear_only_where_rates_are_known(facts, laptop, gpu_node):
    assert make_plan(facts, laptop).seconds == {}
    assert set(make_plan(facts, gpu_node).seconds) == {"features", "kernel", "fit"}


def test_twice_the_gpus_take_half_the_time(facts, gpu_node):
    long = replace(facts, flops_per_sample=1e13)
    one, two = (
        make_plan(long, replace(gpu_node, nodes=nodes)).seconds["features"] for nodes in (1, 2)
    )
    assert one == pytest.approx(2 * two)


def test_descriptions_hold_the_figures(facts, gpu_node):
    plan = make_plan(facts, gpu_node)
    rows = dict(plan_rows(plan))
    assert rows["strategy"] == plan.strategy
    assert rows["workers"].startswith("8 × 8 threads")
    assert rows["feature arithmetic"] == "3.25 TFLOP"
    table = road_rows(plan, gpu_node.rates)
    assert {len(row) for row in table} == {len(ROAD_COLUMNS)}
    assert [row[0] for row in table if row[0].endswith("*")] == [f"{plan.strategy} *"]
