"""A linearization's mean function as a GPyTorch mean."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pipeline.gp.linearization import Linearization
from pipeline.types import MissingExtraError

try:
    from gpytorch.means import Mean
except ImportError:
    raise MissingExtraError("gpytorch", "gp", "LinearizationMean") from None


class LinearizationMean(Mean):
    """μ of a :class:`~pipeline.gp.Linearization`: 0, f_θ − Jθ, or f_θ.

    (…, n) for one output, (…, n, k) for several, as ``MultitaskMean`` gives. It has no parameters.
    """

    def __init__(
        self, linearization: Linearization, *, input_shape: Sequence[int] | None = None
    ) -> None:
        super().__init__()
        self.linearization = linearization
        self.input_shape = None if input_shape is None else tuple(input_shape)

    def forward(self, x: Tensor) -> Tensor:
        """μ at inputs (…, n, d), in their type."""
        inputs = x.reshape(-1, x.shape[-1])
        if self.input_shape is not None:
            inputs = inputs.reshape(len(inputs), *self.input_shape)
        offsets = self.linearization(inputs).offsets
        values = offsets.reshape(*x.shape[:-1], offsets.shape[1])
        dtype = x.dtype if x.is_floating_point() else torch.get_default_dtype()
        return (values[..., 0] if values.shape[-1] == 1 else values).to(dtype)

    def __deepcopy__(self, memo: Any) -> "LinearizationMean":
        # Copies share the network.
        return LinearizationMean(self.linearization, input_shape=self.input_shape)
