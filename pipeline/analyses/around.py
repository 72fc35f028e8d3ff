"""Kernel regression around a network: f₀(x) + K(x, X) (K + ridge·I)⁻¹ (y − f₀(X)).

With the full eNTK and ridge 0 it is what the network becomes when it is trained to the end on the
squared loss with small steps, as long as its kernel stays what it is; stopped after t steps of
gradient descent, what it is then (paper 003). The pseudo-NTK does the same with one n × n kernel
for all outputs. A ridge means another thing for each: :func:`matched_ridge` converts.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.analyses.full_kernel import outputs_per_row
from pipeline.analyses.learning_path import loss_value
from pipeline.solvers.kernel_ridge import KernelRidge
from pipeline.solvers.operator import product
from pipeline.solvers.trajectory import trajectory
from pipeline.types import InputError

SUM_TOLERANCE = 1e-4
"""How far a soft target's sum may be from 1."""


@dataclass(frozen=True)
class AroundNetwork:
    """A regression on the residuals of a network."""

    dual_weights: Float[Tensor, "N t"]

    def predict(
        self, K_cross: Float[Tensor, "M N"], f0: Float[Tensor, "m k"]
    ) -> Float[Tensor, "m k"]:
        """f₀ + K_cross α on other samples."""
        return f0.double() + product(K_cross, self.dual_weights).reshape(f0.shape)


def fit_around(
    K: Float[Tensor, "N N"],
    Y: Float[Tensor, "n k"],
    f0: Float[Tensor, "n k"],
    *,
    ridge: float = 0.0,
    steps: int | None = None,
    dynamics: Literal["flow", "descent", "nesterov"] = "descent",
) -> AroundNetwork:
    """The regression with a full (n·k, n·k) or a pseudo (n, n) kernel and an absolute ridge.

    ``steps`` stops it after as many steps of size 1/(λ_max + ridge), None solves to the end.
    """
    residual = _residual(K, Y, f0)
    if steps is not None:
        path = trajectory(K, residual, ridge, [steps], dynamics=dynamics, ridge_scale="absolute")
        return AroundNetwork(path.dual_weights(steps))
    machine = KernelRidge(ridge, ridge_scale="absolute").fit(K, residual)
    return AroundNetwork(torch.as_tensor(machine.dual_coef_))


def trained_outputs(
    model: nn.Module,
    x: Float[Tensor, " n *image"],
    other: Float[Tensor, " m *image"],
    Y: Float[Tensor, "n k"],
    step: float,
    wanted: Sequence[int],
) -> list[Float[Tensor, "m k"]]:
    """What the regression stands for: the network itself, trained on half the summed squares.

    Outputs on ``other`` after each of the ``wanted`` numbers (ascending) of full-batch steps, of a
    copy; the given network stays as it is.
    """
    network, outputs = copy.deepcopy(model), []
    parameters = list(network.parameters())
    for number in range(1, max(wanted) + 1):
        loss = len(x) * loss_value(network(x), Y, "squared")
        gradients = torch.autograd.grad(loss, parameters)
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.sub_(gradient, alpha=step)
            if number in wanted:
                outputs.append(network(other).double())
    return outputs


def matched_ridge(ridge: float, full: Float[Tensor, "N N"], pseudo: Float[Tensor, "n n"]) -> float:
    """The full kernel's ridge that shrinks as much: λ_full = λ_p tr(K_full) / (k tr K_p)."""
    k = outputs_per_row(full, pseudo)
    return ridge * float(full.diagonal().sum()) / (k * float(pseudo.diagonal().sum()))


def soft_targets(probabilities: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
    """The targets themselves in float64, refused unless every row is a distribution."""
    targets = probabilities.double()
    if targets.ndim != 2 or targets.shape[1] < 2:
        raise InputError(
            f"soft targets are distributions over k > 1 classes (n, k), found shape "
            f"{tuple(targets.shape)}."
        )
    sums = targets.sum(dim=1)
    bad = ((sums - 1).abs() > SUM_TOLERANCE) | (targets < 0).any(dim=1) | ~torch.isfinite(sums)
    if bool(bad.any()):
        row = int(bad.int().argmax())
        raise InputError(
            f"soft target {row} is no distribution: its sum is {float(sums[row]):.6g}, its "
            f"smallest entry {float(targets[row].min()):.3g}. Normalize the targets."
        )
    return targets


def _residual(K: Tensor, Y: Tensor, f0: Tensor) -> Float[Tensor, "N t"]:
    if Y.shape != f0.shape or Y.ndim != 2:
        raise InputError(f"targets {tuple(Y.shape)} and outputs {tuple(f0.shape)} differ.")
    n, k = Y.shape
    residual = Y.double() - f0.double()
    if K.shape[0] == n:
        return residual
    if K.shape[0] == n * k:
        return residual.reshape(-1, 1)
    raise InputError(f"K has {K.shape[0]} rows; {n} samples of {k} outputs need {n} or {n * k}.")
