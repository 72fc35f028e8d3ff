import numpy as np
import pytest
import torch

from pipeline.solvers.outside_span import TrainingSpan


def kernel(a: np.ndarray, b: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(a @ b.T)


def residual_share(train: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The slow twin: least squares of every row on the training features themselves."""
    found = []
    for row in rows:
        weights = np.linalg.lstsq(train.T, row, rcond=1e-10)[0]
        found.append(np.sum((row - train.T @ weights) ** 2) / np.sum(row**2))
    return np.array(found)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("n", "p"), [(1, 7), (5, 7), (7, 7), (12, 7), (30, 200)])
def test_the_share_is_that_of_the_residual_of_least_squares(n, p, seed):
    rng = np.random.default_rng(seed)
    train, rows = rng.normal(size=(n, p)), rng.normal(size=(9, p))
    span = TrainingSpan.of(kernel(train, train), tolerance=1e-12)
    assert span.rank == min(n, p)
    diagonal = torch.from_numpy(np.sum(rows**2, axis=1))
    found = span.share_outside(kernel(rows, train), diagonal).numpy()
    np.testing.assert_allclose(found, residual_share(train, rows), rtol=1e-9, atol=1e-11)


def test_training_rows_lie_inside_orthogonal_ones_outside_and_zero_rows_inside():
    train = np.eye(4)[:2]
    rows = np.stack(
        [train[0], train.sum(0), np.eye(4)[3], np.eye(4)[1] + np.eye(4)[2], 0 * train[0]]
    )
    span = TrainingSpan.of(kernel(train, train), tolerance=1e-6)
    diagonal = torch.from_numpy(np.sum(rows**2, axis=1))
    found = span.share_outside(kernel(rows, train), diagonal)
    assert found.tolist() == pytest.approx([0, 0, 1, 0.5, 0], abs=1e-15)


def test_a_duplicated_row_adds_no_direction():
    rng = np.random.default_rng(0)
    train = rng.normal(size=(6, 20))
    twice, rows = np.vstack([train, train[:3]]), rng.normal(size=(4, 20))
    diagonal = torch.from_numpy(np.sum(rows**2, axis=1))
    once, doubled = (TrainingSpan.of(kernel(some, some), 1e-10) for some in (train, twice))
    assert doubled.rank == once.rank == 6
    torch.testing.assert_close(
        doubled.share_outside(kernel(rows, twice), diagonal),
        once.share_outside(kernel(rows, train), diagonal),
    )


def test_directions_below_the_tolerance_count_as_outside():
    train = np.diag([1.0, 1e-2, 1e-4])
    rows = np.eye(3)
    for tolerance, rank in ((0.0, 3), (1e-6, 2), (1e-3, 1)):
        span = TrainingSpan.of(kernel(train, train), tolerance)
        assert span.rank == rank
        outside = span.share_outside(kernel(rows, train), torch.ones(3))
        assert outside.tolist() == pytest.approx([0.0] * rank + [1.0] * (3 - rank))


def test_a_kernel_of_zeros_spans_nothing():
    span = TrainingSpan.of(torch.zeros(3, 3), tolerance=1e-6)
    assert span.rank == 0
    assert span.share_outside(torch.zeros(2, 3), torch.tensor([1.0, 0.0])).tolist() == [1.0, 0.0]


def test_float32_kernels_give_shares_of_float64_to_their_rounding():
    rng = np.random.default_rng(0)
    train, rows = rng.normal(size=(40, 100)), rng.normal(size=(9, 100))
    diagonal = torch.from_numpy(np.sum(rows**2, axis=1))
    span = TrainingSpan.of(kernel(train, train).float(), tolerance=1e-6)
    found = span.share_outside(kernel(rows, train).float(), diagonal)
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found.numpy(), residual_share(train, rows), atol=1e-6)
