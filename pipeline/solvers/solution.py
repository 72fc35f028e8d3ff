"""What every solver returns: dual weights and how it ended."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Solution:
    """Dual weights α of (K + ridge·I)α = Y."""

    dual_weights: Float[Tensor, "n k"]
    iterations: int
    """Products with K that an iterative solver took; 0 for a direct one."""
    converged: bool
    """Whether the solver's own stopping rule was met; the certificate measures the truth."""
