"""The job's sizes for the planner, and the plan as a table."""

from rich.table import Table

from pipeline.data.batches import input_bytes, largest_batch
from pipeline.distributed.cluster import cluster_address, cluster_resources
from pipeline.models.transformers import LIBRARY_BYTES
from pipeline.planner import JobFacts, Machine, Plan, read_machine
from pipeline.planner import make_plan as planned
from pipeline.planner.describe import ROAD_COLUMNS, plan_rows, road_rows
from pipeline.planner.machine import cluster_machine
from pipeline.planner.roads import STRATEGIES, Strategy
from pipeline.planner.scale import SCALE_COLUMNS, scale_points, scale_rows
from pipeline.registry import DECOMPOSING, RunConfig
from pipeline.stages.features import provenance, store_path
from pipeline.stages.job import Instrument, Job
from pipeline.stages.preflight import checked_costs
from pipeline.store.place import place_at


def make_plan(job: Job, instrument: Instrument, machine: Machine | None = None) -> Plan:
    """Batch size, workers, memory and strategy of a job; refused where they do not suffice."""
    config = job.config
    features = config.features
    return planned(
        job_facts(job, instrument),
        machine or machine_of(config),
        executor=config.executor,
        limits=config.limits,
        batch_size=None if features.batch_size == "auto" else features.batch_size,
        device=features.device,
        strategies=open_roads(config),
    )


def open_roads(config: RunConfig) -> tuple[Strategy, ...]:
    """The roads on which a config's kernel can be made and its solver can run."""
    decomposed = any(getattr(config, key) is not None for key in DECOMPOSING)
    if config.solver.kind in ("eigh", "cholesky") or decomposed:
        return ("memory",)
    changed = config.kernel.center or config.kernel.normalize
    if changed or config.kernel.sizes:
        return ("memory", "disk")
    return STRATEGIES


def machine_of(config: RunConfig) -> Machine:
    """The machine or cluster that a config's executor runs on."""
    here = read_machine(config.store.root)
    address = cluster_address(config.executor.address)
    if address is None or config.executor.kind == "local":
        return here
    return cluster_machine(cluster_resources(address), here)


def job_facts(job: Job, instrument: Instrument) -> JobFacts:
    """The counts that bytes and FLOPs follow from; two samples are run forward."""
    config, network = job.config, instrument.network
    samples = largest_batch(job.split("train"), config.benchmark.preprocess, 2)
    costs = checked_costs(job, instrument, samples)
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
        input_bytes=input_bytes(samples),
        library_bytes=LIBRARY_BYTES if config.model.kind == "transformers" else 0,
        selection=config.selection,
        refit=config.selection if config.refit else None,
        prefixes=len(config.kernel.sizes),
        stored_bytes=_stored(job, instrument),
    )


def _stored(job: Job, instrument: Instrument) -> int:
    """Bytes of this job's features and kernels that lie on disk already."""
    keys = [provenance(job, instrument, job.split(name)) for name in job.featurized]
    folders = [store_path(job, key) for key in keys] + [job.folder.kernel]
    return sum(sum(place_at(folder).sizes().values()) for folder in folders)


def plan_tables(plan: Plan, machine: Machine) -> list[Table]:
    """The plan, and the roads it was chosen from."""
    table = Table(title="plan", title_justify="left", show_header=False)
    for what, amount in plan_rows(plan):
        table.add_row(what, amount)
    # One column a road: ten columns of figures do not fit a terminal.
    names, *rows = zip(ROAD_COLUMNS, *road_rows(plan, machine.rates), strict=True)
    title = "ways to solve (* chosen, ~ at ordinary rates: none were given)"
    roads = Table(*names, title=title, title_justify="left")
    for row in rows:
        roads.add_row(*row)
    return [table, roads]


def scale_table(job: Job, instrument: Instrument, machine: Machine) -> Table:
    """The same features for other numbers of rows and targets, on 1, 8 and 64 devices."""
    facts = job_facts(job, instrument)
    title = f"other sizes, {facts.p:,} columns of {facts.itemsize} bytes"
    table = Table(*SCALE_COLUMNS, title=title, title_justify="left")
    points = scale_points(machine, p=facts.p, itemsize=facts.itemsize)
    for row in scale_rows(points, machine):
        table.add_row(*row)
    return table
