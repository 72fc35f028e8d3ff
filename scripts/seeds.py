"""A config's table as a recorded result, over seeds: grids on the first, its choice on the others.

    python scripts/seeds.py configs/cifar100_superclasses.yaml --seeds 0 1 2 \
        --out runs/tables/cifar100_resnet20 --result scripts/results/table_cifar100_resnet20.json

A seed draws the random head, the sketch, and the order, augmentation and untrained weights of what
is trained; images and classes are the config's. Killed, the same command continues.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from pipeline.runs import versions

TRAINED = ("finetune", "lp_ft", "scratch")
"""Rows with a grid of learning rates."""
DRAWN = (*TRAINED, "linear_probe_augmented")
"""Rows that a seed changes."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs, one a seed")
    parser.add_argument("--result", type=Path, help="JSON to write; printed without")
    parser.add_argument("--set", action="append", default=[], help="as in entk run")
    asked = parser.parse_args()
    baselines = yaml.safe_load(asked.config.read_text()).get("baselines", [])
    first = asked.out / f"seed_{asked.seeds[0]}"
    for seed in asked.seeds:
        run = asked.out / f"seed_{seed}"
        at = [tuned(b, seed, first if run != first else None) for b in baselines]
        overrides = [f"model.head.seed={seed}", f"sketch.seed={seed}"]
        # YAML's flow form of the list, on one line.
        overrides += [f"baselines={json.dumps(at)}", *asked.set]
        command = ["entk", "run", str(asked.config), "--out", str(run)]
        command += [word for override in overrides for word in ("--set", override)]
        if code := subprocess.run(command, check=False).returncode:
            sys.exit(code)
    text = json.dumps(table(asked.config, asked.out, asked.seeds), indent=1)
    asked.result.write_text(text + "\n") if asked.result else print(text)


def tuned(baseline: str | dict[str, Any], seed: int, first: Path | None) -> str | dict[str, Any]:
    """A baseline at this seed; its grid is what the run ``first`` chose, where one is given."""
    options: dict[str, Any] = {"kind": baseline} if isinstance(baseline, str) else dict(baseline)
    if options["kind"] not in DRAWN:
        return baseline
    options["seed"] = seed
    if first is not None and options["kind"] in TRAINED:
        chosen = json.loads((first / "fit" / options["kind"] / "fit.json").read_text())["selected"]
        if chosen is None:
            raise SystemExit(f"{options['kind']} diverged in {first}: nothing to take over.")
        options |= {"learning_rates": [chosen["learning_rate"]], "extensions": 0}
    return options


def table(config: Path, out: Path, seeds: Sequence[int]) -> dict[str, Any]:
    """Every method on every split: mean and standard deviation over seeds, and what was chosen."""
    folders = [out / f"seed_{seed}" for seed in seeds]
    runs = [json.loads((folder / "metrics.json").read_text()) for folder in folders]
    methods = list(runs[0]["methods"])
    listed = " ".join(map(str, seeds))
    found: dict[str, Any] = {
        "command": f"python scripts/seeds.py {config} --seeds {listed} --out runs/{out.name}",
        "versions": {k: v for k, v in versions().items() if k != "command"},
        "seeds": list(seeds),
        "methods": {name: over_seeds(name, runs) for name in methods},
        "grids": {name: grid(folders[0], name) for name in TRAINED if name in methods},
        "gcv_misses_by": {seed: gcv_error(run) for seed, run in zip(seeds, folders, strict=True)},
        "seconds": {seed: seconds(run) for seed, run in zip(seeds, folders, strict=True)},
    }
    columns = folders[0] / "columns" / "columns.json"
    if columns.is_file():
        found |= json.loads(columns.read_text())
    if (folders[0] / "outside_span").is_dir():
        comparisons = json.loads((folders[0] / "comparisons" / "comparisons.json").read_text())
        found["outside_span"] = comparisons["outside_span"]
    return found | {"plane": plane(folders[0])}


def plane(run: Path) -> dict[str, Any] | None:
    """Validation accuracy over ridges (rows) and stopping times (columns), where it was made."""
    path = run / "fit" / "entk_early_stopping" / "fit.json"
    found = json.loads(path.read_text())["plane"] if path.is_file() else None
    return found and {key: found[key] for key in ("dynamics", "ridges", "iterations", "values")}


def over_seeds(method: str, runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Accuracy and NLL per split: values in the order of the seeds, mean, standard deviation."""
    found = [run["methods"][method] for run in runs]
    splits: dict[str, Any] = {}
    for split in found[0].get("splits", {}):
        scores = [one["splits"][split] for one in found if "splits" in one]
        splits[split] = {"n": scores[0]["n"], "stderr": scores[0]["stderr"]} | {
            metric: spread([score[metric] for score in scores]) for metric in ("accuracy", "nll")
        }
    return {"selected": [one.get("selected") for one in found], "splits": splits}


def spread(values: Sequence[float]) -> dict[str, Any]:
    """The values, their mean and their standard deviation (none for one value)."""
    sd = statistics.stdev(values) if len(values) > 1 else None
    return {"values": list(values), "mean": statistics.fmean(values), "sd": sd}


def grid(run: Path, method: str) -> list[dict[str, Any]]:
    """Every learning rate that was tried, with its best epoch's accuracy on validation."""
    points: list[dict[str, Any]] = json.loads((run / "fit" / method / "fit.json").read_text())[
        "grid"
    ]
    return points


def gcv_error(run: Path) -> dict[str, float]:
    """By how much GCV misses the squared error of a split, relative, at worst along the ridges."""
    path = json.loads((run / "fit" / "entk" / "fit.json").read_text())["ridge_path"]
    predicted = {point["ridge"]: point["gcv"] for point in path}
    curve = json.loads((run / "curves" / "entk" / "curves.json").read_text())["ridge_curve"]
    return {
        split: max(
            abs(predicted[ridge] / risk - 1)
            for ridge, risk in zip(curve["ridges"], risks, strict=True)
            if ridge in predicted
        )
        for split, risks in curve["risks"].items()
    }


def seconds(run: Path) -> dict[str, float]:
    """Of every stage, as it ran last; of a stage that was killed, what was left of it."""
    timing = json.loads((run / "timing.json").read_text())
    return {stage: facts["seconds"] for stage, facts in timing.items()}


if __name__ == "__main__":
    main()
