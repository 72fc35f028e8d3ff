"""Active learning on a run's stored features: accuracy over labels for every acquisition rule."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field, field_validator

from pipeline.analyses.active import RULES, active_rounds, labels_of, outputs_elsewhere
from pipeline.analyses.lookahead import LookAhead
from pipeline.analyses.pool import StoredPool
from pipeline.metrics.calibration import fit_temperature
from pipeline.report.plots import Panel, Plot, Series
from pipeline.solvers.cholesky import leave_one_out_residuals
from pipeline.studies.runs import FinishedRun
from pipeline.studies.study import Findings, Study, StudyOptions, Work
from pipeline.types import InputError


class ActiveOptions(StudyOptions):
    """Rounds of active learning on the training split of a finished run."""

    run: Path
    """Folder of the run; its training split is the pool, its labels the oracle."""
    split: str = "id_test"
    """Split that accuracy is measured on."""
    rules: tuple[str, ...] = tuple(RULES)
    """Acquisition rules to compare."""
    start: int = Field(default=20, ge=1)
    """Labels at the beginning, drawn by chance."""
    batch: int = Field(default=20, ge=1)
    """Labels asked for in a round."""
    rounds: int = Field(default=5, ge=1)
    """Rounds."""
    candidates: int | None = Field(default=500, ge=1)
    """Unlabelled samples that a rule sees in a round, drawn by chance; null for all."""
    seeds: int = Field(default=3, ge=1)
    """Repetitions with other first labels."""
    ridge: float = Field(default=1e-3, gt=0)
    """Relative to the mean of the pool kernel's diagonal."""

    @field_validator("rules")
    @classmethod
    def _rules_are_known(cls, rules: tuple[str, ...]) -> tuple[str, ...]:
        unknown = sorted(set(rules) - set(RULES))
        if unknown or not rules:
            raise ValueError(f"unknown rules {', '.join(unknown)}; known: {', '.join(RULES)}")
        return rules


def run(options: ActiveOptions, work: Work) -> Findings:
    """Accuracy over the number of labels, for every rule over the seeds."""
    case = _Case(FinishedRun.open(options.run), options)

    keys = {
        (rule, seed): f"{rule}_{seed}" for rule in options.rules for seed in range(options.seeds)
    }
    makers = {name: partial(case.accuracies, *key) for key, name in keys.items()}
    made_from = case.source.made_from()
    found = work.cells(makers, axes=("rules", "seeds"), own=dict.fromkeys(makers, made_from))
    labels = [options.start + options.batch * i for i in range(options.rounds + 1)]
    table, series = [], []
    for rule in options.rules:
        runs = np.array([found[keys[rule, seed]] for seed in range(options.seeds)])
        mean = runs.mean(axis=0)
        stderr = runs.std(axis=0, ddof=1) / options.seeds**0.5 if options.seeds > 1 else None
        error = None if stderr is None else (100 * stderr).tolist()
        series.append(Series(rule, [float(n) for n in labels], (100 * mean).tolist(), error))
        table += [
            {
                "rule": rule,
                "labels": n,
                "accuracy, %": round(100 * float(mean[i]), 2),
                "stderr": None if stderr is None else round(100 * float(stderr[i]), 2),
                "seeds": options.seeds,
            }
            for i, n in enumerate(labels)
        ]
    caption = f"Kernel regression on the labels so far, measured on {options.split}; {case.m} rows."
    panel = Panel("labels", "accuracy, %", series)
    return Findings(table, [Plot("active", "Accuracy over labels", caption, [panel])])


class _Case:
    """The pool of one run, and the rows it is judged on."""

    def __init__(self, source: FinishedRun, options: ActiveOptions) -> None:
        self.options, self.source = options, source
        if options.split == "train":
            raise InputError(
                "train is the pool: measure on a split that is not asked for.", "split"
            )
        train = source.store("train")
        self.labels = train.labels()
        if self.labels.dtype != np.int64:
            raise InputError("active learning asks for classes; this run is a regression.")
        needed = options.start + options.batch * options.rounds
        if needed > len(self.labels):
            raise InputError(f"{needed} labels are asked for, the pool has {len(self.labels)}.")
        self.k = int(self.labels.max()) + 1
        self.pool = StoredPool(train)
        self.penultimate = train.penultimate()
        self.K_cross = torch.from_numpy(np.array(source.kernel.cross(options.split)))
        self.test_labels = source.store(options.split).labels()
        self.m = len(self.test_labels)
        strange = sorted(set(self.test_labels.tolist()) - set(self.labels.tolist()))
        if strange:
            raise InputError(
                f"the label sets differ: {options.split} has the classes {strange}, which no "
                "sample of the pool has."
            )
        diagonal = self.pool.features.row_squares()
        self.ridge = options.ridge * float(diagonal.mean())

    def accuracies(self, rule: str, seed: int) -> list[float]:
        """After every round, on the split."""
        first = np.random.default_rng(seed).permutation(len(self.labels))[: self.options.start]
        start = LookAhead.start(
            self.pool, self._even(len(self.labels)), first.tolist(), self.labels[first].tolist(),
            self.ridge,
        )  # fmt: skip
        rounds = active_rounds(
            start,
            RULES[rule],
            labels_of(self.labels),
            batch=self.options.batch,
            rounds=self.options.rounds,
            candidates=self.options.candidates,
            penultimate=self.penultimate,
            temperature=self.temperature,
            seed=seed,
        )
        return [self._accuracy(each.state) for each in rounds]

    def temperature(self, state: LookAhead) -> float:
        """Fitted on leave-one-out scores of the labels so far."""
        labels = self.labels[state.labelled.numpy()]
        wanted = torch.nn.functional.one_hot(torch.from_numpy(labels), self.k).double()
        residuals = leave_one_out_residuals(state.factor, state.dual_weights())
        return fit_temperature((wanted - residuals).numpy(), labels)

    def _accuracy(self, state: LookAhead) -> float:
        scores = outputs_elsewhere(state, self.K_cross, self._even(self.m))
        return float(np.mean(scores.argmax(dim=1).numpy() == self.test_labels))

    def _even(self, rows: int) -> Any:
        """The regression starts from even probabilities."""
        return torch.full((rows, self.k), 1 / self.k, dtype=torch.float64)


STUDY = Study(ActiveOptions, run)
