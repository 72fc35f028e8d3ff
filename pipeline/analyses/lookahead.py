"""What the outputs on a pool would become if a candidate were labelled, without refitting.

Around a function f₀ (a trained network, or zero), kernel regression on the labelled rows L gives
f₀ + K(·, L) A r with A = (K_LL + λI)⁻¹ and r = y − f₀(L). With LLᵀ = K_LL + λI, V = L⁻¹ K(L, pool)
and z = L⁻¹ r, labelling a candidate x adds to it (METHODS; paper 003, look-ahead)

    C(·, x) (C(x, x) + λI)⁻¹ e,   C(x̃, x) = k(x̃, x) − V_x̃ᵀ V_x,   e = y_x − f₀(x) − V_xᵀ z

so every candidate costs a product, and a label that has come is one more row of L, V and z.

A sample has q rows of features. With q = 1 (pseudo-NTK) K is (n, n) and the k outputs are columns
of one system; with q = k (full eNTK) K is (n·k, n·k), rows running sample by sample, and blocks are
k × k. Labels are classes; a candidate's label is the most likely one (MLMOC, most likely model
output change), or all of them in expectation (EMOC).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pipeline.types import InputError

Strategy = Literal["mlmoc", "emoc"]

CHUNK = 256
"""Candidates whose changes are held at once."""


class PoolKernel(Protocol):
    """The kernel among all rows of a pool, read by columns."""

    @property
    def rows_per_sample(self) -> int:
        """q: 1 for a scalar output, k for the full eNTK."""
        ...

    def columns(self, samples: Int[Tensor, " c"]) -> Float[Tensor, "N cq"]:
        """k(pool, samples), float64 (m·q, c·q)."""
        ...


@dataclass(frozen=True)
class DensePool:
    """A pool whose kernel is in memory."""

    K: Float[Tensor, "N N"]
    rows_per_sample: int = 1

    def columns(self, samples: Int[Tensor, " c"]) -> Float[Tensor, "N cq"]:
        """k(pool, samples)."""
        return self.K[:, rows_of(samples, self.rows_per_sample)].double()


def rows_of(samples: Int[Tensor, " c"], q: int) -> Int[Tensor, " cq"]:
    """The rows of some samples, q each."""
    return (samples[:, None] * q + torch.arange(q, device=samples.device)).flatten()


@dataclass(frozen=True)
class LookAhead:
    """Kernel regression around f₀ on the labelled samples of a pool, ready to be extended."""

    kernel: PoolKernel
    ridge: float
    """λ, absolute."""
    base: Float[Tensor, "m k"]
    """f₀ on the whole pool."""
    labelled: Int[Tensor, " n"]
    """Labelled samples, in the order of their labels' coming."""
    factor: Float[Tensor, "N N"]
    """L, lower (n·q, n·q)."""
    whitened: Float[Tensor, "N M"]
    """V = L⁻¹ K(L, pool), (n·q, m·q)."""
    targets: Float[Tensor, "N t"]
    """z = L⁻¹ r: (n, k) for q = 1, (n·k, 1) for q = k."""

    @classmethod
    def start(
        cls,
        kernel: PoolKernel,
        base: Float[Tensor, "m k"],
        labelled: Sequence[int],
        labels: Sequence[int],
        ridge: float,
    ) -> Self:
        """The regression on the samples labelled so far; there may be none."""
        q, base = kernel.rows_per_sample, base.double()
        m, k = base.shape
        if q not in (1, k):
            raise InputError(f"a sample has 1 or k = {k} rows of features, found {q}.")
        if not ridge > 0:
            raise InputError(f"look-ahead needs a ridge above 0, got {ridge}.")
        empty = cls(
            kernel=kernel,
            ridge=ridge,
            base=base,
            labelled=torch.empty(0, dtype=torch.int64),
            factor=base.new_empty(0, 0),
            whitened=base.new_empty(0, m * q),
            targets=base.new_empty(0, k // q),
        )
        return empty.reveal(labelled, labels) if len(labelled) else empty

    def reveal(self, samples: Sequence[int], labels: Sequence[int]) -> Self:
        """The regression with more labels: rows are appended, nothing is factorized again."""
        new = self._checked(samples, labels)
        rows = rows_of(new, self.kernel.rows_per_sample)
        K_new = self.kernel.columns(new)
        known = self.whitened[:, rows]
        left = K_new.T - known.T @ self.whitened
        corner = left[:, rows]
        corner = (corner + corner.T) / 2
        corner.diagonal().add_(self.ridge)
        L = torch.linalg.cholesky(corner)
        residual = self._residual(new, torch.as_tensor(labels)) - known.T @ self.targets
        below = torch.cat([known.T, L], dim=1)
        above = torch.nn.functional.pad(self.factor, (0, len(rows)))
        return type(self)(
            kernel=self.kernel,
            ridge=self.ridge,
            base=self.base,
            labelled=torch.cat([self.labelled, new]),
            factor=torch.cat([above, below]),
            whitened=torch.cat([self.whitened, _solve(L, left)]),
            targets=torch.cat([self.targets, _solve(L, residual)]),
        )

    def dual_weights(self) -> Float[Tensor, "N t"]:
        """A r: one row of weights for each row of a labelled sample."""
        return torch.linalg.solve_triangular(self.factor.T, self.targets, upper=True)

    def outputs(self) -> Float[Tensor, "m k"]:
        """f₀ + K(·, L) A r on the pool: what the labels so far make of it."""
        return self.base + self._shift().reshape(self.base.shape)

    def changes(
        self, candidate: int, label: int, reference: Float[Tensor, "m k"] | None = None
    ) -> Float[Tensor, "m k"]:
        """The pool's outputs if the candidate had that label, minus the reference.

        The reference is what they are now (:meth:`outputs`) unless given: f₀ for example, as the
        look-ahead paper measures the change from the trained network.
        """
        chosen = torch.tensor([candidate])
        shift = self._offset(reference)
        gain, error = self.gain(chosen), self._errors(chosen, torch.tensor([label]))
        return (shift + torch.einsum("ncq,cqt->nt", gain, error)).reshape(self.base.shape)

    def scores(
        self,
        candidates: Sequence[int],
        strategy: Strategy = "mlmoc",
        reference: Float[Tensor, "m k"] | None = None,
        temperature: float = 1.0,
    ) -> Float[Tensor, " c"]:
        """Σ_pool ‖change‖₂ of every candidate, under the label that the strategy supposes.

        MLMOC supposes the class of the largest reference output; EMOC weighs all classes by
        softmax(reference / temperature).
        """
        now = self.outputs()
        supposed = (now if reference is None else reference.double()) / temperature
        shift, samples = self._offset(reference), torch.as_tensor(list(candidates))
        self.refuse_labelled(samples)
        return torch.cat(
            [
                scores_of(self.gain(chunk), now[chunk], supposed[chunk], shift, strategy)
                for chunk in samples.split(CHUNK)
            ]
        )

    def conditional(self, samples: Int[Tensor, " c"]) -> Float[Tensor, "M cq"]:
        """C(·, x) of every sample x: its kernel with the pool, given what is labelled."""
        rows = rows_of(samples, self.kernel.rows_per_sample)
        return self.kernel.columns(samples) - self.whitened.T @ self.whitened[:, rows]

    def gain(self, samples: Int[Tensor, " c"]) -> Float[Tensor, "M c q"]:
        """C(·, x) (C(x, x) + λI)⁻¹ of every sample x."""
        rows = rows_of(samples, self.kernel.rows_per_sample)
        return gain_of(self.conditional(samples), rows, self.kernel.rows_per_sample, self.ridge)

    def _shift(self) -> Float[Tensor, "M t"]:
        """K(pool, L) A r."""
        return self.whitened.T @ self.targets

    def _offset(self, reference: Tensor | None) -> Float[Tensor, "M t"]:
        """What is added before any candidate is: zero where changes are from what there is."""
        shift = self._shift()
        if reference is None:
            return torch.zeros_like(shift)
        return shift + (self.base - reference.double()).reshape(shift.shape)

    def _errors(self, samples: Tensor, labels: Tensor) -> Float[Tensor, "c q t"]:
        """e = y_x − f₀(x) − V_xᵀ z."""
        q = self.kernel.rows_per_sample
        known = self.whitened[:, rows_of(samples, q)].T @ self.targets
        return (self._residual(samples, labels) - known).unflatten(0, (-1, q))

    def _residual(self, samples: Tensor, labels: Tensor) -> Float[Tensor, "N t"]:
        one_hot = torch.nn.functional.one_hot(labels, self.base.shape[1])
        residual = one_hot.double() - self.base[samples]
        return residual.reshape(len(samples) * self.kernel.rows_per_sample, -1)

    def _checked(self, samples: Sequence[int], labels: Sequence[int]) -> Int[Tensor, " c"]:
        new, given = torch.as_tensor(list(samples)), torch.as_tensor(list(labels))
        m, k = self.base.shape
        if len(new) != len(given) or len(new) == 0 or len(new.unique()) < len(new):
            raise InputError(
                f"expected as many labels as different samples, found {len(new)} samples "
                f"({len(new.unique())} different) and {len(given)} labels."
            )
        if int(new.min()) < 0 or int(new.max()) >= m:
            raise InputError(f"pool samples are 0 … {m - 1}, found {new.tolist()}.")
        if int(given.min()) < 0 or int(given.max()) >= k:
            raise InputError(f"labels are 0 … {k - 1}, found {sorted(set(given.tolist()))}.")
        self.refuse_labelled(new)
        return new

    def refuse_labelled(self, samples: Int[Tensor, " c"]) -> None:
        """Raise :class:`InputError` if one of them is labelled already."""
        again = samples[torch.isin(samples, self.labelled)]
        if len(again):
            raise InputError(
                f"{len(again)} of the samples are labelled already (first: {int(again[0])}): "
                "candidates and labelled samples must not overlap."
            )


def gain_of(
    C: Float[Tensor, "M cq"], rows: Int[Tensor, " cq"], q: int, ridge: float
) -> Float[Tensor, "M c q"]:
    """C(·, x) (C(x, x) + λI)⁻¹ of every sample x, whose rows are ``rows``."""
    blocks = C.unflatten(1, (-1, q))
    every = torch.arange(blocks.shape[1])[:, None, None]
    own = blocks[rows.view(-1, q, 1), every, torch.arange(q)]
    own = own + ridge * torch.eye(q, dtype=torch.float64)
    if q == 1:
        return blocks / own[:, 0]
    return torch.linalg.solve(own, blocks.permute(1, 2, 0)).permute(2, 0, 1)


def scores_of(
    gain: Float[Tensor, "M c q"],
    now: Float[Tensor, "c k"],
    supposed: Float[Tensor, "c k"],
    shift: Float[Tensor, "M t"],
    strategy: Strategy,
) -> Float[Tensor, " c"]:
    """Σ_pool ‖change‖₂ of candidates whose outputs are ``now``.

    MLMOC supposes the class of the largest ``supposed``, EMOC weighs all by its softmax.
    """
    q, k = gain.shape[2], now.shape[1]

    def sizes(labels: Int[Tensor, " c"]) -> Float[Tensor, " c"]:
        error = torch.nn.functional.one_hot(labels, k).double() - now
        return _sizes(shift, gain, error.reshape(len(now), q, -1), k)

    if strategy == "mlmoc":
        return sizes(supposed.argmax(dim=1))
    total = torch.zeros(len(now), dtype=torch.float64)
    for label, probability in enumerate(supposed.softmax(dim=1).T):
        total += probability * sizes(torch.full((len(now),), label))
    return total


def _sizes(
    shift: Float[Tensor, "M t"],
    gain: Float[Tensor, "M c q"],
    error: Float[Tensor, "c q t"],
    k: int,
) -> Float[Tensor, " c"]:
    """Σ over samples of ‖shift + gain · error‖₂, the norm over the k outputs."""
    if gain.shape[2] == 1:
        u, e = gain[:, :, 0], error[:, 0]
        if not bool(shift.any()):
            return u.abs().sum(dim=0) * e.norm(dim=1)
        # ‖s + u e‖² from its three parts: the changes themselves, (m, c, k), are never held.
        squares = u.square() * e.square().sum(dim=1) + 2 * u * (shift @ e.T)
        squares += shift.square().sum(dim=1, keepdim=True)
        return squares.clamp(min=0).sqrt().sum(dim=0)
    changes = shift + torch.einsum("ncq,cq->nc", gain, error[:, :, 0])
    return changes.unflatten(0, (-1, k)).norm(dim=1).sum(dim=0)


def _solve(L: Float[Tensor, "a a"], right: Float[Tensor, "a b"]) -> Float[Tensor, "a b"]:
    return torch.linalg.solve_triangular(L, right, upper=False)
