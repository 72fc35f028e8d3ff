"""What every study does around its work: cells that resume, a table, plots, one JSON file.

```text
runs/analyses/NAME/
  config.yaml  versions.json    the resolved config; it runs again as it is
  cells/CELL.json               finished parts, each with what it was made from
  analysis.json                 table, notes and plots
  figures/PLOT.svg  .png
```
"""

import importlib
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar
from urllib.parse import quote

import psutil
from pydantic import AfterValidator, Field

from pipeline.artefact import read_json, write_json
from pipeline.config import Options
from pipeline.log import BlockDone
from pipeline.report.build import write_figures
from pipeline.report.plots import Plot, draw
from pipeline.runs import RunFolder
from pipeline.stages.job import Progress

logger = logging.getLogger(__name__)

ANALYSIS = "analysis.json"

Numbers = TypeVar("Numbers", bound=tuple[float, ...])


def _ascending(values: Numbers) -> Numbers:
    if list(values) != sorted(set(values)):
        raise ValueError("numbers go up, each once")
    return values


Positions = Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]
"""Places counted from 0, one at least."""
Times = Annotated[Positions, AfterValidator(_ascending)]
"""Epochs or steps from 0, going up."""
Sizes = Annotated[
    tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1), AfterValidator(_ascending)
]
"""Widths or counts from 1, going up."""
Rates = Annotated[
    tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1), AfterValidator(_ascending)
]
"""Step sizes, going up."""


class StudyOptions(Options):
    """What every study's config has."""

    name: str = ""
    """Folder under runs/analyses; the config's file name when empty."""


@dataclass(frozen=True)
class Findings:
    """What a study found."""

    table: list[dict[str, Any]]
    """Rows of plain values, all with the same keys."""
    plots: list[Plot]
    notes: list[str] = field(default_factory=list)
    """Sentences that the reader must know."""
    numbers: dict[str, float] = field(default_factory=dict)
    """What was found, in few numbers by name: exponents, correlations, worst differences."""


@dataclass(frozen=True)
class Work:
    """A study's folder while it runs."""

    folder: RunFolder
    provenance: Mapping[str, Any]
    """The options, which every cell depends on."""
    progress: Progress

    def cells(self, makers: Mapping[str, Callable[[], Any]]) -> dict[str, Any]:
        """The result of every maker, a JSON value; finished ones are read, not made again."""
        done = {name: self._known(name) for name in makers}
        missing = [name for name, value in done.items() if value is None]
        self.progress.start("study", len(makers), len(makers) - len(missing), "cells")
        for number, name in enumerate(missing):
            started = time.perf_counter()
            result = makers[name]()
            seconds = time.perf_counter() - started
            cell = {"options": dict(self.provenance), "seconds": seconds, "result": result}
            write_json(self._path(name), cell)
            done[name] = {"result": read_json(self._path(name))["result"]}
            logger.info("%s: %.1f s", name, seconds)
            peak = psutil.Process().memory_info().rss
            self.progress.advance(BlockDone("study", number, 1, seconds, peak))
        self.progress.finish("study")
        return {name: done[name]["result"] for name in makers}

    def _path(self, name: str) -> Path:
        return self.folder.path / "cells" / f"{quote(name, safe=' ,')}.json"

    def _known(self, name: str) -> Any:
        if not self._path(name).is_file():
            return None
        found = read_json(self._path(name))
        return found if found["options"] == dict(self.provenance) else None


@dataclass(frozen=True)
class Study:
    """One study: its options, and what makes its findings from them."""

    options: type[StudyOptions]
    run: Callable[[Any, Work], Findings]


def study_of(name: str) -> Study:
    """The study in the file of that name; no other is imported."""
    study: Study = importlib.import_module(f"pipeline.studies.{name}").STUDY
    return study


def run_study(
    study: Study, options: StudyOptions, folder: RunFolder, progress: Progress
) -> dict[str, Any]:
    """Do what is missing of a study; the content of its ``analysis.json``."""
    plain = options.model_dump(mode="json")
    with folder.locked():
        folder.write_config(plain)
        (folder.path / "cells").mkdir(exist_ok=True)
        found = study.run(options, Work(folder, plain, progress))
        result = {
            "study": type(options).__name__.removesuffix("Options"),
            "table": found.table,
            "notes": found.notes,
            "numbers": found.numbers,
            "plots": [asdict(plot) for plot in found.plots],
        }
        write_json(folder.path / ANALYSIS, result)
        redraw(folder.path)
    return result


def redraw(folder: Path) -> None:
    """The figures of a finished study, from its JSON."""
    plots = read_json(folder / ANALYSIS)["plots"]
    write_figures(folder, [draw(Plot.of_json(plot)) for plot in plots])
