"""Few-shot regression over many small tasks, as sinusoids and stations share it."""

from dataclasses import asdict
from typing import Any

import torch

from pipeline.analyses.few_shot import LEVEL, ShotTask
from pipeline.analyses.few_shot_study import FewShotStudy, run_study
from pipeline.gp.predictive import Predictive
from pipeline.report.plots import Panel, Plot, Series
from pipeline.studies.study import Findings, Work

PANELS = 2
"""Target tasks that the figure shows."""
DRAWN = ("finite_ntk", "network", "rbf_transfer")
"""Methods that it shows, where they were run."""


def few_shot_findings(options: Any, work: Work) -> Findings:
    """One row a method, over the target tasks of all seeds."""
    cells = work.cells({"study": lambda: _cell(options)})
    found = cells["study"]
    table = [
        {
            "method": name,
            "RMSE": row["rmse"],
            "stderr": row["rmse_stderr"],
            "NLL": row["nll"],
            "coverage": row["coverage"],
            "tasks": row["tasks"],
        }
        for name, row in found["scores"].items()
    ]
    plots = [Plot.of_json(values) for values in found["plots"]]
    return Findings(table, plots)


def _cell(options: Any) -> dict[str, Any]:
    study = run_study(options)
    shown = [name for name in DRAWN if name in study.predictions]
    return {"scores": study.scores, "plots": [asdict(_plot(study, name)) for name in shown]}


def _plot(study: FewShotStudy, method: str) -> Plot:
    tasks = study.tasks[:PANELS]
    panels = [_panel(task, study.predictions[method][number]) for number, task in enumerate(tasks)]
    caption = f"Mean and central {100 * LEVEL:.0f} % interval of {method} on the first targets."
    return Plot(f"tasks_{method}", f"Target tasks by {method}", caption, panels)


def _panel(task: ShotTask, found: Predictive) -> Panel:
    order = task.x_test[:, 0].argsort()
    low, high = (end[order, 0] for end in found.interval(LEVEL))
    x = task.x_test[order, 0]
    # An interval without bound would hide the data.
    values = torch.cat([task.y, task.y_test])
    margin = 0.5 * float(values.max() - values.min())
    ends = float(values.min()) - margin, float(values.max()) + margin
    lines = [
        ("mean", x, found.mean[order, 0]),
        ("interval", torch.cat([x, x.flip(0)]), torch.cat([low, high.flip(0)])),
        ("truth", x, task.y_test[order]),
    ]
    series = [
        Series(label, xs.tolist(), ys.double().clamp(*ends).tolist()) for label, xs, ys in lines
    ]
    series.append(Series("context", task.x[:, 0].tolist(), task.y.tolist(), style="points"))
    return Panel("x", "y", series, title=task.name)
