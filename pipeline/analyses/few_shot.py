"""Few-shot regression: a source task's knowledge, carried to target tasks by several methods.

| method | what is carried over |
|---|---|
| ``finite_ntk`` | the trained network's Jacobian; mean 0 |
| ``finite_ntk_fisher`` | the same, in parameter space by finite-difference Fisher products |
| ``linearized`` | the same, around the network's own linearization |
| ``network`` | the same, around the network's function |
| ``rbf_transfer`` | an RBF kernel's hyperparameters |
| ``rbf_independent`` | nothing: every task fits its own RBF kernel |
| ``ablr`` | features of a Bayesian linear model |
| ``deep_kernel`` | features and hyperparameters of an RBF kernel on them |
| ``blind`` | the network itself, not adapted |
"""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.gp import Linearization, adapt
from pipeline.gp.adapt import Task
from pipeline.gp.implicit import implicit_parameter_space
from pipeline.gp.linear_basis import learn_features, predict_tasks
from pipeline.gp.linearization import Mean
from pipeline.gp.predictive import Predictive
from pipeline.gp.products import ProductKernel
from pipeline.gp.regression import LinearizedGP
from pipeline.jacobian import FiniteDifferenceFisher
from pipeline.jacobian.likelihoods import Gaussian
from pipeline.types import InputError

LEVEL = 0.95
"""Of the intervals whose coverage is counted."""


@dataclass(frozen=True)
class ShotTask:
    """One task: context to condition on, and held-out points."""

    x: Float[Tensor, "n d"]
    y: Float[Tensor, " n"]
    x_test: Float[Tensor, "m d"]
    y_test: Float[Tensor, " m"]
    name: str = ""


@dataclass(frozen=True)
class Training:
    """Stochastic gradient descent on the source task, with momentum."""

    learning_rate: float
    momentum: float
    batch: int
    epochs: int
    seed: int = 0


@dataclass(frozen=True)
class TaskScore:
    """Sums over the held-out points of one task."""

    points: int
    squared: float
    """Squared errors."""
    loss: float
    """Negative log densities, in nats."""
    covered: int
    """Points within the central 95 % interval."""


@dataclass(frozen=True)
class ShotScores:
    """One method's predictions over all target tasks."""

    rmse: float
    nll: float
    """Mean over points, in nats."""
    coverage: float
    """Share of held-out points within the central 95 % interval."""
    points: int
    tasks: int
    rmse_stderr: float
    """Over tasks."""


def train(model: nn.Module, x: Tensor, y: Tensor, training: Training) -> nn.Module:
    """Fit the network in place by squared error; it is left in eval mode."""
    generator = torch.Generator().manual_seed(training.seed)
    descent = torch.optim.SGD(
        model.parameters(), lr=training.learning_rate, momentum=training.momentum
    )
    model.train()
    for _ in range(training.epochs):
        order = torch.randperm(len(x), generator=generator)
        for chosen in order.split(training.batch):
            loss = (model(x[chosen])[:, 0] - y[chosen]).square().mean()
            descent.zero_grad()
            loss.backward()
            descent.step()
    if not math.isfinite(float(loss.detach())):
        raise InputError(
            f"training diverged at learning rate {training.learning_rate}: the loss is not finite."
        )
    return model.eval()


@dataclass(frozen=True)
class Source:
    """The source task and the network trained on it."""

    task: ShotTask
    model: nn.Module
    """Trained."""
    untrained: nn.Module
    """Of the same architecture: what ABLR and deep kernels start from."""


Method = Callable[[Source, Sequence[ShotTask]], list[Predictive]]


def linearized_method(mean: Mean) -> Method:
    """The Gaussian process of the linearized network; hyperparameters from all contexts."""

    def predict(source: Source, tasks: Sequence[ShotTask]) -> list[Predictive]:
        linearization = Linearization(source.model, mean=mean)
        adaptation = adapt(linearization, [Task(task.x, task.y) for task in tasks])
        return [
            gp.predict(task.x_test, allow_unconverged=True)
            for gp, task in zip(adaptation.tasks, tasks, strict=True)
        ]

    return predict


def by_fisher_products(source: Source, tasks: Sequence[ShotTask]) -> list[Predictive]:
    """The finite NTK at its own hyperparameters, features never formed while it is fitted.

    In float64, where conjugate gradients reach the explicit answer.
    """
    model = copy.deepcopy(source.model).double()
    linearization = Linearization(model)
    contexts = [Task(task.x.double(), task.y) for task in tasks]
    hyperparameters = adapt(linearization, contexts).hyperparameters
    s, noise = hyperparameters.outputscale, hyperparameters.noise[0]
    found = []
    for task in tasks:
        x = task.x.double()
        J = linearization.operator(x)
        fisher = FiniteDifferenceFisher(model, x, Gaussian())
        inexact = ProductKernel(fisher.matmul, J.shape[1], J.dtype, J.device)
        posterior = implicit_parameter_space(J, task.y.double()[:, None], s, noise, inexact=inexact)
        gp = LinearizedGP(linearization, posterior, noise, 1, inputs=x)
        found.append(gp.predict(task.x_test.double(), allow_unconverged=True))
    return found


def blind(source: Source, tasks: Sequence[ShotTask]) -> list[Predictive]:
    """The network as it is; its variance is the source's mean squared residual."""
    with torch.no_grad():
        residuals = source.model(source.task.x)[:, 0] - source.task.y
        noise = max(float(residuals.square().mean()), 1e-12)
        means = [source.model(task.x_test).double() for task in tasks]
    return [Predictive(mean, torch.zeros_like(mean), noise) for mean in means]


def rbf_transfer(source: Source, tasks: Sequence[ShotTask]) -> list[Predictive]:
    """An RBF process with the source's hyperparameters."""
    from pipeline.gp.radial import RadialGP

    gp = RadialGP(source.task.x, source.task.y)
    gp.fit()
    return [gp.conditioned(task.x, task.y).predict(task.x_test) for task in tasks]


def rbf_independent(source: Source, tasks: Sequence[ShotTask]) -> list[Predictive]:
    """An RBF process fitted to every task's context."""
    from pipeline.gp.radial import RadialGP

    found = []
    for task in tasks:
        gp = RadialGP(task.x, task.y)
        gp.fit()
        found.append(gp.predict(task.x_test))
    return found


def deep_kernel(source: Source, tasks: Sequence[ShotTask]) -> list[Predictive]:
    """An RBF process on the features of a network, both fitted to the source."""
    from pipeline.gp.radial import RadialGP

    gp = RadialGP(source.task.x, source.task.y, without_head(source.untrained).double())
    gp.fit()
    return [gp.conditioned(task.x, task.y).predict(task.x_test) for task in tasks]


def ablr(source: Source, tasks: Sequence[ShotTask]) -> list[Predictive]:
    """A Bayesian linear model on features fitted to the source."""
    features = without_head(source.untrained)
    learn_features(features, source.task.x, source.task.y)
    return predict_tasks(
        features, [(task.x, task.y) for task in tasks], [task.x_test for task in tasks]
    )


METHODS: dict[str, Method] = {
    "finite_ntk": linearized_method("zero"),
    "finite_ntk_fisher": by_fisher_products,
    "linearized": linearized_method("linearized"),
    "network": linearized_method("network"),
    "rbf_transfer": rbf_transfer,
    "rbf_independent": rbf_independent,
    "ablr": ablr,
    "deep_kernel": deep_kernel,
    "blind": blind,
}

USUAL_METHODS = tuple(name for name in METHODS if name != "finite_ntk_fisher")
"""All but the one that takes several times as long as ``finite_ntk`` for the same answers."""


def task_score(found: Predictive, task: ShotTask) -> TaskScore:
    """Sums over the held-out points of one task."""
    y = task.y_test.double()[:, None]
    low, high = found.interval(LEVEL)
    return TaskScore(
        points=len(y),
        squared=float((found.mean - y).square().sum()),
        loss=-float(found.log_density(y).sum()),
        covered=int(((y >= low) & (y <= high)).sum()),
    )


def pooled(scores: Sequence[TaskScore]) -> ShotScores:
    """RMSE, NLL and coverage over all held-out points, with the RMSE's spread over tasks."""
    points = sum(score.points for score in scores)
    by_task = np.array([math.sqrt(score.squared / score.points) for score in scores])
    spread = float(by_task.std(ddof=1) / len(scores) ** 0.5) if len(scores) > 1 else 0.0
    return ShotScores(
        rmse=math.sqrt(sum(score.squared for score in scores) / points),
        nll=sum(score.loss for score in scores) / points,
        coverage=sum(score.covered for score in scores) / points,
        points=points,
        tasks=len(scores),
        rmse_stderr=spread,
    )


def without_head(model: nn.Module) -> nn.Sequential:
    """A copy of a sequential network without its last layer."""
    if not isinstance(model, nn.Sequential):
        raise InputError(f"features are taken of a sequential network, got {type(model).__name__}.")
    return nn.Sequential(*copy.deepcopy(list(model)[:-1]))
