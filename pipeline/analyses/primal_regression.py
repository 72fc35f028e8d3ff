"""Kernel ridge regression on more rows than features, whose kernel is never formed.

With K = ΦΦᵀ the predictions φ(x)ᵀ(ΦᵀΦ + λI)⁻¹ΦᵀY are those of the n × n kernel (push-through
identity), and ΦᵀΦ (p, p) and ΦᵀY are sums over rows: features are computed, added and forgotten.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.artefact import atomic_path, canonical_json, read_checkpoint
from pipeline.types import InputError


@dataclass
class Moments:
    """ΦᵀΦ and ΦᵀY of the rows so far, float64."""

    inner: Float[Tensor, "p p"]
    cross: Float[Tensor, "p t"]
    rows: int = 0

    @classmethod
    def empty(cls, p: int, t: int) -> "Moments":
        """Those of no row."""
        return cls(torch.zeros(p, p, dtype=torch.float64), torch.zeros(p, t, dtype=torch.float64))

    def add(self, phi: Float[Tensor, "b p"], targets: Float[Tensor, "b t"]) -> None:
        """Some rows more. Products are float64: float32's rounding would hide ridges below 1e-5."""
        phi = phi.double()
        self.inner.addmm_(phi.T, phi)
        self.cross.addmm_(phi.T, targets.double())
        self.rows += len(phi)

    def mean_diagonal(self) -> float:
        """tr K / n, the unit of a relative ridge."""
        return float(self.inner.diagonal().sum()) / self.rows

    def solve(self, ridges: Sequence[float]) -> list[Float[Tensor, "p t"]]:
        """θ for every ridge, relative to the mean of K's diagonal."""
        if self.rows == 0:
            raise InputError("a regression needs one row at least.")
        found = []
        for ridge in ridges:
            shifted = self.inner.clone()
            shifted.diagonal().add_(ridge * self.mean_diagonal())
            factor, failed = torch.linalg.cholesky_ex(shifted)
            if int(failed):
                raise InputError(
                    f"ridge {ridge:g} is lost in the rounding of {self.rows} rows. "
                    "Use a larger one.",
                    "ridges",
                )
            found.append(torch.cholesky_solve(self.cross, factor))
        return found

    def save(self, path: Path, made_from: Any) -> None:
        """Keep the sums, with what they were made from."""
        with atomic_path(path) as partial:
            torch.save({"made_from": canonical_json(made_from), **vars(self)}, partial)

    @classmethod
    def kept(cls, path: Path, made_from: Any) -> "Moments | None":
        """The sums kept there, if they were made from the same."""
        if not path.is_file():
            return None
        found = read_checkpoint(path)
        if found.pop("made_from", None) != canonical_json(made_from):
            return None
        return cls(**found)
