"""Keep what a study found: its table and notes as JSON, some of its figures as SVG.

    python scripts/record_study.py runs/analyses/NAME [--figures PLOT PLOT …]

Writes scripts/results/analyses/NAME.json (with the command, the options and the seconds of all
cells together) and scripts/results/analyses/NAME_PLOT.svg.
"""

import argparse
import json
import os
import shutil
from pathlib import Path
from typing import Any

import yaml

RESULTS = Path(__file__).parent / "results" / "analyses"
DIGITS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--figures", nargs="*", default=[], help="plots whose SVG is kept")
    arguments = parser.parse_args()
    folder: Path = arguments.folder
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{folder.name}.json").write_text(recorded(folder))
    for plot in arguments.figures:
        drawn = folder / "figures" / f"{plot}.svg"
        shutil.copyfile(drawn, RESULTS / f"{folder.name}_{plot}.svg")


def recorded(folder: Path) -> str:
    """One JSON text, a row of the table on every line."""
    found = json.loads((folder / "analysis.json").read_text())
    cells = [json.loads(path.read_text()) for path in (folder / "cells").glob("*.json")]
    seconds = [cell.get("seconds") for cell in cells]
    head = {
        "study": found["study"],
        "command": f"entk analyse {command_of(found)} configs/analyses/{folder.name}.yaml",
        "options": yaml.safe_load(portable((folder / "config.yaml").read_text())),
        "seconds_of_cells": None if None in seconds else round(sum(seconds), 1),
        "notes": found["notes"],
        "numbers": rounded(found["numbers"]),
    }
    lines = [f" {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}," for key, value in
             head.items()]  # fmt: skip
    rows = [f"  {json.dumps(rounded(row), ensure_ascii=False)}" for row in found["table"]]
    return "\n".join(["{", *lines, ' "table": [', ",\n".join(rows), " ]", "}"]) + "\n"


def portable(text: str) -> str:
    """The text with the data's folder under its name."""
    data = os.environ.get("ENTK_DATA")
    return text.replace(data, "${ENTK_DATA}") if data else text


def command_of(found: dict[str, Any]) -> str:
    """PseudoKernel → pseudo_kernel."""
    name: str = found["study"]
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")


def rounded(row: dict[str, Any]) -> dict[str, Any]:
    """The row with floats of a few digits."""
    return {
        key: float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value
        for key, value in row.items()
    }


if __name__ == "__main__":
    main()
