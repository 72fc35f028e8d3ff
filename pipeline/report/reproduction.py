"""Every figure and table of the papers beside what was measured here, as one Markdown page.

One YAML file a paper holds the rows; a row points at values inside recorded results, so that no
figure of ours is typed by hand::

    paper: Maddox et al. 2021, Fast Adaptation with Linearized Neural Networks
    rows:
      - figure: Figure 6
        shows: sinusoids, finite NTK beside rivals
        config: configs/analyses/sinusoids.yaml
        command: entk analyse sinusoids configs/analyses/sinusoids.yaml
        published: finite NTK better than RBF and ABLR (picture)
        results: scripts/results/analyses/sinusoids.json
        ours: {finite NTK RMSE: scores/finite_ntk/rmse, ABLR RMSE: scores/ablr/rmse}
        verdict: agrees
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from pipeline.config import Options, read_yaml, validated
from pipeline.types import InputError


class Row(Options):
    """One figure or table of a paper, and what became of it."""

    figure: str
    """Its number or name in the paper."""
    shows: str
    """What it is about, in a few words."""
    published: str
    """The paper's own numbers or claim."""
    config: str | None = None
    """The config that asks the same question, from the repository's root."""
    command: str | None = None
    """What runs it."""
    results: str | None = None
    """The recorded JSON that ``ours`` points into, from the repository's root."""
    ours: dict[str, str] = Field(default_factory=dict)
    """Label → path of a number in ``results``, keys joined by "/"; an entry of a table is named by
    its facts, ``table/method=ablr&points=30/RMSE``, since its place changes when others join. Under
    a label that ends in "%" the number is shown times 100."""
    verdict: Literal["agrees", "differs", "not run"]
    why: str = ""
    """How it differs or why it was not run; or what a reader of an agreement must know."""

    @model_validator(mode="after")
    def _verdict_has_grounds(self) -> Self:
        if self.verdict != "not run" and not (self.command and self.results and self.ours):
            raise ValueError(f"{self.figure} {self.verdict}: give command, results and ours")
        if self.verdict != "agrees" and not self.why:
            raise ValueError(f"{self.figure} {self.verdict}: say why")
        return self


class Paper(Options):
    """A paper's rows, in its own order."""

    paper: str
    """Authors, year, title."""
    rows: tuple[Row, ...]
    """One for each figure and table."""


def load_papers(folder: Path) -> list[Paper]:
    """The papers in a folder of YAML files, in the order of the files' names."""
    return [validated(Paper, read_yaml(path), str(path)) for path in sorted(folder.glob("*.yaml"))]


def reproduction_page(papers: Sequence[Paper], root: Path) -> str:
    """The Markdown page; configs and results are looked up under ``root``.

    Raises ``InputError`` for a config or result that is not there.
    """
    rows = [row for paper in papers for row in paper.rows]
    counts = [
        f"{sum(row.verdict == v for row in rows)} {v}" for v in ("agrees", "differs", "not run")
    ]
    lines = ["# Every figure and table of the papers", ""]
    lines += [
        "Made by `python scripts/reproduction.py` from `configs/reproduction/*.yaml` and the "
        "recorded results; do not edit.",
        "",
        f"{len(rows)} rows: {', '.join(counts)}.",
    ]
    for paper in papers:
        lines += ["", f"## {paper.paper}", "", _line(HEADINGS), _line(["---"] * len(HEADINGS))]
        lines += [_line(_cells(row, root)) for row in paper.rows]
    return "\n".join(lines) + "\n"


HEADINGS = ("figure", "config and command", "the paper", "ours", "verdict")


def _cells(row: Row, root: Path) -> list[str]:
    found = [f"{label}: {_shown(label, path, row, root)}" for label, path in row.ours.items()]
    if row.results is not None:
        found.append(f"[results](../{_present(row.results, row, root)})")
    ways = []
    if row.config is not None:
        ways.append(f"[{Path(row.config).name}](../{_present(row.config, row, root)})")
    if row.command is not None:
        ways.append(f"`{row.command}`")
    verdict = f"**{row.verdict}**" + (f": {row.why}" if row.why else "")
    figure = f"{row.figure}: {row.shows}"
    return [figure, "<br>".join(ways), row.published, "<br>".join(found), verdict]


def _shown(label: str, path: str, row: Row, root: Path) -> str:
    assert row.results is not None, "a row with values has results"
    value = _at(json.loads((root / _present(row.results, row, root)).read_text()), path, row)
    if label.endswith("%"):
        return f"{100 * value:.1f}"
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}"


def _at(content: Any, path: str, row: Row) -> float:
    for key in path.split("/"):
        try:
            content = _step(content, key)
        except (KeyError, IndexError, ValueError, TypeError):
            raise InputError(f"{row.figure}: {row.results} has nothing at {path!r}.") from None
    if isinstance(content, bool) or not isinstance(content, int | float):
        raise InputError(f"{row.figure}: {row.results} holds no number at {path!r}.")
    return content


def _step(content: Any, key: str) -> Any:
    """The value under a key; of a list, the entry at a place or the one with the facts named."""
    if not isinstance(content, list):
        return content[key]
    if not all(isinstance(entry, dict) for entry in content):
        return content[int(key)]
    facts = dict(fact.split("=", 1) for fact in key.split("&"))
    (found,) = (e for e in content if all(str(e[name]) == facts[name] for name in facts))
    return found


def _present(name: str, row: Row, root: Path) -> str:
    if not (root / name).is_file():
        raise InputError(f"{row.figure} names {name}, which is not there.")
    return name


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
