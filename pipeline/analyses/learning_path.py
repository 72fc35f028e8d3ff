"""What one SGD step does to every prediction, to first order, and what it really does.

For a loss with derivative ℓ′ in the outputs, one step of size η on a sample x changes the outputs
on x̃ by −η Θ(x̃, x) ℓ′(f(x)) + O(η²), and the predicted classes q = softmax(f) by

    q⁺(x̃) − q(x̃) = η 𝒜(x̃) Θ(x̃, x) (p_target − q(x)) + O(η²),   𝒜 = diag(q) − qqᵀ

for cross-entropy (paper 003; Ren, Guo and Sutherland 2022). Θ is never formed: Jᵀ times ℓ′ is the
step's own gradient, and J times it the change.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.analyses.full_kernel import PowerLaw, power_law
from pipeline.jacobian import JacobianOperator
from pipeline.jacobian.likelihoods import Categorical
from pipeline.types import InputError, Inputs, batch_size, run_model

Loss = Literal["squared", "cross_entropy"]


@dataclass(frozen=True)
class Step:
    """One SGD step's effect on some samples."""

    outputs: Float[Tensor, "m k"]
    """Change of f."""
    probabilities: Float[Tensor, "m k"]
    """Change of softmax(f)."""


@dataclass(frozen=True)
class StepStudy:
    """Predicted and real changes over step sizes, and how fast the difference vanishes."""

    step_sizes: list[float]
    output_errors: list[float]
    """‖real − predicted‖ of the outputs."""
    probability_errors: list[float]
    output_order: PowerLaw
    """Error over η; its exponent is 2 where the first order is right."""
    probability_order: PowerLaw


def first_order_step(
    model: nn.Module,
    watched: Inputs,
    trained_on: Inputs,
    targets: Float[Tensor, "n k"],
    step_size: float,
    loss: Loss = "cross_entropy",
) -> Step:
    """The change on ``watched`` that the eNTK predicts for one step on ``trained_on``.

    The loss is the mean over samples of ½‖f − y‖² (squared), or of −Σ p log q (cross-entropy).
    """
    with torch.no_grad():
        f, on = run_model(model, watched), run_model(model, trained_on)
    slope = loss_slope(on, targets.to(on), loss) / len(on)
    gradient = JacobianOperator(model, trained_on).t_matmul(slope.reshape(-1))
    change = -step_size * JacobianOperator(model, watched).matmul(gradient).reshape(f.shape)
    return Step(change, Categorical().hessian_product(f, change))


def real_step(
    model: nn.Module,
    watched: Inputs,
    trained_on: Inputs,
    targets: Float[Tensor, "n k"],
    step_size: float,
    loss: Loss = "cross_entropy",
) -> Step:
    """The change that one step really makes, on a copy of the network."""
    stepped = copy.deepcopy(model)
    parameters = [p for p in stepped.parameters() if p.requires_grad]
    value = loss_value(run_model(stepped, trained_on), targets, loss)
    gradients = torch.autograd.grad(value, parameters, allow_unused=True)
    with torch.no_grad():
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:
                parameter.sub_(gradient, alpha=step_size)
        before, after = run_model(model, watched), run_model(stepped, watched)
    return Step(after - before, after.softmax(dim=1) - before.softmax(dim=1))


def step_study(
    model: nn.Module,
    watched: Inputs,
    trained_on: Inputs,
    targets: Float[Tensor, "n k"],
    step_sizes: Sequence[float],
    loss: Loss = "cross_entropy",
) -> StepStudy:
    """The remainder over step sizes; the network is best in float64."""
    outputs, probabilities = [], []
    for step_size in step_sizes:
        arguments = (model, watched, trained_on, targets, step_size, loss)
        predicted, real = first_order_step(*arguments), real_step(*arguments)
        outputs.append(float((real.outputs - predicted.outputs).norm()))
        probabilities.append(float((real.probabilities - predicted.probabilities).norm()))
    return StepStudy(
        list(step_sizes),
        outputs,
        probabilities,
        power_law(step_sizes, outputs),
        power_law(step_sizes, probabilities),
    )


def loss_value(f: Float[Tensor, "n k"], targets: Float[Tensor, "n k"], loss: Loss) -> Tensor:
    """The mean loss; targets are class distributions, or real values for the squared loss."""
    if loss == "squared":
        return (f - targets.to(f)).square().sum(dim=1).mean() / 2
    return -(targets.to(f) * f.log_softmax(dim=1)).sum(dim=1).mean()


def loss_slope(
    f: Float[Tensor, "n k"], targets: Float[Tensor, "n k"], loss: Loss
) -> Float[Tensor, "n k"]:
    """ℓ′ of each sample: f − y, or softmax(f) − p_target."""
    return f - targets if loss == "squared" else f.softmax(dim=1) - targets


@dataclass(frozen=True)
class LearningPath:
    """Predictions of the samples trained on, after every epoch and before the first."""

    probabilities: Float[Tensor, "e n k"]
    average: Float[Tensor, "n k"]
    """q̄ ← (1 − a) q̄ + a q at every time a sample was trained on: Filter-KD's target."""


def train_recording(
    model: nn.Module,
    inputs: Tensor,
    targets: Float[Tensor, "n k"],
    *,
    epochs: int,
    learning_rate: float,
    batch: int = 32,
    momentum: float = 0.9,
    average: float = 0.05,
    seed: int = 0,
    after_epoch: Callable[[int], None] | None = None,
) -> LearningPath:
    """Train a network in place by SGD on cross-entropy with soft targets, and record its path.

    ``average`` is a of q̄ (METHODS, Filter-KD). The order of samples follows the seed.
    """
    if not 0 < average <= 1:
        raise InputError(f"the moving average's weight lies in (0, 1], got {average}.")
    n = batch_size(inputs)
    optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate, momentum=momentum)
    generator = torch.Generator().manual_seed(seed)
    path = [predicted(model, inputs)]
    q_bar = path[0].clone()
    for epoch in range(epochs):
        for rows in torch.randperm(n, generator=generator).split(batch):
            f = run_model(model, inputs[rows])
            value = loss_value(f, targets[rows], "cross_entropy")
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            q = f.detach().softmax(dim=1)
            q_bar[rows] = (1 - average) * q_bar[rows] + average * q
        path.append(predicted(model, inputs))
        if after_epoch is not None:
            after_epoch(epoch + 1)
    return LearningPath(torch.stack(path), q_bar)


def predicted(model: nn.Module, inputs: Inputs) -> Float[Tensor, "n k"]:
    """softmax of a network's outputs."""
    with torch.no_grad():
        return run_model(model, inputs).softmax(dim=1)


def zigzag(
    path: Float[Tensor, "e n k"], truth: Float[Tensor, "n k"], labels: Float[Tensor, "n k"]
) -> Float[Tensor, " n"]:
    """How much closer to the truth a sample's path came than where it ended, at its closest.

    max over time of ‖q_end − p*‖ − ‖q_t − p*‖, for samples whose label misleads it is large: the
    path first follows its neighbours towards p*, then turns to the label.
    """
    if path.shape[1:] != truth.shape or truth.shape != labels.shape:
        raise InputError("path (e, n, k), truth (n, k) and labels (n, k) must fit together.")
    distance = (path - truth).norm(dim=2)
    return distance[-1] - distance.min(dim=0).values
