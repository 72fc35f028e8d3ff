"""Products with the Jacobian J (n·q, P) of all parameters, without forming it.

    J v    one forward-mode pass a batch (``torch.func.jvp``)
    Jᵀ u   one forward and one backward pass a batch (``torch.func.vjp``)
    J Jᵀ u both: a product with the empirical NTK

Rows run sample by sample, output by output: row i·q + j is output j of sample i, as
``jacobian_features(…, output="all")`` flattens. Columns run through ``named_parameters()`` in
order. Cost and memory do not depend on n·P: where a sketch's features (n, p) fit, they are faster.
"""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.jacobian.outputs import Output, scalars
from pipeline.jacobian.parameters import ParameterFunction, Tree, batches
from pipeline.types import InputError, Inputs, batch_size

logger = logging.getLogger(__name__)

BATCH = 64
"""Samples of one pass."""
CHUNK = 8
"""Vectors that one pass carries at once, where that is faster than one after the other."""

COLUMN_BYTES = 2**30
"""Of the columns of length P that lie between Jᵀ and J, at four copies each; at least one is."""

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


class JacobianOperator:
    """J (n·q, P) of a network at its weights, on some samples.

    ``output`` as :func:`jacobian_features` takes it (a direction by ``seed``): ``"all"`` gives
    q = k rows a sample, a scalar output one. ``parameters`` names those that J has columns for,
    None all. ``batch`` samples and ``chunk`` vectors (None: :func:`default_chunk`) are carried at
    once, which bounds the memory; samples lie on the model's device. Raises :class:`InputError` for
    training mode, samples that mix, and unknown parameters.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: Inputs,
        *,
        output: Output = "all",
        seed: int = 0,
        parameters: Sequence[str] | None = None,
        batch: int = BATCH,
        chunk: int | None = None,
    ) -> None:
        self._function = ParameterFunction(
            model, lambda logits: scalars(logits, output, seed), parameters
        )
        self._inputs, self._batch, self._chunk = inputs, batch, chunk or default_chunk(model)
        self._outputs = self._function.checked(inputs)

    @property
    def shape(self) -> tuple[int, int]:
        """(n·q, P)."""
        return batch_size(self._inputs) * self._outputs, self._function.size

    @property
    def dtype(self) -> torch.dtype:
        """The network's type, which products have."""
        return self._function.dtype

    @property
    def device(self) -> torch.device:
        """The network's device, which products lie on."""
        return self._function.device

    def matmul(self, V: Float[Tensor, " P *m"]) -> Float[Tensor, " N *m"]:
        """J V for one vector (P,) or a block (P, m)."""
        columns = as_columns(V, self._function.size)
        tangents = self._function.tree(columns)
        result = self._empty(self.shape[0], columns.shape[1])
        with self._function.differentiable():
            values = self._function.values()
            for rows, inputs in batches(self._inputs, self._batch):
                push = partial(_pushed, self._function.of(inputs), values)
                result[self._rows(rows)] = by_column(push, tangents, self._chunk).flatten(1).T
        return result.reshape(-1, *V.shape[1:])

    def t_matmul(self, U: Float[Tensor, " N *m"]) -> Float[Tensor, " P *m"]:
        """Jᵀ U for one vector (n·q,) or a block (n·q, m)."""
        columns = as_columns(U, self.shape[0]).to(self.device, self.dtype)
        total = self._empty(self._function.size, columns.shape[1]).zero_()
        with self._function.differentiable():
            values = self._function.values()
            for rows, inputs in batches(self._inputs, self._batch):
                pull = torch.func.vjp(self._function.of(inputs), values)[1]
                cotangents = columns[self._rows(rows)].T.unflatten(1, (-1, self._outputs))
                (pulled,) = by_column(pull, cotangents, self._chunk)
                total += self._function.flat(pulled)
        return total.reshape(-1, *U.shape[1:])

    def kernel_matmul(self, U: Float[Tensor, " N *m"]) -> Float[Tensor, " N *m"]:
        """J Jᵀ U: the empirical NTK times one vector (n·q,) or a block (n·q, m)."""
        if U.ndim == 1:
            return self.matmul(self.t_matmul(U))
        together = max(1, COLUMN_BYTES // (4 * self._function.size * self.dtype.itemsize))
        return torch.cat([self.matmul(self.t_matmul(part)) for part in U.split(together, dim=1)], 1)

    def _rows(self, samples: slice) -> slice:
        return slice(samples.start * self._outputs, samples.stop * self._outputs)

    def _empty(self, rows: int, columns: int) -> Tensor:
        return torch.empty(rows, columns, dtype=self.dtype, device=self.device)


def _pushed(outputs: Callable[[Tree], Tensor], values: Tree, tangent: Tree) -> Tensor:
    pushed: Tensor = torch.func.jvp(outputs, (values,), (tangent,))[1]
    return pushed


def default_chunk(model: nn.Module) -> int:
    """Vectors to carry at once on this network.

    Convolutions of several vectors become grouped ones under ``vmap``: eight products Jᵀu of a
    CIFAR ResNet-20 took 2.6 times as long together as in turn on a CPU.
    """
    convolves = any(isinstance(module, CONVOLUTIONS) for module in model.modules())
    on_cpu = all(parameter.device.type == "cpu" for parameter in model.parameters())
    return 1 if convolves and on_cpu else CHUNK


def as_columns(V: Tensor, size: int) -> Float[Tensor, "size m"]:
    """One vector as one column; a block as it is."""
    if V.ndim not in (1, 2) or len(V) != size or V.numel() == 0:
        raise InputError(
            f"expected a vector ({size},) or a block ({size}, m), got {tuple(V.shape)}."
        )
    return V.unsqueeze(1) if V.ndim == 1 else V


def by_column(function: Callable[[Any], Any], vectors: Any, chunk: int) -> Any:
    """``function`` of every vector along the leading axis of a tensor or tree, some at a time.

    A network that ``torch.func.vmap`` cannot follow is run for one vector after the other.
    """
    is_tensor = isinstance(vectors, Tensor)
    count = len(vectors if is_tensor else next(iter(vectors.values())))
    if min(count, chunk) > 1:
        try:
            return torch.func.vmap(function, chunk_size=chunk)(vectors)
        except (RuntimeError, ValueError, TypeError) as error:
            # Control flow that depends on values, or an operation without a batching rule.
            logger.debug("vmap does not run this network (%s): one vector at a time", error)
    if is_tensor:
        found = [function(vector) for vector in vectors]
    else:
        found = [function({k: parts[i] for k, parts in vectors.items()}) for i in range(count)]
    return _stacked(found)


def _stacked(found: list[Any]) -> Any:
    """Tensors, dictionaries or tuples of one structure as one, along a new leading axis."""
    if isinstance(found[0], Tensor):
        return torch.stack(found)
    if isinstance(found[0], dict):
        return {name: _stacked([tree[name] for tree in found]) for name in found[0]}
    return tuple(_stacked(list(parts)) for parts in zip(*found, strict=True))
