"""A ranking of backbones for one task before any is fine-tuned, against fine-tuning them all."""

from functools import partial
from typing import Any, Literal

import numpy as np
from pydantic import Field
from scipy import stats
from torch import nn

from pipeline.analyses.transfer import learning_curve, transferability
from pipeline.baselines.linear_probe import logistic_path
from pipeline.baselines.training import Recipe
from pipeline.gram import gram
from pipeline.models.head import with_head
from pipeline.registry import BenchmarkOptions, ModelOptions, build_backbone, build_network
from pipeline.report.plots import Panel, Plot, Series
from pipeline.solvers import KernelRidge
from pipeline.solvers.eigh import eigh_system
from pipeline.solvers.operator import DenseKernel
from pipeline.solvers.targets import class_targets
from pipeline.studies.backbones import features_of, outputs_of, with_new_head
from pipeline.studies.images import Labelled, load_splits
from pipeline.studies.study import Findings, Rates, Study, StudyOptions, Work
from pipeline.studies.training import trained
from pipeline.types import InputError

PREDICTORS = ("label alignment", "GCV", "leave-one-out, %", "probe, %")
"""What ranks before fine-tuning; GCV ranks from small to large."""
AXES = ("models", "tune_rates")
"""Options that say which cells there are."""
MEASURED_ROWS = 1_000
"""Rows that the squared error is measured on, at most."""
CURVE_RIDGE = 1e-3
"""Of the learning curve, relative to the mean of K's diagonal."""


class TransferOptions(StudyOptions):
    """Rank backbones for a task."""

    benchmark: BenchmarkOptions
    """The target task."""
    models: dict[str, ModelOptions]
    """Backbones by name."""
    train: int = Field(default=1_000, ge=10)
    """Training images."""
    sketch_size: int | None = Field(default=50_000, ge=1)
    """Parameters kept of each."""
    tune_epochs: int = Field(default=20, ge=1)
    """Epochs of the fine-tuning that is the truth."""
    tune_rates: Rates = (0.01,)
    """First step sizes; the best on validation counts."""
    augmentation: bool = True
    """Random crops and flips while fine-tuning."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of fine-tuning's passes."""
    split: str = "id_test"
    """Where the truth is measured."""
    seed: int = 0
    """Of heads and orders."""


def run(options: TransferOptions, work: Work) -> Findings:
    """One row a backbone, and the rank correlation of every predictor with the truth."""
    if len(options.models) < 3:
        raise InputError("a ranking needs three backbones or more.", "models")
    data = load_splits(options.benchmark, "train", "val", options.split)
    data["train"] = data["train"].first(options.train, "train")
    makers: dict[str, Any] = {
        f"before {n}": partial(_before, options, data, n) for n in options.models
    }
    own = {f"before {name}": model for name, model in work.options["models"].items()}
    for name in options.models:
        makers[f"risk {name}"] = partial(_risks, options, data, name)
        own[f"risk {name}"] = work.options["models"][name]
        for rate in options.tune_rates:
            cell = f"{name}, tuned at {rate:g}"
            made_from = work.made_from(AXES, work.options["models"][name])
            makers[cell] = partial(_tuned, options, work, data, name, rate, made_from)
            own[cell] = work.options["models"][name]
    found = work.cells(makers, axes=AXES, own=own)
    before = {name: found[f"before {name}"] for name in options.models}
    table = []
    for name, row in before.items():
        runs = [found[f"{name}, tuned at {rate:g}"] for rate in options.tune_rates]
        risk = found[f"risk {name}"][-1]
        table.append(
            {
                "backbone": name,
                **row["figures"],
                "squared error": risk["measured"],
                **_best(runs),
            }
        )
    risks = {name: found[f"risk {name}"] for name in options.models}
    worst = max(abs(at["GCV"] / at["measured"] - 1) for rows in risks.values() for at in rows)
    ranks = {name: _correlations(name, table) for name in PREDICTORS}
    notes = [
        f"{name.removesuffix(', %')} ranks {len(table)} backbones with Spearman {rho:.2f}, "
        f"Kendall {tau:.2f} to fine-tuning"
        for name, (rho, tau) in ranks.items()
    ]
    notes.append(
        f"GCV misses the squared error on {options.split} by {worst:.1%} at most, over "
        f"{len(options.models)} backbones and several numbers of training images"
    )
    numbers = {f"Spearman, {name.removesuffix(', %')}": rho for name, (rho, _) in ranks.items()}
    numbers["GCV misses by"] = worst
    return Findings(table, [*_plots(before, table), _risk_plot(options, risks)], notes, numbers)


def _before(options: TransferOptions, data: dict[str, Labelled], name: str) -> dict[str, Any]:
    """What is known of a backbone before it is fine-tuned."""
    samples, test = data["train"], data[options.split]
    labels = samples.labels.numpy()
    network = build_network(options.models[name])
    features = features_of(network, samples.x, options.sketch_size)
    K, targets = gram(features.source), class_targets(labels, samples.k)
    found = transferability(K, targets, labels)
    probe = _probe_accuracy(network, samples, test)
    return {
        "figures": {
            "label alignment": found.label_alignment,
            "GCV": found.gcv,
            "leave-one-out, %": 100 * found.loo_accuracy,
            "effective dimension": found.effective_dimension,
            "probe, %": 100 * probe,
        },
        "curve": _curves(K, targets.matrix, samples.k),
    }


def _risks(options: TransferOptions, data: dict[str, Labelled], name: str) -> list[dict[str, Any]]:
    """GCV of the training rows and the squared error that it predicts, over their number."""
    samples, test = data["train"], data[options.split]
    test = test.part(0, MEASURED_ROWS)
    network = build_network(options.models[name])
    features, others = (features_of(network, x, options.sketch_size) for x in (samples.x, test.x))
    K, K_test = gram(features.source), gram(others.source, features.source)
    found = []
    for n in sorted({len(samples) // 4, len(samples) // 2, len(samples)}):
        labels = samples.labels[:n].numpy()
        targets = class_targets(labels, samples.k)
        told = transferability(K[:n, :n], targets, labels)
        machine = KernelRidge(told.ridge, ridge_scale="absolute")
        machine.fit(K[:n, :n], targets.matrix)
        missed = machine.predict(K_test[:, :n]) + targets.mean.numpy() - test.one_hot().numpy()
        found.append({"n": n, "GCV": told.gcv, "measured": float((missed**2).mean())})
    return found


def _probe_accuracy(network: Any, samples: Labelled, test: Labelled) -> float:
    """Logistic regression on penultimate features, at the strength that suits them usually."""
    body = with_new_head(network, nn.Identity())
    z, z_test = outputs_of(body, samples.x).numpy(), outputs_of(body, test.x).numpy()
    models, _ = logistic_path(z, samples.labels.numpy(), [1e-2, 1e-1, 1.0], 200)
    return models[-1].merit(z_test, test.labels.numpy())


def _tuned(
    options: TransferOptions,
    work: Work,
    data: dict[str, Labelled],
    name: str,
    rate: float,
    made_from: dict[str, Any],
) -> dict[str, float]:
    """The whole network fine-tuned at one step size; its best epoch on validation."""
    samples, test = data["train"], data[options.split]
    backbone = build_backbone(options.models[name])
    module = with_head(backbone, "random", samples.k, options.seed).module
    recipe = Recipe(
        learning_rate=rate,
        epochs=options.tune_epochs,
        batch_size=64,
        seed=options.seed,
        augmentation="crop_flip" if options.augmentation else "none",
        precision=options.precision,
    )
    outcome = trained(work, f"{name}, {rate:g}", module, data, recipe, made_from)
    if outcome.best_state is None:
        return {"rate": rate, "val": 0.0, "test": 0.0}
    module.load_state_dict(outcome.best_state)
    found = outputs_of(module.eval(), test.x).argmax(dim=1)
    hits = float((found == test.labels).double().mean())
    return {"rate": rate, "val": outcome.best_accuracy, "test": hits}


def _best(runs: list[dict[str, float]]) -> dict[str, float]:
    """The step size that validation chooses, and the truth that it gives."""
    best = max(runs, key=lambda run: run["val"])
    return {"fine-tuned, %": 100 * best["test"], "step size": best["rate"]}


def _curves(K: np.ndarray, Y: Any, k: int) -> dict[str, list[float]]:
    """Squared error over n: predicted from the spectrum of all rows, and measured on held-out ones.

    The last fifth of the rows is measured on; the spectrum is that of the others.
    """
    n = len(K) * 4 // 5
    ridge = CURVE_RIDGE * float(np.trace(K)) / len(K)
    system = eigh_system(DenseKernel(K[:n, :n]), Y[:n])
    sizes = sorted({int(s) for s in np.geomspace(max(k, n // 20), n, 6)})
    predicted = learning_curve(system.eigenvalues, system.coordinates, sizes, ridge)
    measured = []
    for size in sizes:
        machine = KernelRidge(ridge, ridge_scale="absolute", solver="cholesky")
        machine.fit(K[:size, :size], Y[:size])
        error = machine.predict(K[n:, :size]) - Y[n:].numpy()
        measured.append(float((error**2).sum(axis=1).mean()))
    return {"sizes": [float(s) for s in sizes], "predicted": list(predicted), "measured": measured}


def _correlations(predictor: str, table: list[dict[str, Any]]) -> tuple[float, float]:
    """Spearman's and Kendall's rank correlation with fine-tuning."""
    sign = -1 if predictor == "GCV" else 1
    values = [sign * row[predictor] for row in table]
    truth = [row["fine-tuned, %"] for row in table]
    rho, tau = stats.spearmanr(values, truth), stats.kendalltau(values, truth)
    return float(rho.statistic), float(tau.statistic)


def _plots(found: dict[str, Any], table: list[dict[str, Any]]) -> list[Plot]:
    truth = [row["fine-tuned, %"] for row in table]
    ranking = [
        Series(row["backbone"], [row["leave-one-out, %"]], [value], style="points")
        for row, value in zip(table, truth, strict=True)
    ]
    curves = []
    for name, row in found.items():
        curve = row["curve"]
        curves.append(Series(f"{name}, predicted", curve["sizes"], curve["predicted"]))
        points = Series(f"{name}, measured", curve["sizes"], curve["measured"], style="points")
        curves.append(points)
    return [
        Plot(
            "ranking",
            "Backbones before and after fine-tuning",
            "Leave-one-out accuracy of the kernel on the training images, nothing fine-tuned.",
            [Panel("leave-one-out accuracy, %", "fine-tuned accuracy, %", ranking)],
        ),
        Plot(
            "curves",
            "Learning curves from the spectrum",
            "Squared error of the regression: predicted from spectrum and targets, and measured.",
            [Panel("training images", "squared error", curves, xlog=True)],
        ),
    ]


def _risk_plot(options: TransferOptions, risks: dict[str, list[dict[str, Any]]]) -> Plot:
    series = [
        Series(name, [at["GCV"] for at in rows], [at["measured"] for at in rows], style="points")
        for name, rows in risks.items()
    ]
    values = [at[key] for rows in risks.values() for at in rows for key in ("GCV", "measured")]
    series.append(Series("equal", [min(values), max(values)], [min(values), max(values)]))
    panel = Panel("GCV of the training images", "squared error", series)
    caption = f"Mean over classes; measured on {options.split}, over numbers of training images."
    return Plot("risk", "Squared error predicted from the spectrum", caption, [panel])


STUDY = Study(TransferOptions, run)
