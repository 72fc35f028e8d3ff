"""The page's chapters of figures: what each is about, and the figures that the run allows."""

from dataclasses import dataclass

from pipeline.report.calibration_figures import calibration_shift_figure, reliability_figure
from pipeline.report.curve_figures import (
    columns_figure,
    iterations_figure,
    ridge_figure,
    risk_figure,
)
from pipeline.report.drawing import Drawn
from pipeline.report.kernel_figures import plane_figure, spectrum_figure
from pipeline.report.pair_figures import agreement_figure, differences_figure
from pipeline.report.record import Run
from pipeline.report.shift_figures import shift_figure
from pipeline.report.span_figures import span_figure


@dataclass(frozen=True)
class Section:
    """A chapter of the page."""

    anchor: str
    title: str
    figures: list[Drawn]


def all_sections(run: Run) -> list[Section]:
    """Every chapter that has a figure."""
    chapters = [
        Section("shift", "Under shift", _there(_shift(run))),
        Section("path", "Along the path", _there(_path(run))),
        Section("kernel", "The kernel", _there(_kernel(run))),
        Section(
            "calibration",
            "Calibration",
            _there([reliability_figure(run), calibration_shift_figure(run)]),
        ),
    ]
    return [chapter for chapter in chapters if chapter.figures]


def _shift(run: Run) -> list[Drawn | None]:
    if run.metric != "accuracy":
        return []
    shifts = [split for split in run.splits if split.startswith("ood")]
    return [
        *(shift_figure(run, split) for split in shifts),
        differences_figure(run),
        agreement_figure(run),
        span_figure(run),
    ]


def _path(run: Run) -> list[Drawn | None]:
    drawn: list[Drawn | None] = []
    for method in run.methods:
        drawn += [iterations_figure(run, method), ridge_figure(run, method)]
    return drawn


def _kernel(run: Run) -> list[Drawn | None]:
    planes = [plane_figure(run, method) for method in run.methods]
    risks = [risk_figure(method) for method in run.methods]
    return [*planes, spectrum_figure(run), columns_figure(run), *risks]


def _there(figures: list[Drawn | None]) -> list[Drawn]:
    return [figure for figure in figures if figure is not None]
