"""``report.html`` and ``report.md`` of one run, and the page that compares several."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from pipeline.artefact import atomic_path
from pipeline.report import comparison, results, words
from pipeline.report.drawing import Drawn
from pipeline.report.gallery import galleries, gallery_method
from pipeline.report.record import Run, ordered_splits, read_run, short_digest, split_label
from pipeline.report.sections import Section, all_sections
from pipeline.report.shift_figures import comparison_figure
from pipeline.report.svg import inline_svg, png_file, svg_file
from pipeline.report.tables import latex, metrics_csv, table_files
from pipeline.types import InputError

FIGURES = "figures"
TABLES = "tables"


def build_report(folder: Path) -> Path:
    """Write ``report.md``, ``report.html``, ``figures/`` and ``tables/``; the page's path.

    A run that is not finished gets its report too: what is missing stands in it, with the reason.
    """
    run = read_run(folder)
    sections = all_sections(run)
    write_figures(folder, [figure for section in sections for figure in section.figures])
    write_tables(folder / TABLES, table_files(run))
    content = _content(run, sections)
    render(folder / "report.md", "report.md.j2", content)
    page = folder / "report.html"
    render(page, "report.html.j2", content)
    return page


def write_tables(folder: Path, files: Mapping[str, str]) -> None:
    """Write tables into a folder; those of before are removed."""
    for stale in folder.glob("*.*"):
        stale.unlink()
    for name, text in files.items():
        _write(folder / name, text)


def write_figures(folder: Path, figures: Sequence[Drawn]) -> None:
    """Write ``figures/NAME.svg`` and ``.png`` into a folder; those of before are removed."""
    for stale in (folder / FIGURES).glob("*.*"):
        stale.unlink()
    for drawn in figures:
        _write(folder / FIGURES / f"{drawn.name}.svg", svg_file(drawn.figure, drawn.name))
        _write(folder / FIGURES / f"{drawn.name}.png", png_file(drawn.figure))


def copy_report(folder: Path, page: Path) -> Path:
    """Write a run's report, and its page, which is one file, to another place too."""
    _write(page, build_report(folder).read_bytes())
    return page


def compare(folders: Sequence[Path], page: Path) -> Path:
    """Write one page that sets several runs side by side; the page's path.

    Beside it, under its name, lie the figures as CSV, the table as LaTeX, the charts as SVG and
    PNG. Runs on different benchmarks are refused: their accuracies do not compare.
    """
    folders, notes = comparison.distinct_folders(folders)
    runs = comparison.told_apart([read_run(folder) for folder in folders])
    benchmarks = sorted({run.benchmark for run in runs})
    if len(benchmarks) != 1:
        raise InputError(
            f"runs to compare must share one benchmark, found {', '.join(benchmarks) or 'no run'}. "
            "Compare them in groups."
        )
    differing = comparison.differing_splits(runs)
    figures = _comparison_figures(runs)
    table = results.comparison_table(runs, differing)
    _write(page.with_suffix(".csv"), metrics_csv(runs))
    _write(page.with_suffix(".tex"), latex(table))
    for shift, figure in figures.items():
        stem = page.stem if shift == "ood_test" else f"{page.stem}-{shift}"
        _write(page.with_name(f"{stem}.svg"), svg_file(figure.figure, figure.name))
        _write(page.with_name(f"{stem}.png"), png_file(figure.figure))
    splits, leads = comparison.lead_rows(runs)
    content = {
        "benchmark": benchmarks[0],
        "table": table,
        "figures": [_element(figure) for figure in figures.values()],
        "runs": [(run, str(run.folder), comparison.counts_in_words(run)) for run in runs],
        "selections": sorted({run.selection_phrase for run in runs}),
        "notes": notes,
        "differing": [split_label(split) for split in differing],
        "lead_splits": [split_label(split) for split in splits],
        "leads": leads,
        "level": comparison.LEVEL_IN_WORDS,
        "missing": [f"{run.name}: {sentence}" for run in runs for sentence in run.missing],
    }
    render(page, "compare.html.j2", content)
    return page


def _comparison_figures(runs: Sequence[Run]) -> dict[str, Drawn]:
    """One chart a shift that any of the runs was scored on."""
    shifts = ordered_splits({s for run in runs for s in run.splits if s.startswith("ood")})
    figures = {}
    for shift in shifts:
        drawn = comparison_figure(runs, shift)
        if drawn is not None:
            title = f"{split_label(shift)} against in distribution"
            figures[shift] = replace(drawn, name=f"comparison-{shift}", title=title)
    return figures


def _content(run: Run, sections: Sequence[Section]) -> dict[str, Any]:
    return {
        "run": run,
        "headline": words.headline(run),
        "table": results.results_table(run),
        "beyond": results.beyond_table(run),
        "calibration": results.calibration_table(run),
        "sections": [
            {
                "anchor": section.anchor,
                "title": section.title,
                "figures": [_element(figure) for figure in section.figures],
            }
            for section in sections
        ],
        "galleries": galleries(run),
        "gallery_method": gallery_method(run),
        "tables": f"{TABLES}/",
        "certificates": [
            (m.label, words.certificate(m)) for m in run.methods if m.fit.get("certificate")
        ],
        "stages": _stages(run),
        "config_text": _text(run.folder / "config.yaml"),
        "facts": words.facts(run),
        "plan": json.dumps(run.plan, indent=2, ensure_ascii=False) if run.plan else "",
        "provenance": [
            (path, short_digest(value), json.dumps(value, indent=2, ensure_ascii=False))
            for path, value in run.provenance.items()
        ],
    }


def _element(drawn: Drawn) -> dict[str, Any]:
    svg = Markup(inline_svg(drawn.figure, drawn.name, drawn.title))
    file = f"{FIGURES}/{drawn.name}.svg"
    return {"title": drawn.title, "caption": drawn.caption, "svg": svg, "file": file}


def _stages(run: Run) -> list[dict[str, Any]]:
    """Each stage's seconds, their share of the longest, and its other figures in words."""
    longest = max((facts.get("seconds") or 0.0 for facts in run.timing.values()), default=0.0)
    return [
        {
            "name": stage,
            "seconds": float(facts.get("seconds") or 0.0),
            "share": 100.0 * float(facts.get("seconds") or 0.0) / longest if longest else 0.0,
            "bytes": [words.quantity(k, v) for k, v in facts.items() if "bytes" in k and v],
            "details": [
                words.quantity(key, value)
                for key, value in facts.items()
                if key != "seconds" and "bytes" not in key and isinstance(value, int | float | str)
            ],
        }
        for stage, facts in run.timing.items()
    ]


def render(path: Path, template: str, content: Mapping[str, Any]) -> None:
    """Write a page of this package's templates, atomically."""
    _write(path, _environment().get_template(template).render(content))


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pipeline.report"),
        autoescape=jinja2.select_autoescape(["html.j2"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["duration"] = words.duration
    return environment


def _text(path: Path) -> str:
    return path.read_text() if path.is_file() else ""


def _write(path: Path, content: str | bytes) -> None:
    with atomic_path(path) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)
