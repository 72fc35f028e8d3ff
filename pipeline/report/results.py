"""The table of results as values, rendered by HTML, Markdown and the terminal alike."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from pipeline.report.record import METHOD_LABELS, Method, Run, ordered_splits, split_label
from pipeline.report.words import described

LOWER_IS_BETTER = frozenset({"nll", "nll_raw", "ece", "ece_raw", "brier", "mse"})
PERCENT = frozenset(
    {
        "accuracy",
        "balanced_accuracy",
        "worst_group_accuracy",
        "ece",
        "ece_raw",
        "coverage",
        "effective_robustness",
    }
)
STANDARD_ERRORS = {"accuracy": "stderr", "mse": "stderr", "nll": "nll_stderr"}
METRIC_LABELS = {
    "accuracy": "accuracy, %",
    "balanced_accuracy": "balanced accuracy, %",
    "nll": "NLL",
    "nll_raw": "NLL at T = 1",
    "ece": "ECE, %",
    "ece_raw": "ECE at T = 1, %",
    "brier": "Brier",
    "worst_group_accuracy": "worst-group accuracy, %",
    "auroc": "AUROC",
    "effective_robustness": "effective robustness, points",
    "mse": "MSE",
    "coverage": "coverage, %",
}

PUBLISHED = {
    "living17": {
        "scratch": (92.4, 58.2),
        "linear_probe": (96.5, 82.2),
        "finetune": (97.1, 77.7),
        "entk_early_stopping": (97.4, 81.2),
        "entk": (97.1, 81.3),
    }
}
"""ID and OOD accuracy in percent as the poster prints them, per benchmark."""


@dataclass(frozen=True)
class Cell:
    """One number of the table."""

    text: str
    stderr: str = ""
    """Its standard error, in the same unit; empty where there is none."""
    best: bool = False
    interval: str = ""
    """Its bootstrap interval, in the same unit; empty where there is none."""

    def __str__(self) -> str:
        return f"{self.text} ± {self.stderr}" if self.stderr else self.text


@dataclass(frozen=True)
class Column:
    """One metric on one split."""

    split: str
    metric: str
    n: int | None

    @property
    def label(self) -> str:
        """Heading, such as ``OOD test``."""
        return split_label(self.split)

    @property
    def unit(self) -> str:
        """What is counted, such as ``accuracy, %``."""
        return METRIC_LABELS.get(self.metric, self.metric)


@dataclass(frozen=True)
class Row:
    """One method."""

    label: str
    detail: str
    """What was selected, or why the row is empty."""
    cells: list[Cell]
    is_ours: bool = False
    is_published: bool = False


@dataclass(frozen=True)
class Table:
    """Columns, rows of this run, and rows published elsewhere."""

    columns: list[Column]
    rows: list[Row]
    published: list[Row]


EMPTY = Cell("—")

EXPLAINS = 0.8
"""Correlation from which on the probit line says what accuracy to expect; heights above a line that
does not are not ranked."""


def results_table(run: Run) -> Table:
    """The leading metric of every method on every split, the best of each split marked."""
    found = run.splits or run.awaited_splits
    splits = [s for s in found if s != "val" or found == ["val"]]
    columns = [Column(split, run.metric, _rows_of([run], split)) for split in splits]
    return Table(columns, _rows([run], columns), published_rows(run.benchmark, columns))


def calibration_table(run: Run) -> Table:
    """Likelihood and calibration of every method on the test splits."""
    names = ("nll", "ece", "brier") if run.metric == "accuracy" else ("nll", "coverage")
    splits = [s for s in run.splits if s != "val"]
    columns = [Column(split, name, _rows_of([run], split)) for split in splits for name in names]
    rows = [
        replace(row, detail=method.missing or _temperature(method))
        for method, row in zip(run.methods, _rows([run], columns), strict=True)
    ]
    return Table(columns, rows, [])


def beyond_table(run: Run) -> Table:
    """What accuracy alone hides: balance, the worst domain, ranking, effective robustness."""
    names = ("balanced_accuracy", "worst_group_accuracy", "auroc", "effective_robustness")
    columns = [
        Column(split, name, None)
        for split in run.splits
        if split != "val"
        for name in names
        if any(name in m.splits.get(split, {}) for m in run.methods)
    ]
    ranked = [_ranks(run, column) for column in columns]
    rows = [replace(row, detail="") for row in _marked(_rows([run], columns), ranked)]
    return Table(columns, rows, [])


def _ranks(run: Run, column: Column) -> bool:
    """Whether a column's best is worth marking: heights above a line need one that fits."""
    if column.metric != "effective_robustness":
        return True
    line = run.comparisons["effective_robustness"][column.split]["line"]
    return abs(line["correlation"]) >= EXPLAINS


def published_rows(benchmark: str, columns: list[Column]) -> list[Row]:
    """The poster's rows for this benchmark, where it has any."""
    values = PUBLISHED.get(benchmark, {})
    rows = []
    for name, (id_test, ood_test) in values.items():
        known = {"id_test": f"{id_test:.1f}", "ood_test": f"{ood_test:.1f}"}
        cells = [Cell(known[c.split]) if c.split in known else EMPTY for c in columns]
        rows.append(Row(METHOD_LABELS[name], "published (poster)", cells, is_published=True))
    return rows


def number(value: float, metric: str) -> str:
    """A metric's value in the unit of its column."""
    if metric == "effective_robustness":
        return f"{100.0 * value:+.1f}".replace("-", "−")
    return f"{100.0 * value:.1f}" if metric in PERCENT else f"{value:.3f}"


def comparison_table(runs: Sequence[Run], unmarked: Collection[str] = ()) -> Table:
    """Every method of every run on every test split, one row each; the best of all marked.

    On the ``unmarked`` splits the runs saw different rows, and none is best.
    """
    splits = ordered_splits({s for run in runs for s in run.splits} - {"val"})
    columns = [Column(s, runs[0].metric, _rows_of(runs, s)) for s in splits]
    ranked = [column.split not in unmarked for column in columns]
    rows = _marked(_rows(runs, columns), ranked)
    return Table(columns, rows, published_rows(runs[0].benchmark, columns))


def _marked(rows: Sequence[Row], ranked: Sequence[bool]) -> list[Row]:
    """The rows, with a best cell only in the columns whose values may be ranked."""
    return [
        replace(
            row,
            cells=[replace(c, best=c.best and r) for c, r in zip(row.cells, ranked, strict=True)],
        )
        for row in rows
    ]


def _rows(runs: Sequence[Run], columns: list[Column]) -> list[Row]:
    """One row a method of one run; of several runs, one a method and run, methods together."""
    pairs = [(run, method) for run in runs for method in run.methods]
    if len(runs) > 1:
        labels = list(dict.fromkeys(method.label for _, method in pairs))
        pairs.sort(key=lambda pair: labels.index(pair[1].label))
    best = {column: _best([method for _, method in pairs], column) for column in columns}
    rows = []
    for run, method in pairs:
        words = [run.name] if len(runs) > 1 else []
        words.append(method.missing or described(method.selected))
        cells = [_cell(method, column, best[column]) for column in columns]
        detail = " · ".join(word for word in words if word)
        rows.append(Row(method.label, detail, cells, is_ours=method.name.startswith("entk")))
    return rows


def _temperature(method: Method) -> str:
    return "" if method.temperature is None else f"T = {method.temperature:.3g}"


def _cell(method: Method, column: Column, best: float | None) -> Cell:
    value = method.splits.get(column.split, {}).get(column.metric)
    if value is None:
        return EMPTY
    facts = method.splits[column.split]
    stderr = facts.get(STANDARD_ERRORS.get(column.metric, ""))
    interval = facts.get("intervals", {}).get(column.metric)
    return Cell(
        number(value, column.metric),
        "" if stderr is None else number(stderr, column.metric),
        # What is printed alike is marked alike: the digits behind it are far below the error.
        best=best is not None and number(value, column.metric) == number(best, column.metric),
        interval="" if interval is None else " – ".join(number(v, column.metric) for v in interval),
    )


def _best(methods: list[Method], column: Column) -> float | None:
    found = [m.splits[column.split].get(column.metric) for m in methods if column.split in m.splits]
    values = [value for value in found if value is not None]
    if len(values) < 2 or column.metric == "coverage":
        return None
    return min(values) if column.metric in LOWER_IS_BETTER else max(values)


def _rows_of(runs: Sequence[Run], split: str) -> int | None:
    """The split's number of samples, where all agree on it."""
    counts = {m.splits[split].get("n") for run in runs for m in run.methods if split in m.splits}
    return int(counts.pop() or 0) or None if len(counts) == 1 else None
