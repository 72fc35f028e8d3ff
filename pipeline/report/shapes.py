"""What the report takes for granted of each artefact's JSON, checked where the file is read.

A file may be valid JSON and still be damaged: cut and mended by hand, or of another version. Only
what the report reads is asked for; everything else may be there, too.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, model_validator

from pipeline.artefact import PROVENANCE, CorruptArtefactError, read_json

EXPECTED = {
    "dict_type": "a group of keys",
    "model_type": "a group of keys",
    "list_type": "a list",
    "string_type": "text",
    "float_type": "a number",
    "int_type": "a whole number",
    "bool_type": "true or false",
}
"""pydantic's types of error in the words of JSON."""

LONGEST_FOUND = 40
"""Characters of a wrong value that a message shows."""

Reader: TypeAlias = Callable[[Path], Any]


class Facts(BaseModel):
    """Base of every shape: numbers are numbers and no text, further keys are welcome."""

    model_config = ConfigDict(strict=True, extra="allow")


class Selection(Facts):
    """How hyperparameters were chosen."""

    split: str | None = None
    metric: str | None = None


class Scored(Facts):
    """A method in ``metrics.json``."""

    selected: dict[str, Any] | None = None
    temperature: float | None = None
    splits: dict[str, dict[str, float | None]]
    missing: str | None = None


class Metrics(Facts):
    """``metrics.json``"""

    benchmark: str | None = None
    selection: Selection | None = None
    methods: dict[str, Scored]


class Stage(Facts):
    """A stage in ``timing.json``."""

    seconds: float | None = None


class Versions(Facts):
    """``versions.json``"""

    libraries: dict[str, str | None] = {}
    machine: dict[str, Any] = {}


class Curve(Facts):
    """Scores along a path, on every split."""

    splits: dict[str, list[float | None]]


class Fit(Facts):
    """``fit.json``, and what was drawn of a method afterwards."""

    selected: dict[str, Any] | None = None
    certificate: dict[str, Any] | None = None
    notes: list[str] = []
    curve: Curve | None = None
    ridge_curve: Curve | None = None
    ridge_path: list[dict[str, Any]] | None = None


class Column(Facts):
    """A number of kept parameters in ``columns.json``."""

    size: int
    splits: dict[str, dict[str, float | None]]


class Columns(Facts):
    """``columns.json``"""

    columns: list[Column]


class Spectrum(Facts):
    """``spectrum.json``"""

    n: int
    exact: bool
    ranks: list[float]
    eigenvalues: list[float]
    ridges: list[float]
    effective_dimension: list[float]
    effective_dimension_stderr: list[float]

    @model_validator(mode="after")
    def _as_many_ranks_as_eigenvalues(self) -> "Spectrum":
        if len(self.ranks) != len(self.eigenvalues):
            raise ValueError("expected as many ranks as eigenvalues")
        return self


class Difference(Facts):
    """A paired difference between two methods."""

    of: str
    minus: str
    mean: float
    interval: list[float]


class ComparedSplit(Facts):
    """One split in ``comparisons.json``."""

    methods: dict[str, dict[str, Any]]
    intervals: dict[str, dict[str, list[float]]]
    differences: list[Difference]


class Comparisons(Facts):
    """``comparisons.json``"""

    level: float
    resamples: int
    splits: dict[str, ComparedSplit]
    effective_robustness: dict[str, dict[str, Any]]


class Mistake(Facts):
    """A card of ``mistakes.json``."""

    id: str
    confidence: float
    label_probability: float
    taught_by: list[dict[str, Any]]


class Mistakes(Facts):
    """``mistakes.json``"""

    method: str
    splits: dict[str, list[Mistake]]


METRICS = TypeAdapter(Metrics)
TIMING = TypeAdapter(dict[str, Stage])
VERSIONS = TypeAdapter(Versions)
FIT = TypeAdapter(Fit)
COLUMNS = TypeAdapter(Columns)
SPECTRUM = TypeAdapter(Spectrum)
COMPARISONS = TypeAdapter(Comparisons)
MISTAKES = TypeAdapter(Mistakes)
NOTES = TypeAdapter(dict[str, list[str]])
FACTS = TypeAdapter(dict[str, Any])
"""Of files that are shown as they are."""


def reader(shape: TypeAdapter[Any]) -> Reader:
    """A function that reads a JSON file and refuses, by name, one of another shape."""

    def read(path: Path) -> Any:
        found = read_json(path)
        try:
            shape.validate_python(found)
        except ValidationError as error:
            first, *others = error.errors()
            more = f" (and {len(others)} more like it)" if others else ""
            raise CorruptArtefactError(
                f"{path} does not hold what a report needs: {_explained(first)}{more}. "
                f"Delete {_to_delete(path)} and run the same command again."
            ) from None
        return found

    return read


def _explained(error: Mapping[str, Any]) -> str:
    """Where in the file, what was expected there, and what was found."""
    where = ".".join(map(str, error["loc"])) or "the file"
    if error["type"] == "missing":
        return f"{where} is not there"
    if error["type"] == "value_error":
        return f"{where}: {error['ctx']['error']}"
    expected = EXPECTED.get(error["type"], error["msg"])
    return f"{where}: expected {expected}, found {_shortened(json.dumps(error['input']))}"


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST_FOUND else f"{text[:LONGEST_FOUND]} …"


def _to_delete(path: Path) -> str:
    """The folder of a stage, which is made again as a whole; a file of the run by itself."""
    return f"the folder {path.parent}" if (path.parent / PROVENANCE).is_file() else "it"
