"""The empirical neural tangent kernel as a GPyTorch kernel.

    k(x, x') = J(x) J(x')ᵀ

at a network's own weights. A GPyTorch model takes it like any other kernel::

    self.covar_module = ScaleKernel(EmpiricalNTK(network))

It has no hyperparameters: the scale is ``ScaleKernel``'s, and the network's weights are no
parameters of the model, so that fitting the marginal likelihood leaves them alone.
"""

import math
from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from pipeline.gp.linearization import Linearization
from pipeline.gp.row_cache import RowCache, RowSource
from pipeline.jacobian.outputs import Output
from pipeline.types import InputError, MissingExtraError

try:
    from gpytorch.kernels import Kernel
    from linear_operator import LinearOperator, to_linear_operator
    from linear_operator.operators import (
        DiagLinearOperator,
        KroneckerProductLinearOperator,
        LowRankRootLinearOperator,
        MatmulLinearOperator,
        RootLinearOperator,
    )

    from pipeline.gp.jacobian_product import JacobianProduct
except ImportError:
    raise MissingExtraError("gpytorch", "gp", "EmpiricalNTK") from None


class EmpiricalNTK(Kernel):
    """k(x, x') = J(x)J(x')ᵀ of a network, or of stored features whose row ids are the inputs.

    ``source`` is a network in eval mode (with ``sketch`` and ``output`` as
    :class:`~pipeline.gp.Linearization` takes them), a linearization, or
    :class:`~pipeline.gp.stored_rows.StoredRows`. Inputs are (…, n, d) as everywhere in GPyTorch;
    ``input_shape`` is what the network takes of each, such as ``(3, 32, 32)`` for d = 3072.

    A network of k outputs gives k × k blocks for ``output="all"``: nk rows, as
    ``MultitaskMultivariateNormal`` orders them. With a scalar output and ``tasks`` given, the
    kernel is k(x, x') ⊗ I: independent tasks that share the pseudo-NTK.

    ``implicit`` never forms J: products with the kernel are forward and backward passes, for
    GPyTorch's conjugate gradients, whose default tolerance is loose (``settings.cg_tolerance``).

    The kernel's own type (``dtype``) is what J is converted to; ``model.double()`` changes it.
    """

    def __init__(
        self,
        source: nn.Module | RowSource,
        *,
        sketch: Any = None,
        output: Output = "all",
        tasks: int | None = None,
        input_shape: Sequence[int] | None = None,
        implicit: bool = False,
    ) -> None:
        super().__init__()
        if isinstance(source, nn.Module):
            source = Linearization(source, sketch, output=output)
        elif sketch is not None or output != "all":
            raise InputError(
                "sketch and output are the linearization's or the store's: set them there."
            )
        if not isinstance(source, RowSource):
            raise InputError(
                "expected a network, a Linearization or StoredRows; got "
                f"{source if isinstance(source, type) else type(source).__name__}."
            )
        if implicit and not isinstance(source, Linearization):
            raise InputError("products without features need a network; got stored features.")
        if implicit and isinstance(source, Linearization) and source.sketch is not None:
            raise InputError(
                "products with J take all parameters of the network, and a sketch is given. Drop "
                "the sketch, or implicit."
            )
        if tasks is not None and tasks < 1:
            raise InputError(f"there must be at least one task, got {tasks}.")
        self.implicit = implicit
        self.source, self.tasks = source, tasks
        self.input_shape = None if input_shape is None else tuple(input_shape)
        self._cache = RowCache(source)
        # Follows .double() and .to(device); an empty tensor, and no part of the state.
        self.register_buffer("reference", torch.empty(0, dtype=source.dtype), persistent=False)

    @property
    def dtype(self) -> torch.dtype:
        """Type of the kernel's entries."""
        # Inputs may be row ids: their type says nothing of the entries'.
        return self.reference.dtype

    @property
    def device(self) -> torch.device:
        """Where the kernel's entries lie."""
        return self.reference.device

    def num_outputs_per_input(self, x1: Tensor, x2: Tensor) -> int:
        """Rows of the kernel per sample."""
        return self._rows_per_sample(x1) * (self.tasks or 1)

    def forward(
        self, x1: Tensor, x2: Tensor, diag: bool = False, last_dim_is_batch: bool = False, **_: Any
    ) -> Tensor | LinearOperator:
        """The kernel between (…, n, d) and (…, m, d), as a product of its rows."""
        if last_dim_is_batch:
            raise InputError("a network's kernel has no form per input dimension.")
        if self.implicit:
            product = self._implicit(x1, x2)
            return self._tasked(product.diagonal(dim1=-1, dim2=-2) if diag else product)
        left = self._rows(x1)
        right = left if x1 is x2 or torch.equal(x1, x2) else self._rows(x2)
        return self._tasked((left * right).sum(-1) if diag else _product(left, right))

    def _tasked(self, K: Tensor | LinearOperator) -> Tensor | LinearOperator:
        """K ⊗ I over independent tasks, or its diagonal."""
        if self.tasks is None:
            return K
        if isinstance(K, Tensor):
            return K.repeat_interleave(self.tasks, -1)
        ones = torch.ones(self.tasks, dtype=self.dtype, device=self.device)
        return KroneckerProductLinearOperator(K, DiagLinearOperator(ones))

    def _implicit(self, x1: Tensor, x2: Tensor) -> LinearOperator:
        assert isinstance(self.source, Linearization)
        return JacobianProduct(
            x1,
            x2,
            linearization=self.source,
            per_sample=self._rows_per_sample(x1),
            input_shape=self.input_shape,
            entries=self.dtype,
        )

    def _rows(self, x: Tensor) -> Tensor:
        """J of (…, n, d) as (…, n·q, p)."""
        inputs = self._inputs(x)
        rows = self._cache(inputs).to(self.reference)
        per_sample = len(rows) // len(inputs)
        return rows.reshape(*x.shape[:-2], x.shape[-2] * per_sample, rows.shape[-1])

    def _rows_per_sample(self, x: Tensor) -> int:
        return self._cache.rows_per_sample(self._inputs(x)[:1])

    def _inputs(self, x: Tensor) -> Tensor:
        """Samples of (…, n, d), one after the other, as the network takes them."""
        if x.numel() == 0:
            raise InputError(f"the kernel needs at least one sample; got inputs {tuple(x.shape)}.")
        inputs = x.reshape(-1, x.shape[-1])
        if self.input_shape is None:
            return inputs
        if math.prod(self.input_shape) != x.shape[-1]:
            raise InputError(
                f"input_shape {self.input_shape} has {math.prod(self.input_shape)} entries, and "
                f"the inputs have {x.shape[-1]}."
            )
        return inputs.reshape(-1, *self.input_shape)

    def expand_batch(self, *_: Any) -> Self:
        """Itself: without hyperparameters there is nothing to expand, inputs broadcast."""
        return self

    def __getitem__(self, index: Any) -> Self:
        return self

    def __deepcopy__(self, memo: Any) -> "EmpiricalNTK":
        # Copies share the network and the rows made so far.
        copied = EmpiricalNTK(
            self.source,
            tasks=self.tasks,
            input_shape=self.input_shape,
            implicit=self.implicit,
        )
        copied._cache = self._cache
        return copied.to(self.reference)


def _product(left: Tensor, right: Tensor) -> LinearOperator:
    """left · rightᵀ, formed where that is the smaller thing to keep."""
    n, p = left.shape[-2:]
    if left is not right:
        return MatmulLinearOperator(left, right.mT)
    if p < n:
        # GPyTorch then solves p×p systems: parameter space.
        return LowRankRootLinearOperator(left)
    return to_linear_operator(RootLinearOperator(left).to_dense())
