"""How much of a sample's feature vector lies outside the span of the training rows'.

The representer theorem lets a kernel machine see only what the training features span: of a test
row x the share r(x) = 1 − k_xᵀ K⁺ k_x / k(x, x) of the squared norm is lost to it. How the eNTK
does on data outside the span is named as future work on the poster.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.solvers.eigh import eigendecomposition


@dataclass(frozen=True)
class TrainingSpan:
    """The span of the training rows' features, by the eigenvectors of K that count."""

    whitening: Float[Tensor, "n r"]
    """V Λ^(−1/2) of the eigenvalues above the tolerance, float64: its square is K⁺."""

    @classmethod
    def of(cls, K: Float[Tensor, "n n"], tolerance: float) -> "TrainingSpan":
        """Directions whose eigenvalue is above ``tolerance`` times the largest; none for K = 0."""
        eigenvalues, vectors = eigendecomposition(K)
        counted = eigenvalues > max(tolerance * float(eigenvalues[-1]), 0.0)
        return cls(vectors[:, counted] / eigenvalues[counted].sqrt())

    @property
    def rank(self) -> int:
        """Number of directions that count."""
        return self.whitening.shape[1]

    def share_outside(
        self, K_cross: Float[Tensor, "m n"], diagonal: Float[Tensor, " m"]
    ) -> Float[Tensor, " m"]:
        """r(x) of every row, in [0, 1]; 0 for a row whose features are zero."""
        within = (K_cross.to(self.whitening) @ self.whitening).square().sum(dim=1)
        share = 1.0 - within / diagonal.to(self.whitening)
        return torch.where(diagonal > 0, share.clamp(0.0, 1.0), 0.0)
