"""Targets for a student: from labels, from a teacher's end, or from the path it took (Filter-KD).

A teacher's path passes closer to the true class probabilities p* than labels lie, and then turns to
the labels; the average of the path keeps what the end forgets (Ren, Guo and Sutherland 2022). On
data with known p* the distance ‖p_target − p*‖ can be set against the student's risk.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pipeline.analyses.learning_path import predicted, train_recording
from pipeline.types import InputError

SMOOTHING = 0.1
"""Share of label smoothing that is spread evenly over the classes."""


@dataclass(frozen=True)
class Mixture:
    """Gaussian classes in the plane or higher, with known p*."""

    x: Float[Tensor, "n d"]
    labels: Int[Tensor, " n"]
    truth: Float[Tensor, "n k"]
    """p*(class | x)."""


def gaussian_mixture(
    n: int, k: int = 3, d: int = 30, spread: float = 1.0, *, seed: int = 0, means_seed: int = 0
) -> Mixture:
    """Equally likely classes N(μ_j, spread² I), ‖μ_j‖ = 1, and their exact posteriors.

    ``means_seed`` draws the classes, ``seed`` the samples: train and test share the former.
    """
    if k < 2:
        raise InputError("a mixture needs k > 1 classes.")
    generator = torch.Generator().manual_seed(means_seed)
    means = torch.randn(k, d, generator=generator)
    means /= means.norm(dim=1, keepdim=True)
    generator.manual_seed(1_000_003 * (seed + 1))
    labels = torch.randint(0, k, (n,), generator=generator)
    x = means[labels] + spread * torch.randn(n, d, generator=generator)
    distances = (x[:, None] - means).square().sum(dim=2)
    return Mixture(x, labels, (-distances / (2 * spread**2)).softmax(dim=1))


def noisy_labels(labels: Int[Tensor, " n"], k: int, share: float, seed: int) -> Int[Tensor, " n"]:
    """The labels with a share of them replaced by another class by chance."""
    if not 0 <= share < 1:
        raise InputError(f"the share of wrong labels lies in [0, 1), got {share}.")
    generator = torch.Generator().manual_seed(seed)
    wrong = torch.rand(len(labels), generator=generator) < share
    shift = torch.randint(1, k, (len(labels),), generator=generator)
    return torch.where(wrong, (labels + shift) % k, labels)


@dataclass(frozen=True)
class Teacher:
    """The targets that one training run on labels offers."""

    end: Float[Tensor, "n k"]
    """Self-distillation: its predictions when it ended."""
    early: Float[Tensor, "n k"]
    """Of the epoch that did best on validation."""
    average: Float[Tensor, "n k"]
    """Filter-KD: the moving average along its path."""
    path: Float[Tensor, "e n k"]
    best_epoch: int


def teach(
    model: nn.Module,
    x: Tensor,
    one_hot: Float[Tensor, "n k"],
    validation: tuple[Tensor, Int[Tensor, " m"]],
    *,
    epochs: int,
    learning_rate: float,
    average: float = 0.05,
    seed: int = 0,
) -> Teacher:
    """Train a teacher in place on one-hot labels and keep what its path offers.

    The early stop follows the validation accuracy, whose labels may be as noisy as the others.
    """
    x_val, labels_val = validation
    hits: list[float] = []

    def judge(epoch: int) -> None:
        right = predicted(model, x_val).argmax(dim=1) == labels_val
        hits.append(float(right.double().mean()))

    path = train_recording(
        model, x, one_hot, epochs=epochs, learning_rate=learning_rate, average=average,
        seed=seed, after_epoch=judge,
    )  # fmt: skip
    best = 1 + max(range(len(hits)), key=hits.__getitem__)
    q = path.probabilities
    return Teacher(q[-1], q[best], path.average, q, best)


TARGETS: dict[str, Callable[[Float[Tensor, "n k"], Teacher], Float[Tensor, "n k"]]] = {
    "one-hot": lambda one_hot, teacher: one_hot,
    "label smoothing": lambda one_hot, teacher: (
        (1 - SMOOTHING) * one_hot + SMOOTHING / one_hot.shape[1]
    ),
    "self-distillation": lambda one_hot, teacher: teacher.end,
    "early-stopped teacher": lambda one_hot, teacher: teacher.early,
    "Filter-KD": lambda one_hot, teacher: teacher.average,
}
"""What a student is trained on, by name."""
