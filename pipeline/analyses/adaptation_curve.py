"""A trained regression network carried to a related task, over the points that it may see there.

| method | what it does with the points |
|---|---|
| ``blind`` | nothing |
| ``last_layer`` | descends on its last layer, as many epochs as on the source |
| ``last_layer_6x`` | the same for six times as long |
| ``fine_tune`` | descends on all layers |
| ``finite_ntk`` | the Gaussian process of its Jacobian, mean 0 |
| ``network_gp`` | the same around the network's function |

Networks have one output, the mean, or two: mean and s, with 1e-5 + softplus(s) as deviation.
"""

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.analyses.few_shot import ShotTask, pooled, task_score
from pipeline.gp import Linearization, adapt
from pipeline.gp.adapt import Task
from pipeline.gp.linearization import Mean
from pipeline.gp.predictive import Predictive
from pipeline.sketch import make_sketch
from pipeline.types import InputError

LEAST_DEVIATION = 1e-5
"""Added to every predicted standard deviation."""

LEARNED = 0.5
"""Share of the source's variance that a network explains once it has learned anything."""
STARTS = 5
"""Weights that training begins from, at most."""


@dataclass(frozen=True)
class Descent:
    """Stochastic gradient descent with momentum."""

    learning_rate: float
    epochs: int
    batch: int
    momentum: float = 0.9
    decay_every: int | None = None
    """Epochs after which the step size falls to a tenth, again and again."""
    seed: int = 0

    def stretched(self, times: int) -> "Descent":
        """The same schedule over more epochs."""
        decay = None if self.decay_every is None else times * self.decay_every
        return replace(self, epochs=times * self.epochs, decay_every=decay)


@dataclass(frozen=True)
class Carried:
    """What is known before the target task: the network, its training and its residuals."""

    network: nn.Module
    """In eval mode; one output, or mean and s."""
    descent: Descent
    noise: float
    """Mean squared residual on the source, for networks of one output."""
    sketch_size: int | None = None
    """Parameters that the Gaussian processes keep; None for all."""
    start: int = 0
    """Which weights training began from, where several were tried."""


def descend(
    network: nn.Module,
    x: Float[Tensor, " n *d"],
    y: Float[Tensor, " n"],
    descent: Descent,
    parameters: Iterable[nn.Parameter] | None = None,
) -> nn.Module:
    """Fit some parameters in place, all by default; the network is left in eval mode."""
    chosen = list(network.parameters() if parameters is None else parameters)
    generator = torch.Generator().manual_seed(descent.seed)
    sgd = torch.optim.SGD(chosen, lr=descent.learning_rate, momentum=descent.momentum)
    step = descent.decay_every or descent.epochs
    schedule = torch.optim.lr_scheduler.StepLR(sgd, step, 0.1)
    loss = torch.zeros(())
    for _ in range(descent.epochs):
        for rows in torch.randperm(len(x), generator=generator).split(descent.batch):
            loss = _loss(network(x[rows]), y[rows])
            sgd.zero_grad()
            loss.backward()
            sgd.step()
        schedule.step()
    if not math.isfinite(float(loss.detach())):
        raise InputError(f"training diverged at learning rate {descent.learning_rate}.")
    return network.eval()


def train_source(
    network: nn.Module,
    x: Float[Tensor, " n *d"],
    y: Float[Tensor, " n"],
    descent: Descent,
    sketch_size: int | None = None,
) -> Carried:
    """The network trained on the source task, and what it leaves over there."""
    descend(network, x, y, descent)
    with torch.no_grad():
        residuals = network(x)[:, 0] - y
    noise = max(float(residuals.square().mean()), 1e-12)
    return Carried(network, descent, noise, sketch_size)


def train_from_starts(
    network: Callable[[int], nn.Module],
    x: Float[Tensor, " n *d"],
    y: Float[Tensor, " n"],
    descent: Descent,
    sketch_size: int | None = None,
) -> Carried:
    """As :func:`train_source`, from the first start whose network learns the source.

    ``network(start)`` gives untrained weights: where all ReLUs of a layer die in the first steps,
    training stays at the mean for ever. If no start explains half of the source's variance, the
    one that explains most is taken.
    """
    tried: list[Carried] = []
    for start in range(STARTS):
        carried = train_source(network(start), x, y, descent, sketch_size)
        tried.append(replace(carried, start=start))
        if carried.noise < (1 - LEARNED) * float(y.var()):
            break
    return min(tried, key=lambda carried: carried.noise)


Method = Callable[[Carried, ShotTask], Predictive]


def network_prediction(carried: Carried, x: Tensor) -> Predictive:
    """The network's own mean and variance."""
    with torch.no_grad():
        outputs = torch.cat([carried.network(part) for part in x.split(1_000)]).double()
    if outputs.shape[1] == 1:
        return Predictive(outputs, torch.zeros_like(outputs), carried.noise)
    return Predictive(outputs[:, :1], _deviation(outputs)[:, None].square(), 0.0)


def retrained(last_only: bool, budget: int) -> Method:
    """Descent on the target's points, on the last layer or on all."""

    def predict(carried: Carried, task: ShotTask) -> Predictive:
        network = copy.deepcopy(carried.network)
        descent = carried.descent.stretched(budget)
        layers = [m for m in network.modules() if list(m.parameters(recurse=False))]
        parameters = layers[-1].parameters() if last_only else network.parameters()
        descend(network, task.x, task.y, descent, parameters)
        return network_prediction(replace(carried, network=network), task.x_test)

    return predict


def gaussian_process(mean: Mean) -> Method:
    """Closed-form adaptation of the mean output; hyperparameters from the target's points."""

    def predict(carried: Carried, task: ShotTask) -> Predictive:
        size = carried.sketch_size
        sketch = None if size is None else make_sketch("uniform", carried.network, size, 0)
        linearization = Linearization(carried.network, sketch, output=0, mean=mean)
        [gp] = adapt(linearization, [Task(task.x, task.y)]).tasks
        return gp.predict(task.x_test, allow_unconverged=True)

    return predict


METHODS: dict[str, Method] = {
    "blind": lambda carried, task: network_prediction(carried, task.x_test),
    "last_layer": retrained(True, 1),
    "last_layer_6x": retrained(True, 6),
    "fine_tune": retrained(False, 1),
    "finite_ntk": gaussian_process("zero"),
    "network_gp": gaussian_process("network"),
}


def curve_point(carried: Carried, task: ShotTask, methods: Sequence[str]) -> list[dict[str, Any]]:
    """One row a method: RMSE, NLL and coverage on the held-out points, given these points."""
    rows = []
    for name in methods:
        found = asdict(pooled([task_score(METHODS[name](carried, task), task)]))
        values = {key: found[key] for key in ("rmse", "nll", "coverage")}
        rows.append({"method": name, "points": len(task.x), **values})
    return rows


def _loss(outputs: Float[Tensor, "n o"], y: Float[Tensor, " n"]) -> Tensor:
    if outputs.shape[1] == 1:
        return (outputs[:, 0] - y).square().mean()
    return F.gaussian_nll_loss(outputs[:, 0], y, _deviation(outputs).square())


def _deviation(outputs: Float[Tensor, "n 2"]) -> Float[Tensor, " n"]:
    return LEAST_DEVIATION + F.softplus(outputs[:, 1])
