"""The kernel of all parameters, exactly: panel after panel of parameters, never the whole gradient.

Features of one panel for all rows, their product added to K, then the next panel: each panel costs
a pass over the samples, and memory holds K and one panel whatever the network's size.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.gram.device import DeviceSums
from pipeline.gram.panels import column_ranges_of
from pipeline.jacobian import FeatureExtractor
from pipeline.jacobian.outputs import Output
from pipeline.sketch import make_sketch
from pipeline.sketch.base import ElementSketch
from pipeline.store.precision import TORCH_DTYPES, NonFiniteFeatureError, power_of_two_scale
from pipeline.types import Inputs, batch_size, slice_inputs


def exact_kernel(
    model: nn.Module,
    inputs: Inputs,
    *,
    panel_columns: int,
    batch: int = 128,
    dtype: Literal["float16", "bfloat16", "float32"] = "float32",
    compute_dtype: str | None = None,
    output: Output = 0,
    seed: int = 0,
) -> Float[Tensor, "n n"]:
    """K = ∇f ∇fᵀ over all parameters, float32, on the model's device, where samples (n, …) lie too.

    ``panel_columns`` parameters are kept at once, n × panel_columns numbers of ``dtype``; 16-bit
    ones are multiplied by one power of two that spreads the first batch's gradients over the type's
    range, and summed in float32. Raises :class:`NonFiniteFeatureError` where one does not fit.
    """
    n = batch_size(inputs)
    everything = make_sketch("full", model)
    ranges = column_ranges_of(everything.size, width=panel_columns)
    panels = [_some(everything, columns) for columns in ranges]

    def features(sketch: ElementSketch, rows: int) -> Iterator[tuple[slice, Float[Tensor, "b w"]]]:
        extract = FeatureExtractor(
            model, sketch, output=output, seed=seed, compute_dtype=compute_dtype
        )
        for start in range(0, rows, batch):
            part = slice(start, min(start + batch, rows))
            yield part, extract(slice_inputs(inputs, part)).phi

    first = (phi for sketch in panels for _, phi in features(sketch, min(batch, n)))
    scale = 1.0 if dtype == "float32" else min(power_of_two_scale(phi) for phi in first)
    device = next(model.parameters()).device
    sums = DeviceSums.zeros(n, [], device)
    values = torch.empty(n * panels[0].size, dtype=TORCH_DTYPES[dtype], device=device)
    for sketch in panels:
        panel = values[: n * sketch.size].view(n, -1)
        for rows, phi in features(sketch, n):
            panel[rows] = phi.float() * scale
        sums.add([panel])
    return _symmetric(sums.K) / scale**2


def _some(everything: ElementSketch, columns: slice) -> ElementSketch:
    return replace(
        everything,
        kind="panel",
        indices=everything.indices[columns],
        column_weights=everything.column_weights[columns],
    )


def _symmetric(lower: Float[Tensor, "n n"]) -> Float[Tensor, "n n"]:
    """The matrix of a lower triangle, its faults named."""
    diagonal = lower.diagonal()
    if not bool(torch.isfinite(diagonal).all()):
        row = int((~torch.isfinite(diagonal)).nonzero()[0])
        raise NonFiniteFeatureError(
            f"row {row} has a gradient that is not finite in the type that panels keep. "
            "Use dtype='bfloat16' or 'float32'."
        )
    return lower.tril() + lower.tril(-1).T
