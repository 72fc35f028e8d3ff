"""The registry file: models × benchmarks × sketches, and what every run of them shares."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from pipeline.config import Options, read_yaml, validated
from pipeline.history import Task

OWN_KEYS = ("name", "model", "benchmark", "sketch", "pretrain")
"""Keys of a run's config that the registry sets itself."""


def _plain_name(name: str) -> str:
    """The name, unless a folder of that name could lie elsewhere."""
    if not re.fullmatch(r"\w[\w.-]*", name, re.ASCII):
        raise ValueError("a name holds letters, digits, '.', '-' and '_', a letter or digit first")
    return name


def _repository(name: str) -> str:
    if not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", name, re.ASCII):
        raise ValueError("expected OWNER/NAME")
    return name


def _revision(name: str) -> str:
    if not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)*", name, re.ASCII):
        raise ValueError("expected a branch, a tag or a commit")
    return name


def _shared(values: dict[str, Any]) -> dict[str, Any]:
    own = sorted(set(values) & set(OWN_KEYS))
    if own:
        raise ValueError(f"{', '.join(own)} cannot stand here: the registry sets them")
    return values


Name = Annotated[str, AfterValidator(_plain_name)]
Values = dict[str, Any]


class HubOptions(Options):
    """A model on a hub: its revision is resolved to a commit at every run."""

    repository: Annotated[str, AfterValidator(_repository)]
    """OWNER/NAME."""
    revision: Annotated[str, AfterValidator(_revision)] = "main"
    """Branch, tag or commit."""


class ModelEntry(Options):
    """One model of the registry."""

    model: Values
    """A run's ``model``; read when its turn comes, so that a mistake stops this model alone."""
    hub: HubOptions | None = None
    """Where ``model.path`` comes from; without it the model lies in local files."""
    preprocess: Values = Field(default_factory=dict)
    """What this model's input needs, put over every benchmark's ``preprocess``."""


class RetentionOptions(Options):
    """Which features ``entk gc`` keeps; scores and reports are kept for ever."""

    revisions: Annotated[int, Field(ge=1)] = 2
    """Newest revisions of every task whose features and kernels stay."""
    days: Annotated[float, Field(ge=0)] | None = None
    """Older revisions also stay until they are this old, in days."""


class Registry(Options):
    """Models × benchmarks × sketches; every key has a default but the three of them."""

    name: Name = "registry"
    """Name of the folder under runs/schedules/."""
    models: Annotated[dict[Name, ModelEntry], Field(min_length=1)]
    """Models by name; a name stands for all of a model's revisions."""
    benchmarks: Annotated[dict[Name, Values], Field(min_length=1)]
    """A run's ``benchmark``, by name."""
    sketches: Annotated[dict[Name, Values], Field(min_length=1)]
    """A run's ``sketch``, by name."""
    config: Annotated[Values, AfterValidator(_shared)] = Field(default_factory=dict)
    """What every run's config shares: solver, baselines, executor, store."""
    retention: RetentionOptions = RetentionOptions()

    def tasks(self) -> list[Task]:
        """Every cell, model by model."""
        return [
            Task(model, benchmark, sketch)
            for model in self.models
            for benchmark in self.benchmarks
            for sketch in self.sketches
        ]

    def run_values(self, task: Task, path: Path | None = None) -> dict[str, Any]:
        """The config of one cell's run, not yet checked; ``path`` is a hub model's folder."""
        entry = self.models[task.model]
        benchmark = dict(self.benchmarks[task.benchmark])
        if entry.preprocess:
            own = benchmark.get("preprocess", {})
            benchmark["preprocess"] = {**own, **entry.preprocess}
        fetched = {} if path is None else {"path": str(path)}
        return {
            **self.config,
            "name": task.model,
            "model": {**entry.model, **fetched},
            "benchmark": benchmark,
            "sketch": dict(self.sketches[task.sketch]),
        }


def load_registry(path: Path) -> Registry:
    """The registry in a YAML file; environment variables are put in cell by cell."""
    values: Mapping[str, Any] = {"name": re.sub(r"[^\w.-]+", "_", path.stem), **read_yaml(path)}
    return validated(Registry, values, str(path))
