"""Finished runs in MLflow: parameters from the config, metrics, timing, and the report.

Reads the run folder alone. Logging a folder again updates its MLflow run, found by a tag.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.config import read_yaml
from pipeline.report.shapes import METRICS, TIMING, reader
from pipeline.types import InputError, MissingExtraError

TAG = "entk.folder"
FILES = ("config.yaml", "versions.json", "metrics.json", "timing.json", "report.md", "report.html")
SEARCHED = 1000
"""Newest runs of an experiment among which a folder's own is looked for."""
USER_IN_ADDRESS = re.compile(r"(?<=://)[^/\s@]+@")
LONGEST_PARAMETER = 500
"""Characters that MLflow's servers take, of any version."""


def track_run(folder: Path, *, uri: str | None = None, experiment: str = "entk") -> str:
    """Log a run folder to MLflow; the MLflow run's id.

    ``uri`` is a tracking server or store; without it MLflow's own ``MLFLOW_TRACKING_URI``, from
    where it also takes its credentials.
    """
    if not (folder / "metrics.json").is_file():
        raise InputError(f"{folder} has no metrics.json: finish it with entk run first.")
    try:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
    except ImportError:
        raise MissingExtraError("mlflow", "track", "logging to MLflow") from None
    try:
        return _logged(MlflowClient(tracking_uri=uri), folder, experiment)
    except MlflowException as error:
        said = USER_IN_ADDRESS.sub("", str(error).splitlines()[0])
        raise InputError(f"MLflow cannot log the run: {said}", "--uri") from None


def _logged(client: Any, folder: Path, experiment: str) -> str:
    found = client.get_experiment_by_name(experiment)
    experiment_id = found.experiment_id if found else client.create_experiment(experiment)
    values = flat(read_yaml(folder / "config.yaml"))
    parameters = {key: str(value)[:LONGEST_PARAMETER] for key, value in values}
    run_id = _run_id(client, experiment_id, folder, parameters)
    for key, text in parameters.items():
        client.log_param(run_id, key, text)
    for key, number in numbers(folder):
        client.log_metric(run_id, key, number)
    for file in FILES:
        if (folder / file).is_file():
            client.log_artifact(run_id, str(folder / file))
    client.set_terminated(run_id)
    return run_id


def _run_id(client: Any, experiment_id: str, folder: Path, parameters: Mapping[str, str]) -> str:
    """The run logged from this folder with this config, or a new one."""
    tag = str(folder.resolve())
    for run in client.search_runs([experiment_id], max_results=SEARCHED):
        if run.data.tags.get(TAG) == tag and dict(run.data.params) == dict(parameters):
            return str(run.info.run_id)
    created = client.create_run(experiment_id, tags={TAG: tag}, run_name=folder.name)
    return str(created.info.run_id)


def numbers(folder: Path) -> Iterator[tuple[str, float]]:
    """``METHOD.SPLIT.METRIC`` of metrics.json, ``timing.STAGE.FACT`` of timing.json."""
    for method, found in reader(METRICS)(folder / "metrics.json")["methods"].items():
        yield from _numeric(flat(found.get("splits", {}), f"{method}."))
    if (folder / "timing.json").is_file():
        yield from _numeric(flat(reader(TIMING)(folder / "timing.json"), "timing."))


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested mappings, by their dotted path; lists count as leaves."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _numeric(leaves: Iterator[tuple[str, Any]]) -> Iterator[tuple[str, float]]:
    for key, value in leaves:
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield key, float(value)
