"""How far features of one number format are from those of float64, and the kernel with them.

found = features_by_precision(network, images, sketch)
feature_error(found["bfloat16"], found["float64"], sketch.column_weights)
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.jacobian.extractor import FeatureExtractor
from pipeline.jacobian.outputs import Output
from pipeline.jacobian.parameters import batches
from pipeline.types import Inputs


@dataclass(frozen=True)
class FeatureError:
    """Relative errors against float64."""

    median: float
    """‖φ − φ₆₄‖ / ‖φ₆₄‖ of the median sample."""
    largest: float
    """The same of the worst sample: a ReLU's mask that flips with rounding shows here."""
    kernel: float
    """‖K − K₆₄‖ / ‖K₆₄‖ in the Frobenius norm."""
    kernel_spectral: float
    """‖K − K₆₄‖₂ / λ₁: beside a ridge in units of λ₁ it says what the format can resolve."""


def feature_error(
    phi: Float[Tensor, "n p"],
    wanted: Float[Tensor, "n p"],
    weights: Float[Tensor, " p"] | None = None,
) -> FeatureError:
    """Errors of ``phi`` and of its kernel, against float64 features; K is formed in float64."""
    found, wanted = phi.double(), wanted.double()
    samples = (found - wanted).norm(dim=1) / wanted.norm(dim=1)
    K = _kernel(wanted, weights)
    difference = _kernel(found, weights) - K
    spectral = torch.linalg.matrix_norm(difference, 2) / torch.linalg.matrix_norm(K, 2)
    return FeatureError(
        median=float(samples.median()),
        largest=float(samples.max()),
        kernel=float(difference.norm() / K.norm()),
        kernel_spectral=float(spectral),
    )


def features_by_precision(
    model: nn.Module,
    inputs: Inputs,
    sketch: Any = None,
    *,
    kinds: Sequence[str] = ("float32", "bfloat16", "float64"),
    output: Output = 0,
    seed: int = 0,
    batch: int = 64,
) -> Mapping[str, Float[Tensor, "n p"]]:
    """Features of some samples in every number format asked for; the model stays as it is.

    ``tf32`` differs from ``float32`` on GPUs alone. All copies lie on the model's device.
    """
    found = {}
    for kind in kinds:
        network = copy.deepcopy(model).to(torch.float64 if kind == "float64" else torch.float32)
        extract = FeatureExtractor(network, sketch, output=output, seed=seed, compute_dtype=kind)
        found[kind] = torch.cat([extract(part).phi.cpu() for _, part in batches(inputs, batch)])
    return found


def _kernel(phi: Tensor, weights: Tensor | None) -> Float[Tensor, "n n"]:
    scaled = phi if weights is None else phi * weights.to(phi)
    return scaled @ scaled.T
