"""Products with the Fisher information F = Σ_i JᵢᵀHᵢJᵢ (P, P), without forming it.

u = J v by forward mode, H u from the likelihood, JᵀH u by one backward pass; F sums over samples.
With Gaussian outputs of variance σ², JᵀJ = σ²F. The Gauss–Newton matrix of a negative
log-likelihood is the same thing for every likelihood here but the heteroscedastic one, where F is
its expectation.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.jacobian.likelihoods import Likelihood
from pipeline.jacobian.operators import BATCH, as_columns, by_column, default_chunk
from pipeline.jacobian.parameters import ParameterFunction, Tree, all_outputs, batches
from pipeline.types import Inputs


class FisherOperator:
    """F (P, P) of a network at its weights, by exact products.

    All k outputs enter; ``parameters``, ``batch`` and ``chunk`` as for
    :class:`~pipeline.jacobian.operators.JacobianOperator`.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: Inputs,
        likelihood: Likelihood,
        *,
        parameters: Sequence[str] | None = None,
        batch: int = BATCH,
        chunk: int | None = None,
    ) -> None:
        self._function = ParameterFunction(model, all_outputs, parameters)
        self._function.checked(inputs)
        self._inputs, self._likelihood = inputs, likelihood
        self._batch, self._chunk = batch, chunk or default_chunk(model)

    @property
    def shape(self) -> tuple[int, int]:
        """(P, P)."""
        return self._function.size, self._function.size

    @property
    def dtype(self) -> torch.dtype:
        """The network's type, which products have."""
        return self._function.dtype

    @property
    def device(self) -> torch.device:
        """The network's device, which products lie on."""
        return self._function.device

    def matmul(self, V: Float[Tensor, " P *m"]) -> Float[Tensor, " P *m"]:
        """F V for one vector (P,) or a block (P, m)."""
        columns = as_columns(V, self._function.size)
        tangents = self._function.tree(columns)
        total = torch.zeros(columns.shape, dtype=self.dtype, device=self.device)
        with self._function.differentiable():
            for _, inputs in batches(self._inputs, self._batch):
                total += self._function.flat(self._of_batch(inputs, tangents))
        return total.reshape(V.shape)

    def _of_batch(self, inputs: Inputs, tangents: Tree) -> Tree:
        values, outputs = self._function.values(), self._function.of(inputs)
        forward = torch.func.vjp(outputs, values)
        f, pull = forward[0].detach(), forward[1]

        def product(tangent: Tree) -> tuple[Tree]:
            pushed = torch.func.jvp(outputs, (values,), (tangent,))[1]
            pulled: tuple[Tree] = pull(self._likelihood.hessian_product(f, pushed))
            return pulled

        (found,) = by_column(product, tangents, self._chunk)
        return dict(found)
