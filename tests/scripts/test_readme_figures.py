"""The README's table of ratios says what the recorded results say."""

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RECORDED = ROOT / "scripts/results/features_cpu_epyc_2core.json"
CONTENDERS = (
    "ours_uniform", "ours_block", "forward_backward_to_input",
    "trak", "vmap_grad", "loop", "opacus",
)  # fmt: skip


def table() -> dict[str, list[str]]:
    """Cells of the README's rows, by the model in their first one."""
    lines = (ROOT / "README.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    models = json.loads(RECORDED.read_text())["runs"]
    return {
        name: row[1:] for name in models for row in rows if row and row[0].startswith(f"`{name}`,")
    }


def cells(run: dict[str, Any]) -> list[str]:
    """What a run's row must say."""
    found = run["contenders"]
    peak = found["ours_uniform"]["peak_to_train_step"]
    ratios = [said(found.get(name)) for name in CONTENDERS]
    return [str(run["batch"]), f"{run['p']:,}", *ratios, f"{peak:.2f}"]


def said(contender: dict[str, Any] | None) -> str:
    """A contender's ratio to the training step, or why there is none."""
    if contender is None:
        return "not measured"
    return "refuses" if "failed" in contender else f"{contender['ratio_to_train_step']:.2f}"


def test_rows_of_ratios_are_those_recorded() -> None:
    runs = json.loads(RECORDED.read_text())["runs"]
    rows = table()
    assert set(rows) == {"resnet50", "cifar_resnet20", "vit_b16", "bert"}
    for name, row in rows.items():
        assert row == cells(runs[name]), name
