"""How long to probe a head before fine-tuning: energy, direction, change of the features."""

from functools import partial
from typing import Any, Literal

import torch
from pydantic import Field
from torch import nn

from pipeline.analyses.head_probing import predicted_feature_change, start_of_tuning
from pipeline.analyses.learning_path import loss_value, train_recording
from pipeline.baselines.training import Recipe, train
from pipeline.metrics.errors import accuracy_stderr
from pipeline.models.network import Network
from pipeline.models.options import seeded
from pipeline.registry import BenchmarkOptions, ModelOptions, build_backbone
from pipeline.report.plots import Panel, Plot, Series
from pipeline.studies.backbones import outputs_of, with_new_head
from pipeline.studies.images import images_of, load_splits
from pipeline.studies.study import Findings, Study, StudyOptions, Times, Work


class HeadPreparationOptions(StudyOptions):
    """Head probing before fine-tuning."""

    benchmark: BenchmarkOptions
    """Where images and classes come from."""
    model: ModelOptions
    """The pretrained backbone; its own head is not used."""
    head: Literal["linear", "mlp"] = "linear"
    """A new linear head, or one with a hidden layer as wide as the features."""
    smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Label smoothing while probing: the share that is spread evenly over the classes."""
    probe_epochs: Times = (0, 1, 3, 10, 30, 100)
    """Lengths of probing that are compared, in epochs on stored features."""
    probe_rate: float = Field(default=0.01, gt=0)
    """Step size of probing (SGD, momentum 0.9)."""
    tune_epochs: int = Field(default=5, ge=1)
    """Epochs of fine-tuning after each."""
    tune_rate: float = Field(default=0.01, gt=0)
    """First step size of the cosine."""
    train: int = Field(default=1_000, ge=10)
    """Training images."""
    watched: int = Field(default=32, ge=2)
    """Images whose first-order change of features is predicted."""
    step_size: float = Field(default=1e-3, gt=0)
    """Of the single step that the prediction is compared with."""
    splits: tuple[str, ...] = ("id_test", "ood_test")
    """What the fine-tuned networks are tested on."""
    seed: int = 0
    """Of head, order and augmentation."""


def run(options: HeadPreparationOptions, work: Work) -> Findings:
    """One row for every length of probing."""
    case = _Case(options)
    makers = {f"probe_{epochs}": partial(case.row, epochs) for epochs in options.probe_epochs}
    table = list(work.cells(makers, axes=("probe_epochs",)).values())
    missed = max(row["missed share"] for row in table)
    best = max(table, key=lambda row: row["val, %"])
    notes = [
        f"validation advises to probe for {best['probe epochs']} epochs "
        f"({best['val, %']:.1f} % on val)",
        f"first-order feature changes miss the real ones by {missed:.1%} at most",
    ]
    numbers = {"advised epochs": float(best["probe epochs"]), "largest missed share": missed}
    return Findings(table, _plots(options, table), notes, numbers)


class _Case:
    """Images, backbone and stored features; every length of probing starts from the same head."""

    def __init__(self, options: HeadPreparationOptions) -> None:
        self.options = options
        self.data = load_splits(options.benchmark, "train", "val", *options.splits)
        self.train = self.data["train"].first(options.train, "train")
        self.network: Network = build_backbone(options.model)
        self.body = with_new_head(self.network, nn.Identity())
        self.z = outputs_of(self.body, self.train.x)
        one_hot = self.train.one_hot()
        self.targets = (1 - options.smoothing) * one_hot + options.smoothing / self.train.k

    def row(self, epochs: int) -> dict[str, Any]:
        """Head, first step and fine-tuning after so many epochs of probing."""
        head = self.probed(epochs)
        start = start_of_tuning(head, self.z, self.train.one_hot())
        first = self.first_step(head)
        tuned = self.tuned(head)
        scores = {name: self._accuracy(tuned, name) for name in ("val", *self.options.splits)}
        z_after = outputs_of(_bare(tuned, self.network.head), self.data["val"].x)
        z_before = outputs_of(self.body, self.data["val"].x)
        return {
            "probe epochs": epochs,
            "energy": start.energy,
            "direction": start.direction,
            **first,
            "features moved": float((z_after - z_before).norm() / z_before.norm()),
            "turned": 1 - float(torch.cosine_similarity(z_after, z_before).mean()),
            **{f"{name}, %": 100 * score for name, score in scores.items()},
            **{
                f"{name} stderr": 100 * accuracy_stderr(score, len(self.data[name]))
                for name, score in scores.items()
            },
        }

    def probed(self, epochs: int) -> nn.Module:
        """The head after some epochs on the stored features, the backbone untouched."""
        h, k = self.network.width, self.train.k
        with seeded(self.options.seed):
            linear = nn.Linear(h, k)
            nn.init.normal_(linear.weight, std=h**-0.5)
            nn.init.zeros_(linear.bias)
            layers = [nn.Linear(h, h), nn.ReLU()] if self.options.head == "mlp" else []
            head: nn.Module = nn.Sequential(*layers, linear) if layers else linear
        if epochs:
            train_recording(
                head, self.z, self.targets, epochs=epochs, seed=self.options.seed,
                learning_rate=self.options.probe_rate,
            )  # fmt: skip
        return head.eval()

    def first_step(self, head: nn.Module) -> dict[str, float]:
        """One full-batch step on the watched images: predicted and real change of features."""
        x = self.train.x[: self.options.watched].double()
        Y = self.train.one_hot()[: self.options.watched].double()
        body = with_new_head(self.network, nn.Identity()).double()
        wide = with_new_head(self.network, head).double()
        z = outputs_of(body, x)
        pull = start_of_tuning(head.double(), z, Y).pull
        predicted = predicted_feature_change(body, x, x, pull, self.options.step_size)
        head.float()
        names = [n for n, _ in wide.named_parameters() if not n.startswith(self.network.head)]
        parameters = [dict(wide.named_parameters())[name] for name in names]
        gradients = torch.autograd.grad(loss_value(wide(x), Y, "cross_entropy"), parameters)
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.sub_(gradient, alpha=self.options.step_size)
        real = outputs_of(_bare(wide, self.network.head), x) - z
        scale = float(z.norm()) * self.options.step_size
        return {
            "predicted speed": float(predicted.norm()) / scale,
            "real speed": float(real.norm()) / scale,
            "missed share": float((real - predicted).norm() / real.norm()),
        }

    def tuned(self, head: nn.Module) -> nn.Module:
        """The whole network fine-tuned from that head, BatchNorm at its stored statistics."""
        module = with_new_head(self.network, head)
        recipe = Recipe(
            learning_rate=self.options.tune_rate,
            epochs=self.options.tune_epochs,
            batch_size=64,
            seed=self.options.seed,
            freeze_batch_norm=True,
        )
        outcome = train(module, images_of(self.train), images_of(self.data["val"]), recipe)
        if outcome.best_state is not None:
            module.load_state_dict(outcome.best_state)
        return module.eval()

    def _accuracy(self, module: nn.Module, split: str) -> float:
        found = outputs_of(module, self.data[split].x).argmax(dim=1)
        return float((found == self.data[split].labels).double().mean())


def _bare(module: nn.Module, head: str) -> nn.Module:
    """The module itself, returning its penultimate features from now on."""
    module.set_submodule(head, nn.Identity())
    return module


def _plots(options: HeadPreparationOptions, table: list[dict[str, Any]]) -> list[Plot]:
    # Zero epochs have no place on a log axis: they stand a step to the left.
    x = [float(row["probe epochs"]) or 0.3 for row in table]

    def line(label: str, key: str, error: str | None = None) -> Series:
        return Series(
            label, x, [row[key] for row in table], [row[error] for row in table] if error else None
        )

    caption = f"{options.train} training images, {options.head} head; 0 epochs are drawn at 0.3."
    return [
        Plot(
            "start",
            "What probing leaves to fine-tuning",
            caption,
            [
                Panel(
                    "epochs of probing", "",
                    [
                        line("energy", "energy"),
                        line("direction", "direction"),
                        line("features moved", "features moved"),
                    ],
                    xlog=True,
                ),
                Panel(
                    "epochs of probing", "speed of the features, first step",
                    [line("predicted", "predicted speed"), line("real", "real speed")],
                    xlog=True,
                ),
            ],
        ),
        Plot(
            "accuracy",
            "Accuracy after fine-tuning",
            caption,
            [
                Panel(
                    "epochs of probing", "accuracy, %",
                    [
                        line(name, f"{name}, %", f"{name} stderr")
                        for name in ("val", *options.splits)
                    ],
                    xlog=True,
                )
            ],
        ),
    ]  # fmt: skip


STUDY = Study(HeadPreparationOptions, run)
