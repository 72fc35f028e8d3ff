"""The number format of the passes, and how well results can agree in it."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from pipeline.types import InputError

TOLERANCES = {"float64": 1e-7, "float32": 2e-3, "tf32": 3e-2, "bfloat16": 2e-1}
"""Relative error beyond which two computations of one gradient are not the same gradient."""


@dataclass(frozen=True)
class Precision:
    """How forward and backward are computed."""

    kind: str
    device_type: str

    @staticmethod
    def of(model: nn.Module, compute_dtype: str | None) -> "Precision":
        """The asked precision, checked against the model's dtype; the model's own for None."""
        parameter = next(iter(model.parameters()))
        own = str(parameter.dtype).removeprefix("torch.")
        kind = own if compute_dtype is None else compute_dtype
        if kind not in TOLERANCES:
            raise InputError(
                f"compute_dtype {kind!r} is not known: expected one of {', '.join(TOLERANCES)}."
            )
        needed = "float64" if kind == "float64" else "float32"
        if own != needed and not (kind == "bfloat16" and own == "bfloat16"):
            raise InputError(
                f"compute_dtype {kind!r} needs a model in {needed}, found {own}. "
                f"Convert it: model.{'double' if needed == 'float64' else 'float'}()."
            )
        return Precision(kind, parameter.device.type)

    @property
    def dtype(self) -> torch.dtype:
        """The features' dtype."""
        return torch.float64 if self.kind == "float64" else torch.float32

    @property
    def input_dtype(self) -> torch.dtype:
        """The dtype of floating-point inputs."""
        return self.dtype

    @property
    def tolerance(self) -> float:
        """See :data:`TOLERANCES`."""
        return TOLERANCES[self.kind]

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """TF32 switches and autocast as asked, inside; the process's settings after."""
        matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
        before = matmul.allow_tf32, cudnn.allow_tf32
        matmul.allow_tf32 = cudnn.allow_tf32 = self.kind in ("tf32", "bfloat16")
        try:
            with torch.autocast(self.device_type, torch.bfloat16, self.kind == "bfloat16"):
                yield
        finally:
            matmul.allow_tf32, cudnn.allow_tf32 = before
