"""What every study does around its work: cells that resume, a table, plots, one JSON file.

```text
runs/analyses/NAME/
  config.yaml  versions.json    the resolved config; it runs again as it is
  cells/CELL.json               finished parts, each with what it was made from
  checkpoints/CELL              what a long part has so far
  analysis.json  table.csv      table, notes and plots
  figures/PLOT.svg  .png
```
"""

import importlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar
from urllib.parse import quote

import psutil
from pydantic import AfterValidator, Field

from pipeline.artefact import CorruptArtefactError, read_json, write_json
from pipeline.config import Options
from pipeline.log import BlockDone
from pipeline.report.build import write_figures
from pipeline.report.plots import Plot, draw
from pipeline.runs import RunFolder
from pipeline.stages.job import Progress
from pipeline.studies.findings_table import write_table
from pipeline.types import InputError

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
    options: Mapping[str, Any]
    """The study's options as plain values."""
    progress: Progress

    def cells(
        self,
        makers: Mapping[str, Callable[[], Any]],
        *,
        axes: Sequence[str] = (),
        own: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """The result of every maker, a JSON value; finished ones are read, not made again.

        A cell depends on all options but ``axes``, those that only say which cells there are: its
        name stands for its place on them. ``own`` is what else each was made from, by name.
        """
        made_from = {name: self.made_from(axes, (own or {}).get(name)) for name in makers}
        done = {name: self._known(name, made_from[name]) for name in makers}
        missing = [name for name, value in done.items() if value is None]
        self.progress.start("study", len(makers), len(makers) - len(missing), "cells")
        for number, name in enumerate(missing):
            started = time.perf_counter()
            result = makers[name]()
            seconds = time.perf_counter() - started
            cell = {"made_from": made_from[name], "seconds": seconds, "result": result}
            write_json(self._path(name), cell)
            done[name] = {"result": read_json(self._path(name))["result"]}
            logger.info("%s: %.1f s", name, seconds)
            peak = psutil.Process().memory_info().rss
            self.progress.advance(BlockDone("study", number, 1, seconds, peak))
        self.progress.finish("study")
        return {name: done[name]["result"] for name in makers}

    def made_from(self, axes: Sequence[str] = (), own: Any = None) -> dict[str, Any]:
        """What a cell depends on: the options without ``axes``, and what is its own."""
        left_out = {"name", *axes}
        shared = {key: value for key, value in self.options.items() if key not in left_out}
        return {"options": shared, "own": own}

    def checkpoint(self, name: str) -> Path:
        """Where a long cell keeps what it has so far; whoever writes it checks what made it."""
        folder = self.folder.path / "checkpoints"
        folder.mkdir(exist_ok=True)
        return folder / quote(name, safe=" ,")

    def _path(self, name: str) -> Path:
        return self.folder.path / "cells" / f"{quote(name, safe=' ,')}.json"

    def _known(self, name: str, made_from: Mapping[str, Any]) -> Any:
        if not self._path(name).is_file():
            return None
        found = read_json(self._path(name))
        if not isinstance(found, dict) or not {"made_from", "result"} <= found.keys():
            raise CorruptArtefactError(
                f"{self._path(name)} is damaged (no cell of a study). Delete it and run the "
                "command again."
            )
        return found if found["made_from"] == made_from else None


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
    _refuse_foreign(folder.path)
    with folder.locked():
        (folder.path / "cells").mkdir(exist_ok=True)  # first: it tells the folder from others
        folder.write_config(plain)
        found = study.run(options, Work(folder, plain, progress))
        result = {
            "study": type(options).__name__.removesuffix("Options"),
            "table": found.table,
            "notes": found.notes,
            "numbers": found.numbers,
            "plots": [asdict(plot) for plot in found.plots],
        }
        write_json(folder.path / ANALYSIS, result)
        write_table(folder.path, found.table)
        redraw(folder.path)
    return result


def _refuse_foreign(path: Path) -> None:
    """Raise :class:`InputError` for a folder that holds something, but no study."""
    if not path.is_dir() or (path / "cells").is_dir():
        return
    if any(file.name != ".lock" for file in path.iterdir()):
        raise InputError(
            f"{path} holds files that are no study's: they are not overwritten. Name a new folder "
            "with --out."
        )


def redraw(folder: Path) -> None:
    """The figures of a finished study, from its JSON."""
    plots = read_json(folder / ANALYSIS)["plots"]
    write_figures(folder, [draw(Plot.of_json(plot)) for plot in plots])
