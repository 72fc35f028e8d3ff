"""A Gaussian process of a linearized network on one task: predictions with uncertainty."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.gp.condition import Posterior, Space, condition
from pipeline.gp.fitted import Fitted
from pipeline.gp.function_space import FunctionSpace
from pipeline.gp.implicit import (
    ImplicitFunctionSpace,
    ImplicitOptions,
    ImplicitParameterSpace,
    ImplicitPosterior,
    NotConvergedError,
    implicit_function_space,
    implicit_parameter_space,
    more_data,
)
from pipeline.gp.linearization import Linearization, LinearRows
from pipeline.gp.predictive import Predictive
from pipeline.gp.weight_posterior import WeightPosterior, fast_weights
from pipeline.types import InputError, Inputs, batch_size, slice_inputs

PREDICTED_BYTES = 2**30
"""Features of new inputs that are at hand while these are predicted; one input's at least."""


@dataclass(frozen=True)
class LinearizedGP(Fitted):
    """The posterior on one task; make it with :meth:`of`, or with :func:`pipeline.gp.adapt`."""

    linearization: Linearization
    posterior: Posterior | ImplicitFunctionSpace | ImplicitParameterSpace | WeightPosterior
    noise: float
    """σ² of an observation."""
    targets: int
    """k: columns of the targets."""
    converged: bool = True
    """Whether the hyperparameters were found, where they were sought; and, where only means and
    fast variances are kept, whether the solve for the mean converged."""
    name: str = ""
    inputs: Inputs | None = None
    """What J is evaluated on again, where it is known by products only."""

    @classmethod
    def of(
        cls,
        linearization: Linearization,
        inputs: Inputs,
        targets: Float[Tensor, " n *k"],
        *,
        outputscale: float,
        noise: float,
        space: Space = "auto",
        implicit: ImplicitOptions | None = None,
    ) -> Self:
        """The posterior given one task's data, with hyperparameters as they are given.

        With ``implicit`` no features are made: products with J take their place, in function space
        unless ``space`` is ``"parameter"``.
        """
        Y = checked_targets(targets, batch_size(inputs))
        if not (implicit is None or isinstance(implicit, ImplicitOptions)):
            raise InputError(
                f"implicit takes ImplicitOptions() or None; got {implicit!r}, a "
                f"{type(implicit).__name__}."
            )
        refuse_other_width(linearization, inputs, Y)
        if implicit is None:
            found = linearization(inputs)
            residuals = residuals_of(found.offsets, Y)
            posterior: Posterior = condition(found.rows, residuals, outputscale, noise, space=space)
            return cls(linearization, posterior, noise, Y.shape[1])
        make = implicit_parameter_space if space == "parameter" else implicit_function_space
        residuals = residuals_of(linearization.offsets(inputs), Y)
        J = linearization.operator(inputs)
        solved = make(J, residuals, outputscale, noise, implicit)
        return cls(linearization, solved, noise, Y.shape[1], inputs=inputs)

    def add(self, inputs: Inputs, targets: Float[Tensor, " m *k"]) -> Self:
        """The posterior given more data, by a block update; this one stays as it is.

        Without features the solve is repeated, from the solution so far.
        """
        self._refuse_changed_network()
        Y = checked_targets(targets, batch_size(inputs))
        if Y.shape[1] != self.targets:
            raise InputError(
                f"the targets so far have {self.targets} columns, the new ones {Y.shape[1]}."
            )
        if isinstance(self.posterior, ImplicitFunctionSpace | ImplicitParameterSpace):
            assert self.inputs is not None
            if batch_size(inputs) == 0:
                raise InputError("a Gaussian process needs at least one sample; got none.")
            everything = _joined(self.inputs, inputs)
            new = residuals_of(self.linearization.offsets(inputs), Y)
            residuals = torch.cat([self.posterior.residuals, new])
            J = self.linearization.operator(everything)
            solved = more_data(self.posterior, J, residuals)
            return replace(self, posterior=solved, inputs=everything)
        found = self.linearization(inputs)
        residuals = residuals_of(found.offsets, Y)
        return replace(self, posterior=self.posterior.extended(found.rows, residuals, self.noise))

    def predict(
        self,
        inputs: Inputs,
        *,
        variance: bool = True,
        covariance: bool = False,
        allow_unconverged: bool = False,
    ) -> Predictive:
        """f at new inputs: means, variances, and the covariance between them when asked for.

        Features are made and dropped batch by batch, unless a covariance needs them all. Raises
        :class:`NotConvergedError` for the variances of a fit that did not converge, unless
        allowed. Without ``variance`` the variances are NaN.
        """
        self._refuse_changed_network()
        if (variance or covariance) and not (self.converged or allow_unconverged):
            raise NotConvergedError(
                "the fit (hyperparameters, or the solve for the mean) did not converge, so "
                "variances mean nothing yet. Fit again with more iterations, or predict with "
                "allow_unconverged=True."
            )
        gp = self._trusting() if allow_unconverged else self
        size = batch_size(inputs) if covariance else self._predicted_at_once(inputs)
        parts = [
            gp.predict_rows(self.linearization(batch), variance=variance, covariance=covariance)
            for batch in _batches(inputs, max(size, 1))
        ]
        if len(parts) == 1:
            return parts[0]
        means, variances = ([getattr(p, name) for p in parts] for name in ("mean", "variance"))
        return Predictive(torch.cat(means), torch.cat(variances), self.noise)

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
            flat = mean.new_full((len(found.rows),), math.nan)
        spread = flat.clamp(min=0).reshape(n, -1).expand(n, self.targets)
        return Predictive(mean, spread, self.noise, joint)

    def with_fast_variances(self, rank: int, *, seed: int = 0) -> Self:
        """The same means, with variances in constant time from about ``rank`` Lanczos vectors."""
        if not isinstance(
            self.posterior, FunctionSpace | ImplicitFunctionSpace | ImplicitParameterSpace
        ):
            return self
        self._refuse_changed_network()
        fast = fast_weights(self.posterior, rank, seed=seed)
        converged = self.converged
        if isinstance(self.posterior, ImplicitPosterior):
            converged = converged and self.posterior.solution.converged
        return replace(self, posterior=fast, converged=converged, inputs=None)

    def _predicted_at_once(self, inputs: Inputs) -> int:
        one = 8 * self.linearization.outputs(inputs) * self.linearization.width
        return min(self.linearization.batch, max(1, PREDICTED_BYTES // one))

    def _trusting(self) -> Self:
        """The same, with variances of unconverged solves allowed."""
        if not isinstance(self.posterior, ImplicitPosterior):
            return self
        options = replace(self.posterior.options, allow_unconverged=True)
        return replace(self, posterior=replace(self.posterior, options=options))


def _batches(inputs: Inputs, size: int) -> Iterator[Inputs]:
    for start in range(0, max(batch_size(inputs), 1), size):
        yield slice_inputs(inputs, slice(start, start + size))


def _joined(first: Inputs, second: Inputs) -> Inputs:
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return torch.cat([first, second])
    if isinstance(first, Tensor) or isinstance(second, Tensor) or first.keys() != second.keys():
        raise InputError(
            "the new samples are not in the form of those before (a tensor, or names)."
        )
    return {name: torch.cat([tensor, second[name]]) for name, tensor in first.items()}


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


def refuse_other_width(
    linearization: Linearization, inputs: Inputs, Y: Float[Tensor, "n k"]
) -> None:
    """Refuse targets that do not fit the outputs, before features are made."""
    q = linearization.outputs(inputs)
    if q > 1 and Y.shape[1] != q:
        raise InputError(
            f"the network has {q} outputs and the targets {Y.shape[1]} columns. Linearize a "
            "scalar output (output=0) to share one kernel between any number of targets."
        )
    if Y.shape[1] != q and linearization.mean != "zero":
        raise InputError(
            f"a mean function of one output cannot serve {Y.shape[1]} targets. Use mean='zero'."
        )


def residuals_of(offsets: Float[Tensor, "n q"], Y: Float[Tensor, "n k"]) -> Float[Tensor, "n*q c"]:
    """y − μ as the rows have it: one column for all outputs, or one a target of a shared row."""
    n, q = offsets.shape
    residuals = Y.to(offsets.device) - offsets
    return residuals.reshape(n * q, -1)
