"""A run's artefacts as one record, with what is missing and why.

Whatever has been finished is read; nothing is computed again and nothing is required but the
folder itself, for a half-finished run deserves a report too.
"""

import csv
import hashlib
import io
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from pipeline.artefact import PROVENANCE, digest
from pipeline.config import read_yaml
from pipeline.report import shapes
from pipeline.report.shapes import Reader, reader
from pipeline.runs import RunFolder
from pipeline.types import InputError

METHOD_LABELS = {
    "scratch": "From scratch",
    "linear_probe": "Linear probing",
    "linear_probe_ridge": "Linear probing (ridge)",
    "linear_probe_augmented": "Linear probing (augmented)",
    "finetune": "Fine-tuning",
    "lp_ft": "LP-FT",
    "entk_early_stopping": "eNTK, early stopping",
    "entk": "eNTK, converged",
    "entk_gp": "eNTK, Gaussian process",
}
"""Known methods in the order of the poster's table; others follow under their own name."""

SPLIT_LABELS = {"val": "Validation", "id_test": "ID test", "ood_test": "OOD test"}


@dataclass(frozen=True)
class Method:
    """What is known of one method."""

    name: str
    selected: dict[str, Any] | None = None
    splits: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Metrics by split; ``intervals`` among them are the bootstrap's, by metric."""
    temperature: float | None = None
    fit: dict[str, Any] = field(default_factory=dict)
    """``fit.json``, with the curves that were computed after the choice."""
    missing: str | None = None
    """Why it has no metrics."""

    @property
    def label(self) -> str:
        """The name as the table prints it."""
        return METHOD_LABELS.get(self.name, self.name.replace("_", " "))


@dataclass(frozen=True)
class Samples:
    """The rows of a split."""

    n: int
    sha256: str
    """Of the list of samples, so that equal splits are known as such."""


@dataclass(frozen=True)
class Run:
    """Everything the report shows of one run folder."""

    folder: Path
    config: dict[str, Any]
    metrics: dict[str, Any]
    timing: dict[str, dict[str, Any]]
    """Each stage's seconds, rates and bytes, those of variants' own kernels included."""
    versions: dict[str, Any]
    methods: list[Method]
    provenance: dict[str, dict[str, Any]]
    """Provenance of each finished artefact, by its path inside the folder."""
    plan: dict[str, Any]
    """What the planner fixed before work started."""
    columns: list[dict[str, Any]]
    """Scores by the number of kept parameters, ascending: size, ridge, splits."""
    spectrum: dict[str, Any]
    """K's eigenvalues by rank, and the effective dimension over the ridges; empty if not drawn."""
    comparisons: dict[str, Any]
    """Intervals, paired differences, agreement, reliability, effective robustness; or empty."""
    mistakes: dict[str, Any]
    """The most confident mistakes by split, or empty."""
    remarks: list[tuple[str, str]]
    """Remarks on network and benchmark (``notes.json``), as (subject, remark)."""
    missing: list[str]
    """One sentence for each piece that is not there: what, and why."""
    samples: dict[str, Samples] = field(default_factory=dict)
    """The rows of each split, where the run has listed them (``manifests/``)."""
    told_apart_by: str = ""
    """Part of the folder that tells the run from another of the same name."""

    @property
    def name(self) -> str:
        """The run's name, with what tells it apart from another of the same name."""
        name = str(self.config.get("name") or self.folder.resolve().name)
        return f"{name} ({self.told_apart_by})" if self.told_apart_by else name

    @property
    def benchmark(self) -> str:
        """The benchmark's kind."""
        declared = self.config.get("benchmark") or {}
        return str(self.metrics.get("benchmark") or declared.get("kind") or "unknown benchmark")

    @property
    def selection(self) -> str:
        """The split on which hyperparameters were chosen."""
        chosen = self.metrics.get("selection") or {}
        return str(chosen.get("split") or self.config.get("selection") or "val")

    @property
    def selection_phrase(self) -> str:
        """The selection split as a sentence names it."""
        return f"the {split_label(self.selection).replace('Validation', 'validation')} split"

    @property
    def metric(self) -> str:
        """The leading metric: ``accuracy`` or ``mse``."""
        return str((self.metrics.get("selection") or {}).get("metric") or "accuracy")

    @property
    def splits(self) -> list[str]:
        """Every split that some method was scored on, validation first and shifts last."""
        return ordered_splits({split for method in self.methods for split in method.splits})

    def lead(self, of: str, minus: str, split: str) -> tuple[float, float, float] | None:
        """A method's mean lead over another on the same rows, and its interval's two ends."""
        pairs = self.comparisons.get("splits", {}).get(split, {}).get("differences", ())
        for pair in pairs:
            low, high = pair["interval"]
            if (pair["of"], pair["minus"]) == (of, minus):
                return pair["mean"], low, high
            if (pair["of"], pair["minus"]) == (minus, of):
                return -pair["mean"], -high, -low
        return None

    @property
    def awaited_splits(self) -> list[str]:
        """The splits that methods will be scored on, by the lists of their samples."""
        return ordered_splits(set(self.samples) - {"train", "pretrain"})

    @property
    def notes(self) -> list[tuple[str, str]]:
        """Every warning and remark: on network and benchmark, then on the fits."""
        fits = [(m.label, str(note)) for m in self.methods for note in m.fit.get("notes") or ()]
        return [*self.remarks, *fits]


def read_run(folder: Path) -> Run:
    """The record of one run folder."""
    paths = RunFolder(folder)
    if not (paths.config.is_file() or paths.metrics.is_file()):
        raise InputError(
            f"{folder} is no run folder: it holds neither config.yaml nor metrics.json. "
            "Give the folder that `entk run` printed."
        )
    missing: list[str] = []
    config = _read(paths.config, read_yaml, missing, "the config cannot be shown")
    metrics = _read(
        paths.metrics,
        reader(shapes.METRICS),
        missing,
        "evaluation has not run, no cell is filled",
    )
    timing = _read(paths.timing, reader(shapes.TIMING), missing, "no stage has finished")
    asked = _asked(paths, config, metrics)
    timing = _of_this_run(timing, paths, config, asked) if config else timing
    variants = config.get("variants") or {}
    timing = _with_variants(timing, folder, variants)
    versions = _read(
        paths.versions, reader(shapes.VERSIONS), missing, "versions and hardware are unknown"
    )
    comparisons = _optional(paths.comparisons / "comparisons.json", shapes.COMPARISONS)
    methods = [
        replace(method, splits=_with_comparisons(method, comparisons))
        for method in _methods(paths, metrics, asked, variants)
    ]
    missing += _missing_cells(methods)
    missing += _missing_pieces(paths) if metrics else []
    provenance = {
        str(file.parent.relative_to(folder)): reader(shapes.FACTS)(file)
        for file in sorted(folder.glob(f"**/{PROVENANCE}"))
        if ".partial" not in str(file)
    }
    columns = _optional(paths.columns / "columns.json", shapes.COLUMNS).get("columns", [])
    return Run(
        folder=folder,
        config=config,
        metrics=metrics,
        timing=timing,
        versions=versions,
        methods=methods,
        provenance=provenance,
        plan=_optional(paths.plan, shapes.FACTS),
        columns=columns if _sizes(config) or not config else [],
        spectrum=_optional(paths.spectrum / "spectrum.json", shapes.SPECTRUM),
        comparisons=comparisons,
        mistakes=_optional(paths.mistakes / "mistakes.json", shapes.MISTAKES),
        remarks=_remarks(folder / "notes.json"),
        missing=missing,
        samples={file.stem: _samples(file) for file in sorted(paths.manifests.glob("*.csv"))},
    )


def ordered_splits(splits: set[str]) -> list[str]:
    """Validation, ID test, OOD test, then the other splits by name."""
    known = list(SPLIT_LABELS)
    return sorted(splits, key=lambda s: (known.index(s) if s in known else len(known), s))


def split_label(split: str) -> str:
    """A split's name as a column heads it."""
    if split in SPLIT_LABELS:
        return SPLIT_LABELS[split]
    words = split.removeprefix("ood_").replace("_", " ")
    return f"OOD {words}" if split.startswith("ood_") else words.capitalize()


def short_digest(provenance: Mapping[str, Any]) -> str:
    """The first twelve digits of a provenance's SHA-256."""
    return digest(provenance)[:12]


def _read(path: Path, read: Reader, missing: list[str], consequence: str) -> dict[str, Any]:
    if path.is_file():
        return dict(read(path))
    missing.append(f"{path.name} is not there: {consequence}.")
    return {}


def _remarks(path: Path) -> list[tuple[str, str]]:
    subjects = _optional(path, shapes.NOTES)
    return [(subject.capitalize(), str(n)) for subject, notes in subjects.items() for n in notes]


def _optional(path: Path, shape: TypeAdapter[Any]) -> dict[str, Any]:
    return dict(reader(shape)(path)) if path.is_file() else {}


def _samples(manifest: Path) -> Samples:
    content = manifest.read_bytes()
    rows = sum(1 for _ in csv.reader(io.StringIO(content.decode(), newline=""))) - 1
    return Samples(rows, hashlib.sha256(content).hexdigest())


def _with_variants(
    timing: Mapping[str, dict[str, Any]], folder: Path, variants: Collection[str]
) -> dict[str, dict[str, Any]]:
    """The stages' figures, before a variant's own stage those of the kernels made for it.

    Its members run in folders of their own and keep their time there.
    """
    read = reader(shapes.TIMING)
    own: dict[str, dict[str, Any]] = {}
    for variant in variants:
        for file in sorted((folder / "variants" / variant).glob("*/timing.json")):
            member = "" if file.parent.name == "0" else f" {file.parent.name}"
            stages = {f"{variant}{member}: {stage}": facts for stage, facts in read(file).items()}
            own[variant] = own.get(variant, {}) | stages
    result: dict[str, dict[str, Any]] = {}
    for stage, facts in timing.items():
        result |= own.pop(stage, {}) | {stage: facts}
    # A variant that was interrupted has no stage of its own yet.
    for stages in own.values():
        result |= stages
    return result


def _with_comparisons(method: Method, comparisons: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """A method's metrics by split, with their intervals and the height above the probit line."""
    splits: dict[str, dict[str, Any]] = {}
    for split, facts in method.splits.items():
        compared = comparisons.get("splits", {}).get(split, {})
        heights = comparisons.get("effective_robustness", {}).get(split, {}).get("methods", {})
        splits[split] = {**facts, "intervals": compared.get("intervals", {}).get(method.name, {})}
        if method.name in heights:
            splits[split]["effective_robustness"] = heights[method.name]
    return splits


def _missing_pieces(paths: RunFolder) -> list[str]:
    """What a finished evaluation would have been followed by."""
    followed = {
        paths.comparisons: "no intervals, differences, reliability diagrams or probit line",
        paths.spectrum: "no spectrum of K",
    }
    return [
        f"{path.name} has not run: {consequence}. Repeat `entk run` with this folder's config."
        for path, consequence in followed.items()
        if not path.is_dir()
    ]


def _asked(paths: RunFolder, config: Mapping[str, Any], metrics: Mapping[str, Any]) -> set[str]:
    """The methods of a run: those its config names, both kernel machines, and what was scored.

    A folder may hold fits of an earlier config, too: they are no part of this run.
    """
    asked = set(metrics.get("methods") or ())
    if not config:
        return asked | _fitted(paths)
    asked |= {_kind(baseline) for baseline in config.get("baselines") or ()}
    asked |= set(config.get("variants") or ())
    # A half-finished run was asked for both kernel machines, whatever else its config names.
    asked |= set() if metrics else {"entk", "entk_early_stopping"}
    if config.get("gp") is not None:
        asked.add("entk_gp")
    return asked


def _fitted(paths: RunFolder) -> set[str]:
    return {file.parent.name for file in (paths.path / "fit").glob("*/fit.json")}


def _of_this_run(
    timing: Mapping[str, dict[str, Any]],
    paths: RunFolder,
    config: Mapping[str, Any],
    asked: Collection[str],
) -> dict[str, dict[str, Any]]:
    """The stages' figures without those of methods and figures that only an earlier config had."""
    gone = (_fitted(paths) | set(METHOD_LABELS)) - set(asked)
    gone |= set() if _sizes(config) else {"columns"}
    gone |= set() if config.get("outside_span") is not None else {"outside_span"}
    return {stage: facts for stage, facts in timing.items() if not gone & set(stage.split())}


def _sizes(config: Mapping[str, Any]) -> Any:
    return (config.get("kernel") or {}).get("sizes")


def _methods(
    paths: RunFolder,
    metrics: Mapping[str, Any],
    asked: Collection[str],
    variants: Collection[str],
) -> list[Method]:
    """In the order of the poster's table, then of the config's variants."""
    scored = metrics.get("methods") or {}
    fitted = _fitted(paths)
    order = [*METHOD_LABELS, *variants]
    names = sorted(asked, key=lambda n: (order.index(n) if n in order else len(order), n))
    return [_method(paths, name, scored.get(name), name in fitted) for name in names]


def _method(
    paths: RunFolder, name: str, scored: Mapping[str, Any] | None, is_fitted: bool
) -> Method:
    read = reader(shapes.FIT)
    fit = read(paths.fit(name) / "fit.json") if is_fitted else {}
    for file in sorted(paths.curves(name).glob("*.json")):
        if file.name != PROVENANCE:
            fit = {**fit, **read(file)}
    if scored is None:
        reason = fit.get("reason") or fit.get("status")
        reason = reason or ("fitted, not evaluated yet" if is_fitted else "not run yet")
        return Method(name, selected=fit.get("selected"), fit=fit, missing=str(reason))
    return Method(
        name,
        selected=scored.get("selected") or fit.get("selected"),
        splits=dict(scored.get("splits") or {}),
        temperature=scored.get("temperature"),
        fit=fit,
        missing=scored.get("missing"),
    )


def _missing_cells(methods: list[Method]) -> list[str]:
    splits = ordered_splits({split for method in methods for split in method.splits})
    sentences = []
    for method in methods:
        if method.missing:
            sentences.append(f"{method.label}: {method.missing}.")
            continue
        absent = [split_label(split) for split in splits if split not in method.splits]
        if absent:
            sentences.append(f"{method.label}: no predictions on {', '.join(absent)}.")
    return sentences


def _kind(baseline: Any) -> str:
    return str(baseline.get("kind")) if isinstance(baseline, Mapping) else str(baseline)
