"""What is saved beside every shard's features: activations, outputs, labels and ids."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from pipeline.store.precision import NonFiniteFeatureError
from pipeline.types import InputError


def sample_arrays(
    count: int, *, ids: Sequence[str], labels: Any, f0: Any, penultimate: Any | None
) -> dict[str, np.ndarray]:
    """One array per quantity, each with ``count`` rows and finite.

    Raises :class:`NonFiniteFeatureError` naming the first sample whose values are not.
    """
    arrays = {
        "ids": np.asarray(list(ids), dtype=np.str_),
        "labels": _labels(labels),
        "f0": _float32(f0),
    }
    if penultimate is not None:
        arrays["penultimate"] = _float32(penultimate)
    for name, values in arrays.items():
        if len(values) != count:
            raise InputError(f"there are {count} samples, got {len(values)} {name}.")
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            bad = int(np.argwhere(~np.isfinite(values))[0][0])
            raise NonFiniteFeatureError(
                f"{name} of sample {ids[bad]!r} is not finite. "
                "Check the network's weights and this input."
            )
    return arrays


def npz_bytes(arrays: Mapping[str, np.ndarray]) -> bytes:
    """The arrays as an uncompressed ``.npz`` file; equal arrays give equal bytes."""
    buffer = io.BytesIO()
    np.savez(buffer, **dict(arrays))  # type: ignore[arg-type]
    return buffer.getvalue()


def npy_bytes(array: np.ndarray) -> bytes:
    """The array as an ``.npy`` file."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def _float32(values: Any) -> np.ndarray:
    array: np.ndarray = torch.as_tensor(values).detach().to("cpu", torch.float32).numpy()
    return array


def _labels(values: Any) -> np.ndarray:
    array = np.asarray(values)
    if array.dtype.kind not in "iufb":
        raise InputError(f"labels must be numbers, got {array.dtype}.")
    return array.astype(np.float64 if array.dtype.kind == "f" else np.int64)
