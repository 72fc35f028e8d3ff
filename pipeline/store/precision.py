"""From gradients to stored numbers: one power-of-two scale, one type, no silent infinity."""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.types import InputError

StoredDtype = Literal["float16", "bfloat16", "float32"]

TORCH_DTYPES: dict[str, torch.dtype] = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
}

# Zarr has no bfloat16: its 16 bits are stored as an unsigned integer, named in an attribute.
NUMPY_DTYPES: dict[str, np.dtype] = {
    "float16": np.dtype("<f2"),
    "bfloat16": np.dtype("<u2"),
    "float32": np.dtype("<f4"),
}

LARGEST_SCALED = 8
"""The scale brings the largest entry of the first rows to at most 2⁸: float16 ends near 2¹⁶."""

ROWS_AT_ONCE = 16


class NonFiniteFeatureError(InputError):
    """A feature that is NaN or infinite, by itself or because the stored type cannot hold it."""


def power_of_two_scale(first_rows: Float[Tensor, "n p"]) -> float:
    """The power of two that brings the largest entry of the first rows into (2⁷, 2⁸].

    Multiplying with it is exact; it is fixed before the first shard and recorded.
    """
    largest = float(first_rows.abs().max())
    if not math.isfinite(largest):
        raise NonFiniteFeatureError(
            "the first rows' gradients hold a value that is NaN or infinite. "
            "Check the network's weights and the inputs, or compute in float32."
        )
    if largest == 0.0:
        return 1.0
    # An exponent of float32: features as small as 1e-45 would overflow the scale itself.
    return 2.0 ** min(LARGEST_SCALED - math.ceil(math.log2(largest)), 126)


def convert(
    phi: Float[Tensor, "n p"], out: Float[Tensor, "n p"], scale: float, ids: Sequence[str]
) -> None:
    """Write ``phi · scale`` to ``out``, in its type; ``ids[i]`` names row i's sample in errors.

    Raises :class:`NonFiniteFeatureError` for a value that is not finite before or after.
    """
    largest = torch.finfo(out.dtype).max
    # Some rows at a time: a scaled copy of a whole batch would double the peak.
    for start in range(0, len(phi), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        scaled = phi[rows] * scale
        converted = scaled.to(out.dtype)
        low, high = scaled.aminmax()
        # A twentieth of the time of asking every entry; NaN is within no bounds.
        if not (low >= -largest and high <= largest):
            finite = torch.isfinite(converted)
            if not bool(finite.all()):
                row, column = (int(i) for i in torch.nonzero(~finite)[0])
                value = float(phi[start + row, column])
                name = str(out.dtype).removeprefix("torch.")
                _refuse(value, column, ids[start + row], name, scale)
        out[rows] = converted


def storage_view(tensor: Tensor) -> np.ndarray:
    """The tensor's memory as the NumPy type in which it is stored (bfloat16 as uint16)."""
    plain = tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor
    view: np.ndarray = plain.numpy()
    return view


def _refuse(value: float, column: int, sample: str, dtype: str, scale: float) -> None:
    if math.isfinite(value):
        raise NonFiniteFeatureError(
            f"the gradient of sample {sample!r} in column {column}, {value:.4g}, overflows {dtype} "
            f"at the store's scale {scale:g}. Use features.dtype=bfloat16 or float32."
        )
    raise NonFiniteFeatureError(
        f"the gradient of sample {sample!r} in column {column} is {value}. Check the network's "
        "weights and this input; features.compute_dtype=float32 if it is lower now."
    )
