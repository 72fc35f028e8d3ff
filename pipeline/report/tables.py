"""Tables as files for other tools: CSV with every figure in full, LaTeX for a paper."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.report.record import Run
from pipeline.report.results import (
    STANDARD_ERRORS,
    Cell,
    Table,
    beyond_table,
    calibration_table,
    results_table,
)

ESCAPES = str.maketrans(
    {
        "&": r"\&",
        "%": r"\%",
        "$": r"\$",
        "#": r"\#",
        "_": r"\_",
        "{": r"\{",
        "}": r"\}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "\\": r"\textbackslash{}",
        "±": r"$\pm$",
        "−": r"$-$",
        "—": "---",
        "–": "--",
    }
)
"""What LaTeX does not take as it stands."""


def table_files(run: Run) -> dict[str, str]:
    """The content of every table's file, by name."""
    files = {"metrics.csv": metrics_csv([run]), "results.tex": latex(results_table(run))}
    for name, table in (("calibration", calibration_table(run)), ("beyond", beyond_table(run))):
        if table.columns and table.rows:
            files[f"{name}.tex"] = latex(table)
    if run.comparisons:
        files["differences.csv"] = differences_csv(run)
    if run.comparisons.get("outside_span"):
        files["outside_span.csv"] = outside_span_csv(run)
    if run.timing:
        files["stages.csv"] = stages_csv(run.timing)
    return files


def metrics_csv(runs: Sequence[Run]) -> str:
    """One line a run, method, split and metric, with standard error and interval where known."""
    lines = []
    for run in runs:
        for method in run.methods:
            for split, facts in method.splits.items():
                for metric, value in facts.items():
                    if metric == "n" or metric.endswith("stderr") or not isinstance(value, float):
                        continue
                    stderr = facts.get(STANDARD_ERRORS.get(metric, ""))
                    interval = facts.get("intervals", {}).get(metric, ("", ""))
                    values = [value, stderr, *interval, facts.get("n")]
                    lines.append([run.name, method.name, split, metric, *values])
    heading = ["run", "method", "split", "metric", "value", "stderr", "low", "high", "n"]
    return _csv([heading, *lines])


def differences_csv(run: Run) -> str:
    """Paired differences of every two methods on every split."""
    lines = [
        [split, pair["of"], pair["minus"], pair["metric"], pair["mean"], *pair["interval"]]
        for split, facts in run.comparisons["splits"].items()
        for pair in facts["differences"]
    ]
    return _csv([["split", "of", "minus", "metric", "difference", "low", "high"], *lines])


def outside_span_csv(run: Run) -> str:
    """One line a split, group and method: rows, their mean share outside, mean and error."""
    lines = [
        [split, facts["n"][i], facts["share"][i], method, scores["mean"][i], scores["stderr"][i]]
        for split, facts in run.comparisons["outside_span"]["splits"].items()
        for method, scores in facts["methods"].items()
        for i in range(len(facts["n"]))
    ]
    return _csv([["split", "n", "share_outside", "method", run.metric, "stderr"], *lines])


def stages_csv(timing: Mapping[str, Mapping[str, Any]]) -> str:
    """Seconds and bytes of every stage."""
    keys = sorted({key for facts in timing.values() for key in facts if "bytes" in key})
    lines = [
        [stage, facts.get("seconds"), *(facts.get(key) for key in keys)]
        for stage, facts in timing.items()
    ]
    return _csv([["stage", "seconds", *keys], *lines])


def latex(table: Table) -> str:
    """A ``tabular`` with booktabs rules, the best of each column in bold."""
    heads = [f"{column.label}, {column.unit}" for column in table.columns]
    lines = [
        rf"\begin{{tabular}}{{l{'r' * len(heads)}}}",
        r"\toprule",
        _row("Method", *(head.translate(ESCAPES) for head in heads)),
        r"\midrule",
    ]
    lines += [_row(row.label.translate(ESCAPES), *map(_cell, row.cells)) for row in table.rows]
    if table.published:
        lines.append(r"\midrule")
        lines += [
            _row(f"{row.label.translate(ESCAPES)} (published)", *map(_cell, row.cells))
            for row in table.published
        ]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _cell(cell: Cell) -> str:
    text = str(cell).translate(ESCAPES)
    return rf"\textbf{{{text}}}" if cell.best else text


def _row(*cells: str) -> str:
    return " & ".join(cells) + r" \\"


def _csv(rows: Sequence[Sequence[Any]]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue()
