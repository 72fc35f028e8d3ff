"""The ``solver`` group of a config."""

from typing import Literal

from pydantic import Field, field_validator

from pipeline.config import Options
from pipeline.solvers.auto import SolverKind
from pipeline.solvers.ridge_scale import RidgeScale


class SolverOptions(Options):
    """How the kernel ridge regression is solved and its ridge chosen."""

    kind: SolverKind = "auto"
    """The solver; ``auto`` chooses from n, the targets and the device, and logs why."""
    ridge: Literal["telescopic"] | float | list[float] = "telescopic"
    """Ridges to choose from, in units of ``ridge_scale``: a search, one number, or a list."""
    ridge_scale: RidgeScale = "trace"
    """What a ridge of 1 means: mean(diag K) (trace), the largest eigenvalue, or 1 (absolute)."""
    tol: float = Field(default=1e-6, gt=0, lt=1)
    """Relative residual at which a fit counts as converged."""
    early_stopping_iterations: int = Field(default=3_000, ge=1)
    """Last iteration of the early-stopping curve."""

    @field_validator("ridge")
    @classmethod
    def _ridges_are_legal(cls, ridge: str | float | list[float]) -> str | float | list[float]:
        values = ridge if isinstance(ridge, list) else [ridge]
        if not values or any(not isinstance(v, str) and not 0 <= v < float("inf") for v in values):
            raise ValueError("ridges must be finite and at least 0, and there must be one")
        return ridge

    def ridges(self) -> Literal["telescopic"] | list[float]:
        """The ridges as ``fit_path`` takes them."""
        if isinstance(self.ridge, str):
            return self.ridge
        return self.ridge if isinstance(self.ridge, list) else [self.ridge]
