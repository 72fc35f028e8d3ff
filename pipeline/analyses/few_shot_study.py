"""A few-shot study from its config: every method on every target task, in numbers and a figure."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pydantic import Field, TypeAdapter

from pipeline.analyses.few_shot import LEVEL, METHODS, ShotTask, Source, scored
from pipeline.analyses.precipitation import (
    PrecipitationOptions,
    precipitation_source,
    station_tasks,
)
from pipeline.analyses.sinusoids import SinusoidOptions, sinusoid_source, sinusoid_tasks
from pipeline.config import apply_overrides, expand_environment, read_yaml
from pipeline.gp.predictive import Predictive
from pipeline.types import InputError

FewShotOptions = Annotated[SinusoidOptions | PrecipitationOptions, Field(discriminator="kind")]

PANELS = 3
"""Target tasks that the figure shows."""

BLUE, VERMILLION, INK = "#0072b2", "#d55e00", "#1a1c1f"


@dataclass(frozen=True)
class FewShotStudy:
    """What a study found; tasks and predictions are those of the first seed."""

    scores: dict[str, dict[str, Any]]
    """By method, over the target tasks of all seeds."""
    source: Source
    tasks: list[ShotTask]
    """Target tasks."""
    predictions: dict[str, list[Predictive]]


def load_options(path: Path, overrides: Sequence[str] = ()) -> FewShotOptions:
    """The study that a config file describes."""
    values = expand_environment(apply_overrides(read_yaml(path), overrides))
    if values.get("kind") == "sinusoids":
        return TypeAdapter(SinusoidOptions).validate_python(values)
    if values.get("kind") == "precipitation":
        return TypeAdapter(PrecipitationOptions).validate_python(values)
    raise InputError(
        f"{path}: kind must be sinusoids or precipitation, not {values.get('kind')!r}."
    )


def run_study(options: FewShotOptions) -> FewShotStudy:
    """Train on the source, carry over to the targets by every method, and score; for every seed."""
    unknown = sorted(set(options.methods) - set(METHODS))
    if unknown:
        raise InputError(
            f"unknown methods {', '.join(unknown)}; known are {', '.join(METHODS)}.", "methods"
        )
    runs = [_run(options.model_copy(update={"seeds": (seed,)})) for seed in options.seeds]
    tasks = [task for _, targets, _ in runs for task in targets]
    scores = {}
    for method in options.methods:
        found = [prediction for *_, predictions in runs for prediction in predictions[method]]
        scores[method] = asdict(scored(found, tasks))
    source, targets, predictions = runs[0]
    return FewShotStudy(scores, source, targets, predictions)


def _run(options: FewShotOptions) -> tuple[Source, list[ShotTask], dict[str, list[Predictive]]]:
    if isinstance(options, SinusoidOptions):
        tasks = sinusoid_tasks(options)
        source = sinusoid_source(options, tasks[0])
    else:
        tasks = station_tasks(options)
        source = precipitation_source(options, tasks[0])
    targets = tasks[1:]
    return source, targets, {name: METHODS[name](source, targets) for name in options.methods}


def draw_study(study: FewShotStudy) -> Figure:
    """Means and 95 % intervals of y on the first target tasks, a row a method."""
    methods, tasks = list(study.predictions), study.tasks[:PANELS]
    figure = Figure(figsize=(3.2 * len(tasks), 1.9 * len(methods)), layout="constrained")
    grid = figure.subplots(len(methods), len(tasks), squeeze=False, sharex=True)
    for row, method in zip(grid, methods, strict=True):
        for number, (axes, task) in enumerate(zip(row, tasks, strict=True)):
            _draw_task(axes, task, study.predictions[method][number])
            axes.set_title(f"{method}, {task.name}", fontsize=8)
    return figure


def _draw_task(axes: Axes, task: ShotTask, found: Predictive) -> None:
    order = task.x_test[:, 0].argsort()
    low, high = (end[order, 0].cpu().numpy() for end in found.interval(LEVEL))
    x = task.x_test[order, 0].numpy()
    axes.fill_between(x, low, high, color=BLUE, alpha=0.2, linewidth=0)
    axes.plot(x, found.mean[order, 0].cpu().numpy(), color=BLUE, linewidth=1.2)
    axes.plot(x, task.y_test[order].numpy(), color=INK, linewidth=0.8, linestyle="--")
    axes.plot(task.x[:, 0].numpy(), task.y.numpy(), ".", color=VERMILLION, markersize=4)
    # An interval without bound would hide the data.
    values = [*task.y.tolist(), *task.y_test.tolist()]
    margin = 0.5 * (max(values) - min(values))
    axes.set_ylim(min(values) - margin, max(values) + margin)
    axes.tick_params(labelsize=7)
