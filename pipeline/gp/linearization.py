"""A network linearized at its weights: the features and the mean function of a Gaussian process.

    f(x) = μ(x) + J(x) θ′,   θ′ ~ N(0, s I)

over the kept parameters of a sketch, J weighted so that J Jᵀ estimates the kernel of all
parameters without bias. The mean functions (Maddox et al. 2021, section 3; the sign of θ − θ′ in
their equation 1 is misprinted):

| mean | μ(x) | prior of the linearized weights |
|---|---|---|
| ``zero`` | 0 | the finite NTK |
| ``linearized`` | f_θ(x) − J(x)θ | N(0, sI): the linearized network |
| ``network`` | f_θ(x) | N(θ, sI) |

Rows run sample by sample, output by output: row i·q + j is output j of sample i, with q = k for
``output="all"`` and q = 1 for a scalar output.
"""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.jacobian.checks import refuse_training_mode
from pipeline.jacobian.extractor import FeatureExtractor
from pipeline.jacobian.fallback import run_model
from pipeline.jacobian.operators import JacobianOperator
from pipeline.jacobian.outputs import Output, scalars
from pipeline.jacobian.tensor_version import Version, tensor_version
from pipeline.types import InputError, Inputs, batch_size, move_inputs, slice_inputs

Mean = Literal["zero", "linearized", "network"]
"""The mean function μ."""

BATCH = 256
"""Samples of one pass: large enough for full speed, small beside the features."""


@dataclass(frozen=True)
class LinearRows:
    """What a linearization says of some samples."""

    rows: Float[Tensor, "n*q p"]
    """J, weighted, sample by sample."""
    offsets: Float[Tensor, "n c"]
    """μ in float64: one column a row's output, or one a target where the targets share J."""


class Linearization:
    """A network at fixed weights, seen as a linear model in its parameters.

    ``output`` is what :func:`pipeline.jacobian.jacobian_features` takes: ``"all"`` gives every
    output its own rows and one shared θ′; a scalar output (a logit's number, ``"sum"``,
    ``"random_direction"``) gives one row a sample, and several targets are then independent with
    that kernel (the pseudo-NTK ⊗ I). ``sketch`` keeps some parameters, None all of them.
    The network is used as it is at the time of a call: a process refuses one whose weights changed
    after its fit.
    Raises :class:`InputError` for a network in training mode, and for an output that is not
    differentiable.
    """

    def __init__(
        self,
        model: nn.Module,
        sketch: Any = None,
        *,
        output: Output = "all",
        mean: Mean = "zero",
        seed: int = 0,
        batch: int = BATCH,
        compute_dtype: str | None = None,
    ) -> None:
        if mean not in get_args(Mean):
            raise InputError(f"mean must be one of {', '.join(get_args(Mean))}; got {mean!r}.")
        self.model, self.sketch = model, sketch
        self.output, self.mean, self.seed, self.batch = output, mean, seed, batch
        self.compute_dtype = compute_dtype
        self._derivative = False
        self._extract = FeatureExtractor(
            model, sketch, output=output, seed=seed, compute_dtype=compute_dtype
        )
        self._weights = None if sketch is None else sketch.column_weights
        self._kept = _kept_parameters(model, sketch) if mean == "linearized" else None

    @property
    def device(self) -> torch.device:
        """Where the network lies and the features are made."""
        return self._extract.device

    @property
    def dtype(self) -> torch.dtype:
        """Type in which features are computed."""
        return self._extract.precision.dtype

    @property
    def width(self) -> int:
        """p, the columns of J."""
        if self.sketch is not None:
            return int(self.sketch.size)
        return sum(parameter.numel() for parameter in self.model.parameters())

    @property
    def version(self) -> tuple[Version, ...]:
        """Changes when a weight or a buffer of the network is written to, or replaced."""
        tensors = [*self.model.parameters(), *self.model.buffers()]
        return tuple(tensor_version(tensor) for tensor in tensors)

    def rows(self, inputs: Inputs) -> Float[Tensor, "n*q p"]:
        """J alone."""
        return self(inputs).rows

    def __call__(self, inputs: Inputs) -> LinearRows:
        """J and μ of some samples, in batches."""
        n = batch_size(inputs)
        if n == 0:
            raise InputError("a Gaussian process needs at least one sample; got none.")
        parts = [
            self._of_batch(slice_inputs(inputs, slice(start, start + self.batch)))
            for start in range(0, n, self.batch)
        ]
        rows = torch.cat([part.rows for part in parts])
        self._refuse_no_derivative(rows, n)
        return LinearRows(rows, torch.cat([part.offsets for part in parts]))

    def outputs(self, inputs: Inputs) -> int:
        """q, the rows of a sample, from a forward pass of two."""
        # Before a pass that would write to the running statistics of a BatchNorm.
        refuse_training_mode(self.model)
        if batch_size(inputs) == 0:
            raise InputError("a Gaussian process needs at least one sample; got none.")
        with torch.no_grad():
            logits = run_model(self.model, self._moved(slice_inputs(inputs, slice(0, 2))))
            return scalars(logits, self.output, self.seed).shape[1]

    def _refuse_no_derivative(self, rows: Tensor, n: int) -> None:
        # One sample alone may have none, where its units are all dead.
        self._derivative = self._derivative or bool(rows.any())
        if n > 1 and not self._derivative:
            raise InputError(
                "the output has no derivative by any kept parameter: it is not differentiable "
                "(rounded, detached, an argmax?), or the kept parameters do not reach it."
            )

    def operator(self, inputs: Inputs) -> JacobianOperator:
        """J by its products, never formed; of all parameters only."""
        if self.sketch is not None:
            raise InputError(
                "products with J take all parameters of the network, and a sketch is given. Drop "
                "the sketch, or use explicit features."
            )
        refuse_nonfinite(inputs)
        return JacobianOperator(
            self.model, self._moved(inputs), output=self.output, seed=self.seed, batch=self.batch
        )

    def offsets(self, inputs: Inputs) -> Float[Tensor, "n c"]:
        """μ without forming J, for networks without a sketch."""
        J = self.operator(inputs)
        q = J.shape[0] // batch_size(inputs)
        if self.mean == "zero":
            return torch.zeros(batch_size(inputs), q, dtype=torch.float64, device=self.device)
        parts = [
            slice_inputs(inputs, slice(start, start + self.batch))
            for start in range(0, batch_size(inputs), self.batch)
        ]
        with torch.no_grad():
            f0 = torch.cat([run_model(self.model, self._moved(part)) for part in parts]).double()
        values = scalars(f0, self.output, self.seed)
        if self._kept is None:
            return values
        return values - J.matmul(self._kept.to(J.device, J.dtype)).double().reshape(values.shape)

    def _moved(self, inputs: Inputs) -> Inputs:
        return move_inputs(inputs, self.device, self._extract.precision.input_dtype)

    def _of_batch(self, inputs: Inputs) -> LinearRows:
        found = self._extract(inputs)
        phi = found.phi.reshape(-1, found.phi.shape[-1])
        offsets = self._offsets(phi, found.f0)
        if self._weights is not None:
            phi = phi * self._weights.to(phi)
        return LinearRows(phi, offsets)

    def _offsets(self, phi: Tensor, f0: Tensor) -> Tensor:
        f0 = f0.double()
        if self.mean == "zero":
            return torch.zeros_like(f0 if self.output == "all" else f0[:, :1])
        values = scalars(f0, self.output, self.seed)
        if self._kept is None:
            return values
        return values - (phi.double() @ self._kept.to(phi.device)).reshape(values.shape)


def refuse_nonfinite(inputs: Inputs) -> None:
    """Raise :class:`InputError` for NaN or infinity: products would carry it to every sample."""
    for values in [inputs] if isinstance(inputs, Tensor) else inputs.values():
        finite = torch.isfinite(values).reshape(len(values), -1).all(dim=1)
        if not bool(finite.all()):
            raise InputError(
                f"sample {int((~finite).nonzero()[0])} of {len(values)} holds NaN or infinity."
            )


def _kept_parameters(model: nn.Module, sketch: Any) -> Float[Tensor, " p"]:
    """θ on the kept parameters: only they move, the others stay at their values."""
    theta = torch.cat([parameter.detach().flatten() for parameter in model.parameters()]).double()
    if sketch is None:
        return theta
    if not hasattr(sketch, "indices"):
        raise InputError(
            f"mean 'linearized' needs J(x)θ, and a {sketch.kind} sketch keeps no parameters of "
            "its own. Use mean 'network' or 'zero', or an element sketch."
        )
    return theta[sketch.indices.to(theta.device)]
