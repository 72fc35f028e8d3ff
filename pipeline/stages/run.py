"""The main job: every stage in order, each skipped where its artefact exists already."""

import logging
from typing import Any

from pipeline.artefact import read_json, write_json
from pipeline.distributed.worker import computing_threads
from pipeline.evaluation import evaluate
from pipeline.planner import Plan
from pipeline.planner.machine import usable_cores
from pipeline.registry import RunConfig
from pipeline.report.build import build_report
from pipeline.runs import RunFolder
from pipeline.stages.baselines import run_baselines
from pipeline.stages.columns import draw_columns
from pipeline.stages.comparisons import compare
from pipeline.stages.curves import draw_curves
from pipeline.stages.decomposition import refuse_large_decomposition
from pipeline.stages.features import featurize
from pipeline.stages.fit import CONVERGED, STOPPED, fit_entk
from pipeline.stages.gaussian_process import GAUSSIAN, fit_gp
from pipeline.stages.job import Job, Progress, make_instrument, make_job
from pipeline.stages.kernel import build_kernel
from pipeline.stages.manifests import write_manifests
from pipeline.stages.mistakes import list_mistakes
from pipeline.stages.outside_span import measure_outside_span
from pipeline.stages.plan import make_plan
from pipeline.stages.predict import predict_entk
from pipeline.stages.pretrain import pretrain
from pipeline.stages.road import KernelRoad
from pipeline.stages.spectrum import draw_spectrum
from pipeline.stages.variants import refuse_impossible_variants, run_variants

logger = logging.getLogger(__name__)


SMALL_KERNEL = 1000
"""Training rows up to which the driver's algebra runs on one thread: more only get in the way."""


def run_job(config: RunConfig, folder: RunFolder, progress: Progress) -> dict[str, Any]:
    """Do what is missing of a run, from the config to the report; the content of metrics.json.

    Safe to repeat and to kill: finished shards and stages are reused, and the result is the same.
    """
    with folder.locked():
        job = make_job(config, folder, progress)
        # Everything that can be refused is refused here, before any work: a refused config leaves
        # the folder as it was.
        plan = make_plan(job, make_instrument(config))
        refuse_impossible_variants(job, plan)
        refuse_large_decomposition(job, plan)
        folder.write_config(config.model_dump(mode="json"))
        folder.record_event("run_started", name=config.name)
        with folder.failure_recorded():
            metrics = do_stages(job, plan)
        folder.record_event("run_done")
        return metrics


def do_stages(job: Job, plan: Plan) -> dict[str, Any]:
    """Every stage in turn, from the manifests to the report; the content of metrics.json."""
    folder, config = job.folder, job.config
    write_json(folder.plan, plan.to_json())
    write_manifests(job)
    instrument = make_instrument(config, pretrain(job))
    notes = {"network": instrument.network.notes, "benchmark": job.benchmark.notes}
    write_json(folder.notes, notes)
    stores = featurize(job, instrument, plan)
    with computing_threads(driver_threads(job)):
        with KernelRoad(job, stores, plan) as road:
            build_kernel(job, road)
            fit_entk(job, road)
            predict_entk(job, road)
            fit_gp(job)
            measure_outside_span(job)
            draw_curves(job, road)
            draw_columns(job, road)
            draw_spectrum(job, road)
        run_baselines(job, instrument, plan, stores)
        run_variants(job, instrument, plan, stores)
    metrics = evaluate_methods(job)
    compare(job, metrics)
    list_mistakes(job, metrics)
    page = build_report(folder.path)
    logger.info("report: %s", page)
    return metrics


def driver_threads(job: Job) -> int:
    """Threads of the stages that run in the driver."""
    small = len(job.split("train")) <= SMALL_KERNEL
    return 1 if small else usable_cores()


def evaluate_methods(job: Job) -> dict[str, Any]:
    """Score this run's methods and write ``metrics.json``, if it is not there already."""
    kernel_machines = [CONVERGED, STOPPED] + ([GAUSSIAN] if job.config.gp is not None else [])
    metrics = evaluate(
        job.folder.path / "predictions",
        job.folder.path / "fit",
        benchmark=job.benchmark.name,
        selection=job.config.selection,
        methods=[
            *(*kernel_machines, *job.config.variants),
            *(options.kind for options in job.config.baselines),
        ],
    )
    if not (job.folder.metrics.is_file() and read_json(job.folder.metrics) == metrics):
        write_json(job.folder.metrics, metrics)
    return metrics
