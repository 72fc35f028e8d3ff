"""Classification with a linearized network: probabilities with the uncertainty of θ′ in them.

Mean ``zero`` is the papers' finite NTK, ``network`` and ``linearized`` the models with an offset.
All k outputs share one θ′.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, Self

import torch
from jaxtyping import Float, Int
from scipy.optimize import minimize_scalar
from torch import Tensor

from pipeline.gp.categorical import one_hot
from pipeline.gp.class_probabilities import DRAWS, Rule, class_probabilities, sample_blocks
from pipeline.gp.fitted import Fitted
from pipeline.gp.implicit import NotConvergedError
from pipeline.gp.laplace import Laplace, laplace
from pipeline.gp.linearization import Linearization, LinearRows
from pipeline.gp.rows import squared_norms
from pipeline.types import InputError, Inputs, batch_size, slice_inputs

PREDICTION_BATCH = 32
"""Samples whose logits' covariance is formed at once."""

SCALE_DECADES = 6
"""Outputscales are sought within this many powers of ten of 1 / mean diag K."""


class LogitPosterior(Protocol):
    """A Gaussian over logits: Laplace's, a variational one, or that of Dirichlet labels."""

    def mean(self, rows: Float[Tensor, "m*k p"]) -> Float[Tensor, "m*k 1"]:
        """Logits − μ."""
        ...

    def covariance(self, rows: Float[Tensor, "m*k p"]) -> Float[Tensor, "m*k m*k"]:
        """Covariance of the logits."""
        ...


@dataclass(frozen=True)
class LinearizedClassifier(Fitted):
    """Class probabilities from a Gaussian over logits."""

    linearization: Linearization
    posterior: LogitPosterior
    converged: bool
    """Whether the fit reached its tolerance."""

    @classmethod
    def of(
        cls,
        linearization: Linearization,
        inputs: Inputs,
        labels: Int[Tensor, " n"],
        *,
        outputscale: float | None = None,
    ) -> Self:
        """Laplace's approximation; without an outputscale, the one of the largest evidence."""
        found, Y = labelled_rows(linearization, inputs, labels)
        s = best_outputscale(found, Y) if outputscale is None else outputscale
        posterior = laplace(found.rows, found.offsets, Y, s)
        return cls(linearization, posterior, posterior.search.converged)

    def probabilities(
        self,
        inputs: Inputs,
        rule: Rule = "probit",
        *,
        generator: torch.Generator | None = None,
        draws: int = DRAWS,
        allow_unconverged: bool = False,
    ) -> Float[Tensor, "m k"]:
        """Probabilities of the classes, batch by batch.

        Raises :class:`NotConvergedError` for rules that use variances of an unconverged fit.
        """
        self._refuse_changed_network()
        if rule != "map" and not (self.converged or allow_unconverged):
            raise NotConvergedError(
                "the fit did not converge, so its variances mean nothing yet. Fit with more "
                "iterations, use rule='map', or allow_unconverged=True."
            )
        if batch_size(inputs) == 0:
            raise InputError("there are no samples to predict.")
        parts = [
            class_probabilities(*self._logits(batch), rule, generator=generator, draws=draws)
            for batch in _batches(inputs)
        ]
        return torch.cat(parts)

    def _logits(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        return logit_moments(self.posterior, self.linearization(inputs))


def logit_moments(
    posterior: LogitPosterior, found: LinearRows
) -> tuple[Float[Tensor, "m k"], Float[Tensor, "m k k"]]:
    """Mean and covariance of every sample's logits."""
    k = found.offsets.shape[1]
    mean = found.offsets + posterior.mean(found.rows).reshape(-1, k)
    return mean, sample_blocks(posterior.covariance(found.rows), k)


def labelled_rows(
    linearization: Linearization, inputs: Inputs, labels: Int[Tensor, " n"]
) -> tuple[LinearRows, Float[Tensor, "n k"]]:
    """J and μ of all outputs, and one-hot labels, checked."""
    if linearization.output != "all":
        raise InputError(
            "classification needs a row of J for every class: linearize with output='all'."
        )
    if len(labels) != batch_size(inputs):
        raise InputError(f"{batch_size(inputs)} samples and {len(labels)} labels were given.")
    found = linearization(inputs)
    k = found.offsets.shape[1]
    if k < 2:
        raise InputError("the network has one output; classification needs two or more.")
    return found, one_hot(labels, k).to(found.offsets.device)


def best_outputscale(found: LinearRows, Y: Float[Tensor, "n k"]) -> float:
    """The outputscale of the largest Laplace evidence."""

    def evidence(s: float) -> float:
        fitted: Laplace = laplace(found.rows, found.offsets, Y, s)
        return fitted.log_marginal_likelihood()

    return likeliest_outputscale(found.rows, evidence)


def likeliest_outputscale(
    rows: Float[Tensor, "n*k p"], evidence: Callable[[float], float]
) -> float:
    """The outputscale of the largest evidence, by a bounded search over its logarithm."""
    centre = float(-squared_norms(rows).mean().log())
    reach = SCALE_DECADES * math.log(10)
    best = minimize_scalar(
        lambda log_scale: -evidence(math.exp(log_scale)),
        bounds=(centre - reach, centre + reach),
        method="bounded",
        options={"xatol": 1e-2},
    )
    return math.exp(best.x)


def _batches(inputs: Inputs) -> Iterator[Inputs]:
    for start in range(0, batch_size(inputs), PREDICTION_BATCH):
        yield slice_inputs(inputs, slice(start, start + PREDICTION_BATCH))
