"""A synthetic run folder that holds every artefact the report reads."""

from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.artefact import write_json
from pipeline.config import write_yaml

N = {"val": 2000, "id_test": 3000, "ood_test": 3000}
ACCURACY = {
    "linear_probe": (0.395, 0.402, 0.298),
    "finetune": (0.622, 0.627, 0.373),
    "scratch": (0.440, 0.443, 0.292),
    "entk": (0.641, 0.644, 0.376),
    "entk_early_stopping": (0.640, 0.642, 0.379),
}


def scored(share: float, n: int) -> dict[str, float]:
    return {
        "n": n,
        "accuracy": share,
        "balanced_accuracy": share,
        "nll": 2.4 - 2.0 * share,
        "nll_raw": 2.9,
        "brier": 1.0 - share,
        "ece": 0.02 + 0.1 * (1 - share),
        "ece_raw": 0.3,
        "stderr": float(np.sqrt(share * (1 - share) / n)),
        "nll_stderr": 0.02,
    }


def curve(xs: np.ndarray, peak: float, tops: tuple[float, float, float]) -> dict[str, list[float]]:
    bump = np.exp(-0.5 * ((np.log10(xs) - np.log10(peak)) / 2.0) ** 2)
    return {
        split: (top * (0.35 + 0.65 * bump)).round(4).tolist()
        for split, top in zip(N, tops, strict=True)
    }


def fits() -> dict[str, dict[str, Any]]:
    iterations = np.unique(np.geomspace(1, 2000, 40).round()).astype(int)
    ridges = np.geomspace(1e-6, 1e1, 30)
    kernel_certificate = {
        "converged": True,
        "residual": 3.1e-7,
        "iterations": 412,
        "precision": "float64",
    }
    return {
        "entk": {
            "selected": {"ridge": 0.003, "stopping": "converged", "iterations": 412},
            "certificate": kernel_certificate,
            "ridge_path": [{"ridge": float(r), "val": {"accuracy": 0.6}} for r in ridges],
            "ridge_curve": {
                "ridges": ridges.tolist(),
                "splits": curve(ridges, 3e-3, ACCURACY["entk"]),
            },
            "notes": ["the head's own features are 0.4 % of the kernel's trace"],
        },
        "entk_early_stopping": {
            "selected": {"ridge": 1e-5, "stopping": "early", "iterations": 118},
            "certificate": {**kernel_certificate, "converged": True},
            "curve": {
                "iterations": iterations.tolist(),
                "splits": curve(iterations, 118, ACCURACY["entk_early_stopping"]),
            },
        },
        "linear_probe": {
            "selected": {"model": "logistic", "C": 0.1},
            "certificate": {"converged": True, "iterations": 31, "solver": "lbfgs"},
            "ridge_curve": {
                "ridges": (1 / ridges).tolist(),
                "splits": curve(1 / ridges, 10.0, ACCURACY["linear_probe"]),
            },
        },
        "finetune": {
            "selected": {"learning_rate": 0.01, "epoch": 18, "seed": 0},
            "curve": {
                "iterations": list(range(1, 21)),
                "label": "epoch",
                "splits": {"val": np.linspace(0.3, 0.622, 20).tolist()},
            },
            "notes": ["learning rate 0.1 diverged: the loss became inf in epoch 2"],
        },
        "scratch": {"selected": {"learning_rate": 0.03, "epoch": 20}},
    }


def comparisons() -> dict[str, Any]:
    """What the comparisons stage leaves, from a few random predictions."""
    names = list(ACCURACY)
    rng = np.random.default_rng(0)
    splits = {}
    for i, split in enumerate(N):
        pairs = list(combinations(names, 2))
        bins = {
            "counts": rng.integers(0, 400, 15).tolist(),
            "confidence": ((np.arange(15) + 0.5) / 15).tolist(),
            "accuracy": ((np.arange(15) + 0.2) / 15).tolist(),
        }
        same = 0.6 + 0.4 * np.eye(len(names))
        splits[split] = {
            "methods": {name: {"reliability": bins, "reliability_raw": bins} for name in names},
            "intervals": {
                name: {"accuracy": [ACCURACY[name][i] - 0.017, ACCURACY[name][i] + 0.017]}
                for name in names
            },
            "differences": [
                {
                    "of": a,
                    "minus": b,
                    "metric": "accuracy",
                    "mean": ACCURACY[a][i] - ACCURACY[b][i],
                    "interval": [
                        ACCURACY[a][i] - ACCURACY[b][i] - 0.012,
                        ACCURACY[a][i] - ACCURACY[b][i] + 0.012,
                    ],
                }
                for a, b in pairs
            ],
            "agreement": {
                "methods": names,
                "same_class": same.tolist(),
                "error_consistency": (same - 0.1).tolist(),
            },
        }
    line = {"slope": 0.7, "intercept": -0.4, "correlation": 0.97, "points": 35}
    robust = {
        "line": line,
        "methods": {name: 0.01 * i for i, name in enumerate(names)},
        "ridges": {"entk": [[0.5, 0.33], [0.6, 0.36], [0.64, 0.38]]},
    }
    return {
        "level": 0.95,
        "resamples": 2000,
        "splits": splits,
        "effective_robustness": {"ood_test": robust},
    }


def outside_span() -> dict[str, Any]:
    """Accuracy in five groups of test rows; the last has a single row of ID test."""
    splits = {}
    for split, top in (("id_test", 0.7), ("ood_test", 0.5)):
        means = np.linspace(top, 0.3, 5)
        scores = {"mean": means.tolist(), "stderr": [0.02] * 4 + [None]}
        shares = np.linspace(0.15, 0.6, 5).tolist()
        methods = dict.fromkeys(ACCURACY, scores)
        splits[split] = {"n": [600] * 5, "share": shares, "methods": methods}
    facts = {"groups": 5, "rank": 5000, "n": 5000, "tolerance": 1e-6}
    return facts | {"edges": np.linspace(0.1, 0.7, 6).tolist(), "splits": splits}


def spectrum() -> dict[str, Any]:
    ridges = np.geomspace(1e-6, 10, 12)
    return {
        "exact": False,
        "n": 5000,
        "ranks": np.geomspace(1, 5000, 60).tolist(),
        "eigenvalues": np.geomspace(1e3, 1e-4, 60).tolist(),
        "ridges": ridges.tolist(),
        "effective_dimension": (5000 / (1 + 1e3 * ridges)).tolist(),
        "effective_dimension_stderr": np.full(12, 2.0).tolist(),
    }


def planes() -> dict[str, Any]:
    ridges, times = np.geomspace(10, 1e-6, 8).tolist(), [1, 3, 10, 30, 100]
    values = np.linspace(0.1, 0.6, 40).tolist()
    return {"ridges": ridges, "iterations": times, "splits": dict.fromkeys(N, values)}


def write_mistakes(folder: Path) -> None:
    """One mistake on ID test and two on the shift, each taught by two samples, with images."""
    folder.mkdir()
    Image.new("RGB", (32, 32), "teal").save(folder / "000.png")
    teacher = {"id": "train/7", "label": "fish", "image": "000.png", "adds": 0.0213}
    card = {
        "id": "test/12",
        "label": "flowers",
        "predicted": "fish",
        "confidence": 0.987,
        "label_probability": 0.004,
        "image": "000.png",
        "taught_by": [teacher, {**teacher, "adds": -0.001}],
    }
    summed = {**card, "raised_by": 2033.71, "lowered_by": -2032.92}
    listed = {"id_test": [card], "ood_test": [summed, {**card, "image": "lost.png"}]}
    write_json(folder / "mistakes.json", {"method": "entk", "splits": listed})


def config(name: str, benchmark: str) -> dict[str, Any]:
    return {
        "name": name,
        "benchmark": {"kind": benchmark, "path": "/data/cifar100", "seed": 0},
        "model": {"kind": "cifar_resnet", "depth": 20, "head": {"kind": "random", "seed": 0}},
        "sketch": {"kind": "uniform", "size": 100000, "seed": 0},
        "features": {"dtype": "float16", "compute_dtype": "float32", "batch_size": 64},
        "kernel": {"sizes": [1000, 10000]},
        "solver": {"kind": "auto", "ridge": "telescopic", "tol": 1.0e-6},
        "baselines": ["linear_probe", "finetune", "scratch"],
        "outside_span": {"groups": 5},
        "selection": "val",
    }


def write_run(
    folder: Path,
    *,
    benchmark: str = "cifar100_superclasses",
    name: str = "cifar100_superclasses",
    curves: bool = False,
) -> Path:
    """A finished run; without ``curves`` it has few figures, which is quicker to draw."""
    folder.mkdir(parents=True)
    told = comparisons() | ({"outside_span": outside_span()} if curves else {})
    write_json(folder / "comparisons" / "comparisons.json", told)
    (folder / "spectrum").mkdir()
    if curves:
        write_json(folder / "spectrum" / "spectrum.json", spectrum())
        write_json(folder / "curves" / "entk_early_stopping" / "curves.json", {"planes": planes()})
        write_mistakes(folder / "mistakes")
    write_yaml(folder / "config.yaml", config(name, benchmark))
    methods = {}
    for method, everything in fits().items():
        drawn = () if curves else ("curve", "ridge_curve", "ridge_path")
        fit = {key: value for key, value in everything.items() if key not in drawn}
        write_json(folder / "fit" / method / "fit.json", fit)
        write_json(
            folder / "fit" / method / "provenance.json", {"kernel": "ab12", "method": method}
        )
        splits = {
            split: scored(share, n)
            for (split, n), share in zip(N.items(), ACCURACY[method], strict=True)
        }
        methods[method] = {"selected": fit["selected"], "temperature": 0.071, "splits": splits}
    metrics = {
        "benchmark": benchmark,
        "selection": {"split": "val", "metric": "accuracy"},
        "methods": methods,
    }
    write_json(folder / "metrics.json", metrics)
    timing = {
        "features": {
            "seconds": 412.3,
            "rows": 13000,
            "bytes": 2_600_000_000,
            "rows_per_second": 31.5,
        },
        "kernel": {"seconds": 38.1, "bytes": 260_000_000},
        "fit/entk": {"seconds": 92.7},
        "finetune": {"seconds": 3912.0, "runs": 6},
        "evaluate": {"seconds": 1.3},
    }
    write_json(folder / "timing.json", timing)
    versions = {
        "entk": "0.1.0",
        "python": "3.11.7",
        "libraries": {"torch": "2.13.0", "zarr": "3.1.6", "ray": None},
        "machine": {"system": "Linux-6.1", "cores": 2, "memory_bytes": 8 << 30, "gpus": []},
        "command": "entk run configs/cifar100_superclasses.yaml",
    }
    write_json(folder / "versions.json", versions)
    write_json(folder / "plan.json", {"strategy": "kernel in memory", "peak_bytes": 3 << 30})
    write_json(folder / "notes.json", {"network": ["it has seen the target labels"]})
    return folder


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    def make(folder: str = "run", **options: Any) -> Path:
        return write_run(tmp_path / folder, **options)

    return make
