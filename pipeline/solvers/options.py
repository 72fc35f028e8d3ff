"""The ``solver`` group of a config."""

from typing import Literal

from pydantic import Field, field_validator

from pipeline.config import Options
from pipeline.solvers.auto import SolverKind
from pipeline.solvers.ridge_scale import RidgeScale


class SolverOptions(Options):
    """Kernel ridge regression over the whole regularization path."""

    kind: SolverKind = "auto"
    """How the systems are solved; auto chooses from n, k and the device, and says why."""
    ridge: Literal["telescopic"] | float | tuple[float, ...] = "telescopic"
    """Coarse-to-fine search on the selection split, one value, or a list to choose from."""
    ridge_scale: RidgeScale = "trace"
    """Unit of the ridge: the mean of K's diagonal (trace), its largest eigenvalue, or 1."""
    tol: float = Field(default=1e-6, gt=0, lt=1)
    """Relative residual at which a solution counts as converged."""
    max_iterations: int = Field(default=1000, ge=1)
    """Length of the early-stopping curve, in Nesterov steps."""

    @field_validator("ridge")
    @classmethod
    def _ridges_are_legal(
        cls, ridge: str | float | tuple[float, ...]
    ) -> str | float | tuple[float, ...]:
        values = ridge if isinstance(ridge, tuple) else (ridge,)
        numbers = [value for value in values if not isinstance(value, str)]
        if not values or any(not 0 <= value < float("inf") for value in numbers):
            raise ValueError("ridges must be finite and at least 0, and there must be one")
        return ridge

    def ridges(self) -> Literal["telescopic"] | tuple[float, ...]:
        """The ridges as ``fit_path`` takes them."""
        if isinstance(self.ridge, float):
            return (self.ridge,)
        return self.ridge
