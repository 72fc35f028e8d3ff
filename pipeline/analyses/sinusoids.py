"""Sinusoids: a network trained on one, carried to others (Maddox et al. 2019, figure 1).

y = A sin(wx + b) + ε with A ~ U(0.1, 5), w ~ U(0.5, 2), b ~ U(0, 2π), x ~ U(−5, 5) and a noise
deviation of 0.01 A; ten tasks of ten points, the first the source.
"""

import math
from typing import Literal

import torch
from pydantic import Field
from torch import nn

from pipeline.analyses.few_shot import USUAL_METHODS, ShotTask, Source, Training, train
from pipeline.config import Options

ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU}


class SinusoidOptions(Options):
    """Few-shot regression of sinusoids."""

    activation: Literal["tanh", "relu"] = "tanh"
    """Of the 1-40-40-1 network."""
    tasks: int = Field(default=10, ge=2)
    """Sinusoids, the source among them."""
    points: int = Field(default=10, ge=1)
    """Context points of each."""
    test_points: int = Field(default=200, ge=1)
    """Held-out points of each, without noise's share in x."""
    epochs: int = Field(default=2_500, ge=1)
    """Of training on the source, in batches of 3."""
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)
    """Of the sinusoids and the network. The study repeats for each."""
    methods: tuple[str, ...] = USUAL_METHODS
    """What is compared; ``finite_ntk_fisher``, the parameter space, joins where it is named."""


def sinusoid_tasks(options: SinusoidOptions, seed: int) -> list[ShotTask]:
    """The tasks, in float64; the source first."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float, count: int = 1) -> torch.Tensor:
        draws = torch.rand(count, generator=generator, dtype=torch.float64)
        return low + (high - low) * draws

    tasks = []
    for number in range(options.tasks):
        amplitude, frequency = uniform(0.1, 5), uniform(0.5, 2)
        phase = uniform(0, 2 * math.pi)
        x = uniform(-5, 5, options.points + options.test_points)
        noise = torch.randn(len(x), generator=generator, dtype=torch.float64)
        y = amplitude * (frequency * x + phase).sin() + 0.01 * amplitude * noise
        n = options.points
        tasks.append(ShotTask(x[:n, None], y[:n], x[n:, None], y[n:], f"sinusoid {number}"))
    return tasks


def sinusoid_source(options: SinusoidOptions, task: ShotTask, seed: int) -> Source:
    """The network of METHODS' schedule, trained on the source task."""
    activation = ACTIVATIONS[options.activation]

    def network() -> nn.Sequential:
        torch.manual_seed(seed)
        layers = [nn.Linear(1, 40), activation(), nn.Linear(40, 40), activation()]
        return nn.Sequential(*layers, nn.Linear(40, 1)).double()

    training = Training(1e-3, 0.9, 3, options.epochs, seed)
    return Source(task, train(network(), task.x, task.y, training), network())
