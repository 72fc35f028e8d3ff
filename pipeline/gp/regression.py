"""A Gaussian process of a linearized network on one task: predictions with uncertainty."""

from dataclasses import dataclass, replace
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.gp.condition import Posterior, Space, condition
from pipeline.gp.linearization import Linearization, LinearRows
from pipeline.gp.predictive import Predictive
from pipeline.types import InputError, Inputs, batch_size


class NotConvergedError(InputError):
    """Variances asked of a fit that did not converge."""


@dataclass(frozen=True)
class LinearizedGP:
    """The posterior on one task; make it with :meth:`of`, or with :func:`pipeline.gp.adapt`."""

    linearization: Linearization
    posterior: Posterior
    noise: float
    """σ² of an observation."""
    targets: int
    """k: columns of the targets."""
    converged: bool = True
    """Whether the hyperparameters were found, where they were sought."""
    name: str = ""

    @classmethod
    def of(
        cls,
        linearization: Linearization,
        inputs: Inputs,
        targets: Float[Tensor, "n *k"],
        *,
        outputscale: float,
        noise: float,
        space: Space = "auto",
    ) -> Self:
        """The posterior given one task's data, with hyperparameters as they are given."""
        Y = checked_targets(targets, batch_size(inputs))
        found = linearization(inputs)
        posterior = condition(found.rows, residuals_of(found, Y), outputscale, noise, space=space)
        return cls(linearization, posterior, noise, Y.shape[1])

    def add(self, inputs: Inputs, targets: Float[Tensor, "m *k"]) -> Self:
        """The posterior given more data, by a block update; this one stays as it is."""
        Y = checked_targets(targets, batch_size(inputs))
        if Y.shape[1] != self.targets:
            raise InputError(
                f"the targets so far have {self.targets} columns, the new ones {Y.shape[1]}."
            )
        found = self.linearization(inputs)
        extended = self.posterior.extended(found.rows, residuals_of(found, Y), self.noise)
        return replace(self, posterior=extended)

    def predict(
        self,
        inputs: Inputs,
        *,
        variance: bool = True,
        covariance: bool = False,
        allow_unconverged: bool = False,
    ) -> Predictive:
        """f at new inputs: means, variances, and the covariance between them when asked for.

        Raises :class:`NotConvergedError` for the variances of a fit that did not converge, unless
        allowed. Without ``variance`` the variances are zero.
        """
        if (variance or covariance) and not (self.converged or allow_unconverged):
            raise NotConvergedError(
                "the hyperparameters did not converge, so variances mean nothing yet. Fit again "
                "with more iterations, or predict with allow_unconverged=True."
            )
        return self.predict_rows(
            self.linearization(inputs), variance=variance, covariance=covariance
        )

    def predict_rows(
        self, found: LinearRows, *, variance: bool = True, covariance: bool = False
    ) -> Predictive:
        """The same from rows already at hand."""
        n = len(found.offsets)
        mean = found.offsets + self.posterior.mean(found.rows).reshape(n, self.targets)
        joint = self.posterior.covariance(found.rows) if covariance else None
        if joint is not None:
            flat = joint.diagonal()
        elif variance:
            flat = self.posterior.variance(found.rows)
        else:
            flat = mean.new_zeros(len(found.rows))
        spread = flat.clamp(min=0).reshape(n, -1).expand(n, self.targets)
        return Predictive(mean, spread, self.noise, joint)


def checked_targets(targets: Tensor, n: int) -> Float[Tensor, "n k"]:
    """Targets in float64 as columns; refused unless finite and one a sample."""
    Y = torch.as_tensor(targets).detach().double()
    Y = Y[:, None] if Y.ndim == 1 else Y
    if Y.ndim != 2 or len(Y) != n:
        raise InputError(f"expected targets ({n},) or ({n}, k), got {tuple(Y.shape)}.")
    if not bool(torch.isfinite(Y).all()):
        row = int((~torch.isfinite(Y)).any(1).nonzero()[0])
        raise InputError(f"the target of sample {row} is not finite.")
    return Y


def residuals_of(found: LinearRows, Y: Float[Tensor, "n k"]) -> Float[Tensor, "n*q c"]:
    """y − μ as the rows have it: one column for all outputs, or one a target of a shared row."""
    n, q = found.offsets.shape
    if q > 1 and Y.shape[1] != q:
        raise InputError(
            f"the network has {q} outputs and the targets {Y.shape[1]} columns. Linearize a "
            "scalar output (output=0) to share one kernel between any number of targets."
        )
    if Y.shape[1] != q and bool(found.offsets.any()):
        raise InputError(
            f"a mean function of one output cannot serve {Y.shape[1]} targets. Use mean='zero'."
        )
    residuals = Y.to(found.offsets.device) - found.offsets
    return residuals.reshape(n * q, -1)
