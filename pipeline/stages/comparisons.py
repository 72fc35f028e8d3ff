"""The comparisons stage: what the table does not say of the methods, from their predictions."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.artefact import PROVENANCE, digest, read_json, write_json
from pipeline.evaluation.comparisons import compare_methods
from pipeline.stages.job import Job, stage_provenance
from pipeline.stages.outside_span import outside_span, span_provenance
from pipeline.stages.stage import run_stage


def compare(job: Job, scored: Mapping[str, Any]) -> None:
    """Write ``comparisons/comparisons.json`` unless it is there for these predictions."""
    methods = [name for name, facts in scored["methods"].items() if facts["splits"]]
    provenance = stage_provenance(
        "comparisons",
        predictions={name: _digest(job.folder.predictions(name)) for name in methods},
        curves={name: _digest(job.folder.curves(name)) for name in methods},
        **span_provenance(job),
    )

    def make(folder: Path) -> Mapping[str, Any]:
        found = compare_methods(
            job.folder.path / "predictions", scored, _curves(job, methods), outside_span(job)
        )
        write_json(folder / "comparisons.json", found)
        return {"methods": len(methods)}

    run_stage(job.folder, "comparisons", job.folder.comparisons, provenance, make)


def _curves(job: Job, methods: list[str]) -> dict[str, Any]:
    """Accuracy over the ridge of every method that has it, from its fit or drawn afterwards."""
    curves = {}
    for name in methods:
        for path in (job.folder.fit(name) / "fit.json", job.folder.curves(name) / "curves.json"):
            record = read_json(path) if path.is_file() else {}
            if record.get("ridge_curve"):
                curves[name] = record["ridge_curve"]
    return curves


def _digest(artefact: Path) -> str | None:
    path = artefact / PROVENANCE
    return digest(read_json(path)) if path.is_file() else None
