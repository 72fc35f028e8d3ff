"""A network as a function of a chosen part of its parameters, laid out as one long vector."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from pipeline.jacobian.batch_dependence import refuse_batch_dependence
from pipeline.jacobian.checks import refuse_no_batch, refuse_no_network, refuse_training_mode
from pipeline.jacobian.fallback import Scalars
from pipeline.jacobian.outputs import scalars
from pipeline.jacobian.precision import Precision
from pipeline.jacobian.probe import two_samples
from pipeline.jacobian.tensor_version import Version, tensor_version
from pipeline.types import InputError, Inputs, batch_size, logits_of, slice_inputs

Tree = dict[str, Tensor]
"""Values by parameter name: (*shape), or (m, *shape) for m vectors."""


class ParameterFunction:
    """θ ↦ outputs (b, q) of a batch, as ``torch.func`` takes it.

    ``parameters`` are names of :meth:`nn.Module.named_parameters`, None all of them; a vector of
    P entries holds them one after the other in the model's own order. A tied weight has one place.
    The network is taken as it is at the time of a call, in its own dtype and on its own device.
    Raises :class:`InputError` for unknown names and for a network in training mode.
    """

    def __init__(
        self, model: nn.Module, scalars: Scalars, parameters: Sequence[str] | None = None
    ) -> None:
        refuse_no_network(model)
        refuse_training_mode(model)
        known = dict(model.named_parameters())
        unknown = sorted(set(parameters or ()) - set(known))
        if unknown or not known or (parameters is not None and not parameters):
            raise InputError(
                f"parameters {', '.join(unknown) or 'none'} of {type(model).__name__}: expected "
                f"some of {', '.join(known) or 'its parameters, of which it has none'}."
            )
        chosen = set(known if parameters is None else parameters)
        self.model, self._scalars = model, scalars
        self.shapes = {name: p.shape for name, p in known.items() if name in chosen}
        self.size = sum(shape.numel() for shape in self.shapes.values())
        first = next(iter(known.values()))
        self.dtype, self.device = first.dtype, first.device
        self.precision = Precision.of(model, None)

    def values(self) -> Tree:
        """θ, without a graph."""
        known = dict(self.model.named_parameters())
        return {name: known[name].detach() for name in self.shapes}

    def versions(self) -> tuple[Version, ...]:
        """What changes when a weight is written to or replaced."""
        return tuple(tensor_version(parameter) for parameter in self.model.parameters())

    def of(self, inputs: Inputs) -> Callable[[Tree], Float[Tensor, "b q"]]:
        """The outputs of one batch as a function of the chosen parameters."""
        args, kwargs = ((inputs,), {}) if isinstance(inputs, Tensor) else ((), dict(inputs))

        def outputs(values: Mapping[str, Tensor]) -> Tensor:
            result = torch.func.functional_call(self.model, dict(values), args, kwargs)
            return self._scalars(logits_of(result))

        return outputs

    def tree(self, V: Float[Tensor, "P m"]) -> Tree:
        """m vectors, by name: (m, *shape) each, in the network's dtype."""
        parts = V.T.to(self.device, self.dtype).split([s.numel() for s in self.shapes.values()], 1)
        return {
            name: part.reshape(-1, *shape)
            for (name, shape), part in zip(self.shapes.items(), parts, strict=True)
        }

    def flat(self, tree: Mapping[str, Tensor]) -> Float[Tensor, "P m"]:
        """The inverse of :meth:`tree`."""
        return torch.cat([tree[name].to_dense().flatten(1) for name in self.shapes], 1).T

    def checked(self, inputs: Inputs) -> int:
        """q, the outputs per sample. Raises :class:`InputError` if samples of a batch mix."""
        refuse_no_batch(inputs)
        first = two_samples(inputs)
        refuse_batch_dependence(self.model, first, self.precision.tolerance, self._scalars)
        with torch.no_grad():
            return self.of(first)(self.values()).shape[1]

    @contextlib.contextmanager
    def differentiable(self) -> Iterator[None]:
        """Inside, products run in full precision and attention by parts.

        Fused kernels have no forward-mode derivative on CPUs.
        """
        mha = torch.backends.mha
        fused = mha.get_fastpath_enabled()
        mha.set_fastpath_enabled(False)
        try:
            with self.precision.active(), sdpa_kernel(SDPBackend.MATH):
                yield
        finally:
            mha.set_fastpath_enabled(fused)


def all_outputs(logits: Tensor) -> Float[Tensor, "b k"]:
    """Every output by itself."""
    return scalars(logits, "all")


def batches(inputs: Inputs, size: int) -> Iterator[tuple[slice, Inputs]]:
    """Rows and samples of one batch after the other; the last may be shorter."""
    if size < 1:
        raise InputError(f"expected batches of at least one sample, got {size}.")
    n = batch_size(inputs)
    for start in range(0, n, size):
        rows = slice(start, min(start + size, n))
        yield rows, slice_inputs(inputs, rows)
