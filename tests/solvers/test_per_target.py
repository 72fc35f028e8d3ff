import pytest
import torch
from reference import dense_ridge

from pipeline.solvers.per_target import fit_per_target

GRID = [1.0, 0.1, 0.01, 1e-3, 1e-4]


@pytest.mark.parametrize("solver", ["lanczos", "eigh"])
def test_each_target_gets_the_ridge_it_would_get_alone(problem, solver):
    generator = torch.Generator().manual_seed(0)
    whole = torch.cat([problem.K, problem.K_val])
    clean = whole @ torch.randn(150, 2, generator=generator, dtype=torch.float64)
    noise = torch.randn(210, 1, generator=generator, dtype=torch.float64)
    noisy = clean[:, :1] + 3 * clean.std() * noise
    Y = torch.cat([clean, noisy], dim=1)
    found = fit_per_target(
        problem.K, Y[:150], problem.K_val, Y[150:], solver=solver, ridges=GRID,
        ridge_scale="absolute",
    )  # fmt: skip
    assert found.converged
    assert found.ridges[2] > found.ridges[0]
    for j, ridge in enumerate(found.ridges):
        squares = {}
        for candidate in GRID:
            alpha = dense_ridge(problem.K, Y[:150, j : j + 1], candidate)
            squares[candidate] = (problem.K_val @ alpha - Y[150:, j : j + 1]).square()
        best = min(squares.values(), key=torch.mean)
        behind = {r: square - best for r, square in squares.items()}
        spread = {r: float(d.std(correction=0)) / 60**0.5 for r, d in behind.items()}
        expected = max(r for r, d in behind.items() if float(d.mean()) <= spread[r])
        assert ridge == expected
        alone = dense_ridge(problem.K, Y[:150, j], ridge)
        assert float((found.dual_weights[:, j] - alone).norm() / alone.norm()) < 1e-4
        assert found.errors[j] == pytest.approx(float(squares[ridge].mean()), rel=1e-5)


def test_one_validation_row_has_no_spread_and_the_default_grid_works(problem):
    found = fit_per_target(problem.K, problem.Y, problem.K_val[:1], problem.Y[:1])
    assert len(found.ridges) == problem.Y.shape[1]
