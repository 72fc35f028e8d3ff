"""Fisher products by one backward pass, as the papers made them (Maddox et al. 2021, section 4.2).

    F v ≈ ‖v‖ ∇_θ′ KL(p_θ ‖ p_θ′) / ε   at θ′ = θ + ε v/‖v‖

The divergence is smallest at θ′ = θ, so its gradient there is F's product but for O(ε²). No step ε
suits every direction: too small a one drowns in rounding, too large a one in curvature, and
gradients and random vectors differ by orders of magnitude. The step is therefore chosen by a scan
over :data:`STEPS` on one batch, for directions of the kind that will come, against the exact
product; its error there is reported. What was solved with these products wants its residual from
an exact one.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.jacobian.fisher import FisherOperator
from pipeline.jacobian.likelihoods import Likelihood
from pipeline.jacobian.operators import BATCH, as_columns
from pipeline.jacobian.parameters import ParameterFunction, all_outputs, batches
from pipeline.types import InputError, Inputs, slice_inputs

STEPS = tuple(10.0 ** (-half / 2) for half in range(17))
"""1 … 1e-8: steps ε that are tried, for directions of length 1."""


@dataclass(frozen=True)
class StepScan:
    """What each step's error was: the largest over the probes, ‖F_ε v − F v‖ / ‖F v‖."""

    steps: tuple[float, ...]
    errors: tuple[float, ...]

    @property
    def best(self) -> tuple[float, float]:
        """The step of the smallest error, and that error."""
        error, step = min(zip(self.errors, self.steps, strict=True))
        return step, error


class FiniteDifferenceFisher:
    """F (P, P) by finite differences of the divergence's gradient: one backward pass a product.

    ``probes`` (P, m) are directions of the kind that will be multiplied; without them, one image
    F r of a random r (by ``seed``), as the vectors of conjugate gradients are. ``scan`` holds the
    error of every step on the first batch, ``step`` and ``error`` the best one. The network must
    not change afterwards: a product then raises :class:`InputError`.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: Inputs,
        likelihood: Likelihood,
        *,
        probes: Float[Tensor, "P m"] | None = None,
        seed: int = 0,
        parameters: Sequence[str] | None = None,
        batch: int = BATCH,
    ) -> None:
        self._function = ParameterFunction(model, all_outputs, parameters)
        self._inputs, self._likelihood, self._batch = inputs, likelihood, batch
        first = slice_inputs(inputs, slice(0, batch))
        exact = FisherOperator(model, first, likelihood, parameters=parameters, batch=batch)
        self.shape, self.dtype, self.device = exact.shape, exact.dtype, exact.device
        self._versions = self._function.versions()
        with torch.no_grad(), self._function.differentiable():
            values = self._function.values()
            parts = [self._function.of(part)(values) for _, part in batches(inputs, batch)]
        self._f = torch.cat(parts).double()
        self.scan = self._scanned(exact, _image(exact, seed) if probes is None else probes)
        self.step, self.error = self.scan.best

    def matmul(self, V: Float[Tensor, " P *m"]) -> Float[Tensor, " P *m"]:
        """F V for one vector (P,) or a block (P, m), to about ``error``."""
        if self._function.versions() != self._versions:
            raise InputError(
                "the network's weights changed after this operator was made. Make it anew."
            )
        columns = as_columns(V, self.shape[0]).to(self.device)
        found = [self._product(v, self.step, self._inputs) for v in columns.T]
        return torch.stack(found, 1).to(self.dtype).reshape(V.shape)

    def _scanned(self, exact: FisherOperator, probes: Tensor) -> StepScan:
        columns = as_columns(probes, self.shape[0])
        wanted = exact.matmul(columns).double()
        first = slice_inputs(self._inputs, slice(0, self._batch))
        errors = []
        for step in STEPS:
            found = torch.stack([self._product(v, step, first) for v in columns.T], 1)
            error = float(((found - wanted).norm(dim=0) / wanted.norm(dim=0)).max())
            # A step that leaves the finite numbers is no choice.
            errors.append(error if math.isfinite(error) else math.inf)
        return StepScan(STEPS, tuple(errors))

    def _product(self, v: Tensor, step: float, inputs: Inputs) -> Float[Tensor, " P"]:
        """One product in float64: differences of outputs and sums over batches are taken in it."""
        total = torch.zeros(len(v), dtype=torch.float64, device=self.device)
        norm = float(v.norm())
        if norm == 0:
            return total
        direction = self._function.tree(v.unsqueeze(1) / norm)
        values = self._function.values()
        moved = {name: values[name] + step * part[0] for name, part in direction.items()}
        leaves = {name: value.requires_grad_() for name, value in moved.items()}
        for rows, part in batches(inputs, self._batch):
            with torch.enable_grad(), self._function.differentiable():
                f = self._function.of(part)(leaves).double()
                divergence = self._likelihood.divergence(self._f[rows], f)
                gradients = torch.autograd.grad(
                    divergence, list(leaves.values()), materialize_grads=True
                )
            total += torch.cat([gradient.to_dense().flatten() for gradient in gradients]).double()
        return total * (norm / step)


def _image(exact: FisherOperator, seed: int) -> Float[Tensor, "P 1"]:
    generator = torch.Generator().manual_seed(seed)
    r = torch.randn(exact.shape[0], 1, generator=generator, dtype=torch.float64)
    return exact.matmul(r.to(exact.device, exact.dtype))
