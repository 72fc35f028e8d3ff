"""Which training samples made a run's predictions, and what removing a group of them does."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from pipeline.analyses.influence import InfluenceMachine, influence_machine
from pipeline.report.plots import Panel, Plot, Series
from pipeline.solvers import KernelRidge
from pipeline.solvers.targets import CenteredTargets, class_targets
from pipeline.studies.runs import FinishedRun
from pipeline.studies.study import Findings, Positions, Sizes, Study, StudyOptions, Work
from pipeline.types import InputError

RANKS = 60
"""Points of a curve over ranks."""


class InfluenceOptions(StudyOptions):
    """Influence in a finished run's kernel machine."""

    run: Path
    """Folder of the run."""
    split: str = "id_test"
    """Split whose predictions are explained."""
    rows: Positions = (0, 1, 2)
    """Positions in the split that are listed one by one."""
    top: int = Field(default=5, ge=1)
    """Most helpful and most harmful training samples listed for each row."""
    groups: Sizes = (1, 10, 100)
    """Sizes of the most influential groups that are removed, verified by refitting."""


def run(options: InfluenceOptions, work: Work) -> Findings:
    """The table of the strongest samples and the plot of predicted against refitted changes."""
    source = FinishedRun.open(options.run)
    case = _Case(source, options)
    makers = {f"row_{row}": partial(case.explained, row) for row in options.rows}
    makers |= {f"group_{size}": partial(case.removed, size) for size in options.groups}
    made_from = source.made_from()
    own: dict[str, Any] = {name: [made_from] for name in makers}
    for size in options.groups:
        own[f"group_{size}"].append(list(options.rows))
    found = work.cells(makers, axes=("rows", "groups"), own=own)
    listed = [entry for row in options.rows for entry in found[f"row_{row}"]["listed"]]
    groups = [found[f"group_{size}"] for size in options.groups]
    worst = max(group["worst_difference"] for group in groups)
    note = (
        f"removing groups of {', '.join(map(str, options.groups))} rows: predicted and refitted "
        f"scores differ by at most {worst:.1e}"
    )
    return Findings(listed, _plots(options, found, groups), [note], {"worst difference": worst})


class _Case:
    """One run's machine on one split."""

    def __init__(self, source: FinishedRun, options: InfluenceOptions) -> None:
        self.options = options
        self.K = source.train_kernel()
        self.train, self.store = source.store("train"), source.store(options.split)
        self.K_cross = np.asarray(source.kernel.cross(options.split))
        labels = self.train.labels()
        if labels.dtype != np.int64:
            raise InputError("influence is listed for classifications; this run is a regression.")
        if max(options.rows) >= len(self.K_cross):
            raise InputError(f"{options.split} has {len(self.K_cross)} rows.", "rows")
        if max(options.groups) >= len(self.K):
            raise InputError(f"the run has {len(self.K)} training rows.", "groups")
        self.ridge = source.ridge
        self.targets: CenteredTargets = class_targets(labels, int(labels.max()) + 1)
        self.machine: InfluenceMachine = influence_machine(self.K, self.targets.matrix, self.ridge)

    def explained(self, row: int) -> dict[str, Any]:
        """The samples whose absence would change a prediction most, either way."""
        K_row = self.K_cross[row : row + 1]
        scores = self.targets.scores(self.machine.predictions(K_row))[0]
        predicted = int(scores.argmax())
        changes = self.machine.leave_one_out(K_row, torch.tensor([predicted]))[0]
        order = changes.argsort(descending=True)
        top = self.options.top
        ids, labels = self.train.ids(), self.train.labels()
        listed = [
            {
                "row": self.store.ids()[row],
                "label": int(self.store.labels()[row]),
                "predicted": predicted,
                "training sample": ids[i],
                "its label": int(labels[i]),
                "adds to the score": float(changes[i]),
            }
            for i in [*order[:top].tolist(), *order[-top:].tolist()]
        ]
        return {"listed": listed, "sorted": changes[order].tolist(), "score": float(scores.max())}

    def removed(self, size: int) -> dict[str, Any]:
        """The most influential group of the listed rows' mean, removed by formula and by refit."""
        rows = self.K_cross[list(self.options.rows)]
        predicted = self.machine.predictions(rows).argmax(dim=1)
        mean = self.machine.leave_one_out(rows, predicted).abs().mean(dim=0)
        group = mean.argsort(descending=True)[:size].tolist()
        by_formula = self.machine.without(self.K_cross, group)
        by_refit = self.machine.predictions(self.K_cross) - self._refitted(group)
        sample = np.linspace(0, by_formula.numel() - 1, min(200, by_formula.numel())).astype(int)
        return {
            "size": size,
            "worst_difference": float((by_formula - by_refit).abs().max()),
            "predicted": by_formula.flatten()[sample].tolist(),
            "refitted": by_refit.flatten()[sample].tolist(),
        }

    def _refitted(self, group: list[int]) -> Tensor:
        kept = np.setdiff1d(np.arange(len(self.K)), group)
        machine = KernelRidge(self.ridge, ridge_scale="absolute", solver="cholesky")
        machine.fit(self.K[np.ix_(kept, kept)], self.targets.matrix[kept])
        return torch.from_numpy(machine.predict(self.K_cross[:, kept]))


def _plots(
    options: InfluenceOptions, found: dict[str, Any], groups: list[dict[str, Any]]
) -> list[Plot]:
    sides = [
        _ranked(options, found, sign, title) for sign, title in ((1, "for it"), (-1, "against it"))
    ]
    verified = [
        Series(f"{group['size']} removed", group["predicted"], group["refitted"], style="points")
        for group in groups
    ]
    return [
        Plot(
            "influence",
            "What each training sample adds to a prediction",
            "Change of the predicted class's score if a sample had been left out; exact.",
            sides,
        ),
        Plot(
            "groups",
            "Removing a group: formula against refit",
            "Change of the scores of the whole split; points on the diagonal are right.",
            [Panel("by the formula", "by refitting", verified)],
        ),
    ]


def _ranked(options: InfluenceOptions, found: dict[str, Any], sign: int, title: str) -> Panel:
    """Changes of one sign by rank, the strongest first, at evenly spaced ranks of a log axis."""
    curves = []
    for row in options.rows:
        changes = sign * np.array(found[f"row_{row}"]["sorted"][::sign])
        changes = changes[changes > 0]
        if len(changes) == 0:
            continue
        ranks = np.unique(np.geomspace(1, len(changes), RANKS).astype(int))
        label = f"row {row} of {options.split.replace('_', ' ')}"
        curves.append(Series(label, ranks.astype(float).tolist(), changes[ranks - 1].tolist()))
    return Panel(
        "training samples, the strongest first", "change of the score", curves, xlog=True,
        ylog=True, title=title,
    )  # fmt: skip


STUDY = Study(InfluenceOptions, run)
