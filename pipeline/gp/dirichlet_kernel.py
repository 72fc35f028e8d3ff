"""Dirichlet-label regression on a kernel that is at hand, all classes from one eigendecomposition.

Every class has the prior N(0, sK) and noise of two values (Milios et al. 2018): low on its own
rows, high on all others. With K = QΛQᵀ and A = sK + σ²_high I, a class differs from A in its own
n_c rows only, so that with D = σ²_high − σ²_low and E those columns of I

    (A − D EEᵀ)⁻¹ = A⁻¹ + A⁻¹E (I/D − EᵀA⁻¹E)⁻¹ EᵀA⁻¹
    log det(A − D EEᵀ) = log det A + n_c log D + log det(I/D − EᵀA⁻¹E)

costs n n_c² a class, at any outputscale and concentration.
"""

import math
from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Float, Int
from scipy.optimize import minimize_scalar
from torch import Tensor

from pipeline.gp.categorical import one_hot
from pipeline.gp.dirichlet import CONCENTRATION, DirichletLabels
from pipeline.solvers.eigh import eigendecomposition
from pipeline.types import InputError

SCALE_DECADES = 6
"""Outputscales are sought within this many powers of ten of 1 / mean diag K."""


@dataclass(frozen=True)
class OwnRows:
    """What the rows of one class change in A⁻¹."""

    rows: Int[Tensor, " c"]
    factor: Float[Tensor, "c c"]
    """Cholesky factor of I/D − EᵀA⁻¹E."""


@dataclass(frozen=True)
class DirichletFit:
    """The posterior at one outputscale and concentration."""

    outputscale: float
    concentration: float
    centre: float
    """What targets are measured from: their mean over rows and classes."""
    log_marginal_likelihood: float
    """Of the transformed labels of all classes, in nats."""
    dual_weights: Float[Tensor, "n k"]
    vectors: Float[Tensor, "n n"]
    shrunk: Float[Tensor, " n"]
    """Eigenvalues of A⁻¹."""
    own: tuple[OwnRows, ...]

    def moments(
        self, cross: Float[Tensor, "m n"], diagonal: Float[Tensor, " m"]
    ) -> tuple[Float[Tensor, "m k"], Float[Tensor, "m k"]]:
        """Means and variances of the classes' logits, from k(x, train) and k(x, x)."""
        s = self.outputscale
        cross = s * cross.double()
        coordinates = cross @ self.vectors
        prior = s * diagonal.double() - (coordinates.square() * self.shrunk).sum(dim=1)
        variances = []
        for own in self.own:
            seen = (coordinates * self.shrunk) @ self.vectors[own.rows].T
            whitened = torch.linalg.solve_triangular(own.factor, seen.T, upper=False)
            variances.append(prior - whitened.square().sum(dim=0))
        spread = torch.stack(variances, dim=1).clamp(min=0)
        return self.centre + cross @ self.dual_weights, spread


@dataclass(frozen=True)
class DirichletKernel:
    """Training labels and their kernel; make it with :meth:`of`."""

    values: Float[Tensor, " n"]
    vectors: Float[Tensor, "n n"]
    Y: Float[Tensor, "n k"]
    """One-hot labels."""

    @classmethod
    def of(cls, K: Float[Tensor, "n n"], labels: Int[Tensor, " n"], classes: int) -> Self:
        """From K among the training rows. Raises :class:`InputError` for a label out of range."""
        if K.shape != (len(labels), len(labels)):
            raise InputError(f"{len(labels)} labels have a kernel of shape {tuple(K.shape)}.")
        values, vectors = eigendecomposition(K)
        if not float(values.sum()) > 0:
            raise InputError("the kernel is zero on every row: the network ignores its weights.")
        return cls(values.clamp(min=0), vectors, one_hot(labels, classes))

    def fit(self, outputscale: float, concentration: float = CONCENTRATION) -> DirichletFit:
        """The posterior at these hyperparameters."""
        if not outputscale > 0:
            raise InputError(f"the outputscale must be above 0, got {outputscale}.")
        labels = DirichletLabels.of(self.Y, concentration)
        high, low = float(labels.noise.max()), float(labels.noise.min())
        centre = float(labels.targets.mean())
        R = labels.targets - centre
        shrunk = 1 / (outputscale * self.values + high)
        coordinates = self.vectors.T @ R
        base = self.vectors @ (coordinates * shrunk[:, None])
        n, k = self.Y.shape
        duals, own, logdet = [], [], -k * float(shrunk.log().sum())
        for c in range(k):
            part = self._own_rows(c, shrunk, high - low)
            logdet += len(part.rows) * math.log(high - low)
            logdet += 2 * float(part.factor.diagonal().log().sum())
            lift = torch.cholesky_solve(base[part.rows, c : c + 1], part.factor)
            moved = self.vectors @ (shrunk[:, None] * (self.vectors[part.rows].T @ lift))
            duals.append(base[:, c] + moved[:, 0])
            own.append(part)
        dual = torch.stack(duals, dim=1)
        quadratic = float((R * dual).sum())
        evidence = -0.5 * (quadratic + logdet + n * k * math.log(2 * math.pi))
        return DirichletFit(
            outputscale,
            concentration,
            centre,
            evidence,
            dual,
            self.vectors,
            shrunk,
            tuple(own),
        )

    def likeliest(self, concentration: float = CONCENTRATION) -> DirichletFit:
        """The posterior at the outputscale of the largest marginal likelihood."""
        middle = -math.log(float(self.values.mean()))
        reach = SCALE_DECADES * math.log(10)

        def loss(log_scale: float) -> float:
            return -self.fit(math.exp(log_scale), concentration).log_marginal_likelihood

        bounds = (middle - reach, middle + reach)
        found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 0.05})
        return self.fit(math.exp(found.x), concentration)

    def _own_rows(self, c: int, shrunk: Tensor, difference: float) -> OwnRows:
        rows = self.Y[:, c].nonzero()[:, 0]
        Q = self.vectors[rows]
        inner = -(Q * shrunk) @ Q.T
        inner.diagonal().add_(1 / difference)
        return OwnRows(rows, torch.linalg.cholesky((inner + inner.T) / 2))
