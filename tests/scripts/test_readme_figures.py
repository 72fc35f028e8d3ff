"""The README's table of ratios says what the recorded results say."""

import json
from pathlib import Path
from typing import Any

import pytest

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


METHODS = {
    "From scratch": "scratch",
    "Linear probing (logistic)": "linear_probe",
    "Linear probing (augmented images)": "linear_probe_augmented",
    "Linear probing (ridge)": "linear_probe_ridge",
    "Fine-tuning": "finetune",
    "LP-FT": "lp_ft",
    "eNTK, early stopping": "entk_early_stopping",
    "eNTK, converged": "entk",
}


TABLES = {
    "entk": ("table_cifar100_resnet20.json", "table_tiny_imagenet_squeezenet.json"),
    "What was found": (
        "table_cifar100_resnet56.json",
        "table_cifar100_resnet20_20000.json",
        "table_cifar100_resnet56_20000.json",
    ),
}
"""By the section's heading: two columns for each file, from left to right."""


@pytest.mark.parametrize("heading", TABLES)
def test_the_tables_of_methods_are_the_recorded_ones(heading: str) -> None:
    recorded = [
        json.loads((ROOT / "scripts/results" / name).read_text()) for name in TABLES[heading]
    ]
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in section(heading).splitlines()
        if line.startswith("| ") and line.split("|")[1].strip() in METHODS
    ]
    assert [row[0] for row in rows] == list(METHODS)
    for label, *cells_said in rows:
        splits = [table["methods"][METHODS[label]]["splits"] for table in recorded]
        found = [one[name]["accuracy"] for one in splits for name in ("id_test", "ood_test")]
        assert cells_said == [over_seeds(score) for score in found], label


def section(heading: str) -> str:
    """The README from this heading to the next."""
    return (ROOT / "README.md").read_text().partition(f"# {heading}\n")[2].partition("\n## ")[0]


def over_seeds(score: dict[str, Any]) -> str:
    """Mean and deviation in percent; the mean alone where no seed plays a part."""
    mean = f"{100 * score['mean']:.1f}"
    return f"{mean} ± {100 * score['sd']:.1f}" if score["sd"] else mean
