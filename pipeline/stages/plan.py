"""The job's sizes for the planner, and the plan as a table."""

from dataclasses import replace

from rich.table import Table

from pipeline.data.preprocess import Preprocess, load_batch
from pipeline.jacobian.costs import sample_costs
from pipeline.planner import JobFacts, Machine, Plan, read_machine
from pipeline.planner import make_plan as planned
from pipeline.planner.describe import ROAD_COLUMNS, plan_rows, road_rows
from pipeline.stages.job import Instrument, Job
from pipeline.types import InputError

BUILT = ("memory", "disk")
"""Strategies that this version runs; the planner states the costs of the others."""


def make_plan(job: Job, instrument: Instrument, machine: Machine | None = None) -> Plan:
    """Batch size, workers, memory and strategy of a job; refused where they do not suffice."""
    config = job.config
    features = config.features
    plan = planned(
        job_facts(job, instrument),
        machine or read_machine(config.store.root),
        executor=config.executor,
        limits=config.limits,
        batch_size=None if features.batch_size == "auto" else features.batch_size,
        device=features.device,
    )
    return plan if plan.strategy in BUILT else _on_disk(plan)


def _on_disk(plan: Plan) -> Plan:
    """The plan with K on disk, where the fastest road is not built yet."""
    [disk] = [road for road in plan.roads if road.strategy == "disk"]
    if not disk.fits:
        raise InputError(
            f"K fits neither into memory nor on disk ({disk.reason}), and solving it "
            f"{plan.strategy} is not built yet. Raise limits.memory or limits.disk.",
            "limits",
        )
    reason = f"kernel disk: {plan.strategy} would be faster and is not built yet"
    return replace(
        plan, strategy="disk", kernel_bytes=disk.disk_bytes, reasons=(*plan.reasons, reason)
    )


def job_facts(job: Job, instrument: Instrument) -> JobFacts:
    """The counts that bytes and FLOPs follow from; one image is decoded and run forward."""
    config, network = job.config, instrument.network
    sample = load_batch(job.split("train"), slice(0, 1), Preprocess(config.benchmark.preprocess))
    costs = sample_costs(network.module, sample)
    labels = job.split("train").labels
    return JobFacts(
        splits={name: len(job.split(name)) for name in job.featurized},
        p=instrument.sketch.size,
        P=sum(parameter.numel() for parameter in network.module.parameters()),
        targets=len(job.benchmark.classes) or (labels.shape[1] if labels.ndim == 2 else 1),
        k=network.outputs,
        h=network.width,
        dtype=config.features.dtype,
        flops_per_sample=costs.flops,
        bytes_per_sample=costs.bytes,
        input_bytes=sample.numel() * sample.element_size(),
        refit=config.selection if config.refit else None,
        prefixes=len(config.kernel.sizes),
    )


def plan_tables(plan: Plan, machine: Machine) -> list[Table]:
    """The plan, and the roads it was chosen from."""
    table = Table(title="plan", title_justify="left", show_header=False)
    for what, amount in plan_rows(plan):
        table.add_row(what, amount)
    roads = Table(*ROAD_COLUMNS, title="ways to solve (* chosen)", title_justify="left")
    for row in road_rows(plan, machine.rates):
        roads.add_row(*row)
    return [table, roads]
