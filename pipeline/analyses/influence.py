"""Which training samples made a prediction, and what it would be without them: exactly.

With A = (K + ridge·I)⁻¹ and α = A Y, a prediction is k_xᵀα = Σᵢ k(x, xᵢ) αᵢ: sample i contributes
k(x, xᵢ) αᵢ to it. A fit without the rows S has the weights α − A[:, S] A[S, S]⁻¹ α_S (zero on S),
so that, with W = K_cross A,

    f(x) − f₋ₛ(x) = W[x, S] A[S, S]⁻¹ α_S

exactly, for one row (leave-one-out) as for many. The targets' mean is taken as given, not left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pipeline.solvers.cholesky import cholesky_factor, inverse_diagonal
from pipeline.solvers.operator import Array, DenseKernel, as_columns, as_tensor, product
from pipeline.solvers.refusal import check_kernel, check_targets
from pipeline.types import InputError


@dataclass(frozen=True)
class InfluenceMachine:
    """A fitted ridge regression that knows what each training row did to it."""

    factor: Float[Tensor, "n n"]
    """Lower L with LLᵀ = K + ridge·I, float64."""
    dual_weights: Float[Tensor, "n k"]
    """α"""

    def predictions(self, K_cross: Array) -> Float[Tensor, "m k"]:
        """K_cross α of other rows, without the targets' mean."""
        return product(as_tensor(K_cross), self.dual_weights)

    def contributions(self, K_cross: Array, output: Int[Tensor, " m"]) -> Float[Tensor, "m n"]:
        """k(x, xᵢ) αᵢ for one output of each row x: they add up to its prediction."""
        return contributions(as_tensor(K_cross).to(self.factor), self.dual_weights, output)

    def leave_one_out(self, K_cross: Array, output: Int[Tensor, " m"]) -> Float[Tensor, "m n"]:
        """f(x) − f₋ᵢ(x) for one output of each row x: what training on sample i added."""
        W = self._smoothed(K_cross)
        residuals = self.dual_weights / inverse_diagonal(self.factor)[:, None]
        return W * _chosen(output, residuals)

    def without(self, K_cross: Array, rows: Sequence[int]) -> Float[Tensor, "m k"]:
        """f(x) − f₋ₛ(x) of every output: what training on the rows S together added."""
        chosen = self._checked(rows)
        n = len(self.factor)
        columns = torch.eye(n, dtype=self.factor.dtype, device=self.factor.device)[:, chosen]
        A_S = torch.cholesky_solve(columns, self.factor)
        residuals = torch.linalg.solve(A_S[chosen], self.dual_weights[chosen])
        return product(as_tensor(K_cross), A_S @ residuals)

    def _smoothed(self, K_cross: Array) -> Float[Tensor, "m n"]:
        """W = K_cross A."""
        return torch.cholesky_solve(as_tensor(K_cross).to(self.factor).T, self.factor).T

    def _checked(self, rows: Sequence[int]) -> Int[Tensor, " s"]:
        n, chosen = len(self.factor), torch.as_tensor(list(rows), dtype=torch.int64)
        if len(chosen) == 0 or len(chosen) >= n or len(chosen.unique()) < len(chosen):
            raise InputError(
                f"a group to leave out holds 1 … {n - 1} different rows of {n}, found "
                f"{len(chosen)} with {len(chosen) - len(chosen.unique())} repeated."
            )
        if int(chosen.min()) < 0 or int(chosen.max()) >= n:
            raise InputError(f"training rows are 0 … {n - 1}, found {int(chosen.max())}.")
        return chosen


def influence_machine(K: Array, Y: Array, ridge: float) -> InfluenceMachine:
    """The machine of K (n, n), targets (n, k) and an absolute ridge: one Cholesky factor."""
    operator = DenseKernel(K)
    check_kernel(operator.K)
    targets = as_columns(Y, operator.device)
    check_targets(operator, targets)
    factor = cholesky_factor(operator, ridge)
    return InfluenceMachine(factor, torch.cholesky_solve(targets, factor))


def contributions(
    K_cross: Float[Tensor, "m n"], dual_weights: Float[Tensor, "n k"], output: Int[Tensor, " m"]
) -> Float[Tensor, "m n"]:
    """k(x, xᵢ) αᵢ for one output of each row x, from dual weights alone: no factor of K."""
    return K_cross * _chosen(output, dual_weights)


def _chosen(output: Int[Tensor, " m"], values: Float[Tensor, "n k"]) -> Float[Tensor, "m n"]:
    """One column of ``values`` for each row x, as rows."""
    k = values.shape[1]
    if bool(((output < 0) | (output >= k)).any()):
        raise InputError(f"outputs are 0 … {k - 1}, found {output.unique().tolist()}.")
    return values.T[output]
