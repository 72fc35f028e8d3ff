"""Kernel ridge regression with scikit-learn's conventions, over every solver of this package."""

from typing import Any, Literal, Self

import numpy as np
import torch
from jaxtyping import Float
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from pipeline.solvers.auto import Choice, SolverKind, choose_solver
from pipeline.solvers.certificate import Certificate, certify
from pipeline.solvers.feature_kernel import FeatureKernel
from pipeline.solvers.operator import (
    Array,
    DenseKernel,
    KernelOperator,
    as_columns,
    as_tensor,
    product,
)
from pipeline.solvers.refusal import check_kernel, check_ridge, check_targets
from pipeline.solvers.ridge_scale import RidgeScale, ridge_unit
from pipeline.solvers.solution import Solution
from pipeline.solvers.solve import Problem, default_deflation, solve
from pipeline.solvers.spectrum import Spectrum, spectrum_of
from pipeline.types import InputError


class KernelRidge(RegressorMixin, BaseEstimator):
    """α = (K + ridge·I)⁻¹Y; predictions are K_test α.

    ``ridge`` is relative to mean(diag K) (``ridge_scale="trace"``), to λ_max ("lambda_max"), or
    absolute; one number, or one per target. ``kernel`` is "precomputed" (K is given; NumPy or
    torch, float32 or float64, on any device) or "linear" (features are given and K = ΦΦᵀ is never
    formed). Products run in float64. A kernel that is none is refused with the offending row, and
    a ridge under K's rounding error with the smallest one allowed.

    After ``fit``: ``dual_coef_`` (n, k) float64, ``certificate_`` (a list of them where ridges
    differ by target), ``ridge_`` (absolute), ``solver_`` and ``reason_`` (what was chosen, why).
    """

    def __init__(
        self,
        ridge: float | list[float] = 1e-3,
        *,
        solver: SolverKind = "auto",
        kernel: Literal["precomputed", "linear"] = "precomputed",
        tol: float = 1e-6,
        ridge_scale: RidgeScale = "trace",
        seed: int = 0,
    ) -> None:
        self.ridge = ridge
        self.solver = solver
        self.kernel = kernel
        self.tol = tol
        self.ridge_scale = ridge_scale
        self.seed = seed

    def fit(self, X: Array, y: Array) -> Self:
        """Fit on K (n, n), or on features (n, p) with ``kernel="linear"``; y is (n,) or (n, k)."""
        operator = self._operator(X)
        Y = as_columns(y, operator.device)
        check_targets(operator, Y)
        spectrum = spectrum_of(operator, seed=self.seed)
        unit = ridge_unit(operator, self.ridge_scale, spectrum.lambda_max)
        ridges = np.broadcast_to(np.asarray(self.ridge, dtype=np.float64), Y.shape[1]) * unit
        choice = choose_solver(self.solver, operator, Y.shape[1], path=False)
        problem = Problem(operator, Y, spectrum, self.tol)
        alpha, certificates = self._solved(problem, ridges, choice)
        self.ridge_ = float(ridges[0]) if np.ndim(self.ridge) == 0 else ridges.copy()
        self.certificate_ = certificates[0] if len(certificates) == 1 else certificates
        self.solver_, self.reason_ = choice.solver, choice.reason
        self.n_features_in_ = X.shape[1]
        self._training = as_tensor(X) if self.kernel == "linear" else None
        self.dual_coef_ = _like(X, alpha if y.ndim == 2 else alpha[:, 0])
        return self

    def predict(self, X: Array) -> Array:
        """K_test α in float64, for K_test (m, n), or features (m, p) with ``kernel="linear"``."""
        check_is_fitted(self, "dual_coef_")
        if X.ndim != 2 or X.shape[1] != self.n_features_in_:
            raise InputError(
                f"this fit has {self.n_features_in_} columns; found shape {tuple(X.shape)}."
            )
        dual = torch.as_tensor(self.dual_coef_)
        weights = dual[:, None] if dual.ndim == 1 else dual
        if self._training is not None:
            weights = _feature_weights(self._training, weights)
        predictions = product(as_tensor(X), weights)
        return _like(X, predictions[:, 0] if dual.ndim == 1 else predictions)

    def _operator(self, X: Array) -> KernelOperator:
        if self.kernel == "linear":
            return FeatureKernel(X)
        if self.kernel != "precomputed":
            raise InputError(f"unknown kernel {self.kernel!r}; use 'precomputed' or 'linear'.")
        operator = DenseKernel(X)
        check_kernel(operator.K)
        return operator

    def _solved(
        self, problem: Problem, ridges: np.ndarray, choice: Choice
    ) -> tuple[Tensor, list[Certificate]]:
        """Targets of equal ridge are solved together."""
        alpha = torch.zeros_like(problem.Y)
        certificates = []
        for ridge in np.unique(ridges).tolist():
            columns = torch.from_numpy(ridges == ridge).to(problem.Y.device)
            solution, certificate = fit_point(
                problem.operator,
                problem.Y[:, columns],
                ridge,
                problem.spectrum,
                solver=choice.solver,
                tol=self.tol,
                seed=self.seed,
            )
            alpha[:, columns] = solution.dual_weights
            certificates.append(certificate)
        return alpha, certificates

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.pairwise = self.kernel == "precomputed"
        return tags


def fit_point(
    operator: KernelOperator,
    Y: Float[Tensor, "n k"],
    ridge: float,
    spectrum: Spectrum,
    *,
    solver: str,
    tol: float,
    seed: int = 0,
) -> tuple[Solution, Certificate]:
    """One ridge (absolute) with its certificate, refused where K's rounding makes it noise."""
    known = spectrum.lambda_min if spectrum.exact else None
    check_ridge(operator, ridge, spectrum.lambda_max, known)
    deflation = default_deflation(operator, Y.shape[1], seed) if solver == "cg" else None
    solution = solve(Problem(operator, Y, spectrum, tol, deflation), ridge, solver)
    return solution, certify(operator, Y, ridge, solution, spectrum, solver=solver, tol=tol)


def _feature_weights(phi: Float[Tensor, "n p"], dual: Float[Tensor, "n k"]) -> Tensor:
    """θ = Φᵀα."""
    return product(phi.T.contiguous(), dual)


def _like(given: Array, result: Tensor) -> Array:
    """The result as what was given: NumPy for NumPy, torch for torch."""
    return result if isinstance(given, Tensor) else result.cpu().numpy()
