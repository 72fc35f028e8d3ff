"""Sketched cosines against the matrices formed whole, in float64."""

import pytest
import torch
from small_kernels import features, one_hot

from pipeline.analyses.similarity import (
    centered,
    cosine_at_rank,
    diagonal_fisher,
    exact_kernel_alignment,
    exact_parameter_cosine,
    kernel_alignment,
    label_alignment,
    parameter_cosine,
    similarity_matrix,
    sketched_cosine,
    task2vec_cosine,
)
from pipeline.analyses.streamed import StreamedFeatures
from pipeline.types import InputError


def cosine(M, N):
    return float((M * N).sum() / (M.norm() * N.norm()))


@pytest.fixture
def pair():
    A = features(80, 60, seed=0)
    return A, 0.6 * A + features(80, 60, seed=1)


@pytest.fixture
def streamed(pair):
    return [StreamedFeatures(phi.float()) for phi in pair]


def test_enough_directions_make_the_sketch_exact(pair):
    K_A, K_B = (phi @ phi.T for phi in pair)
    found = sketched_cosine(lambda V: K_A @ V, lambda V: K_B @ V, 80, tol=0)
    assert found.value == pytest.approx(cosine(K_A, K_B), rel=1e-10)


@pytest.mark.parametrize("seed", range(4))
def test_few_directions_come_within_their_standard_error(pair, seed):
    F_A, F_B = (phi.T @ phi for phi in pair)
    found = cosine_at_rank(lambda V: F_A @ V, lambda V: F_B @ V, 60, rank=8, seed=seed)
    assert 0 < found.stderr < 0.02
    assert abs(found.value - cosine(F_A, F_B)) < 4 * found.stderr


def test_directions_are_added_until_the_error_is_small(pair):
    F_A, F_B = (phi.T @ phi for phi in pair)
    found = sketched_cosine(lambda V: F_A @ V, lambda V: F_B @ V, 60, tol=1e-3)
    assert found.stderr <= 1e-3 * found.value
    assert found.value == pytest.approx(cosine(F_A, F_B), rel=5e-3)


def test_the_parameter_cosine_is_the_papers_formula(pair, streamed):
    A, B = (phi.T for phi in pair)  # (p, n), as the paper writes J
    expected = float(torch.trace(A.T @ B @ B.T @ A) / ((A @ A.T).norm() * (B @ B.T).norm()))
    assert exact_parameter_cosine(*streamed).value == pytest.approx(expected, rel=1e-5)
    assert parameter_cosine(*streamed, tol=0).value == pytest.approx(expected, rel=1e-5)


def test_kernel_alignment_is_another_quantity(pair, streamed):
    K_A, K_B = (phi @ phi.T for phi in pair)
    expected = cosine(K_A, K_B)
    assert exact_kernel_alignment(*streamed).value == pytest.approx(expected, rel=1e-5)
    assert kernel_alignment(*streamed, tol=0).value == pytest.approx(expected, rel=1e-5)
    assert abs(expected - exact_parameter_cosine(*streamed).value) > 0.01


def test_centred_alignment_takes_out_what_all_samples_share(pair):
    K = pair[0] @ pair[0].T
    H = torch.eye(80, dtype=torch.float64) - 1 / 80
    V = torch.randn(80, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(centered(lambda U: K @ U)(V), H @ K @ H @ V)


def test_column_weights_belong_to_the_features(pair):
    weights = torch.linspace(0.5, 2, 60, dtype=torch.float64)
    weighted = [StreamedFeatures(phi.float(), weights.numpy()) for phi in pair]
    F_A, F_B = ((phi * weights).T @ (phi * weights) for phi in pair)
    found = parameter_cosine(*weighted, tol=0).value
    assert found == pytest.approx(cosine(F_A, F_B), rel=1e-5)
    torch.testing.assert_close(
        diagonal_fisher(weighted[0]), F_A.diagonal() / 80, rtol=1e-5, atol=1e-8
    )


def test_streamed_products_are_the_dense_ones(pair, streamed):
    phi = pair[0]
    V, U = torch.randn(60, 2).double(), torch.randn(80, 2).double()
    close = {"rtol": 1e-4, "atol": 1e-4}
    torch.testing.assert_close(streamed[0].times(V), phi @ V, **close)
    torch.testing.assert_close(streamed[0].transposed_times(U), phi.T @ U, **close)
    torch.testing.assert_close(streamed[0].kernel_times(U), phi @ phi.T @ U, **close)
    torch.testing.assert_close(streamed[0].row_squares(), phi.square().sum(1), **close)


def test_task2vec_compares_entry_by_entry():
    F_a, F_b = torch.tensor([1.0, 3.0, 0.0]).double(), torch.tensor([3.0, 1.0, 0.0]).double()
    assert task2vec_cosine(F_a, F_a) == pytest.approx(1)
    assert task2vec_cosine(F_a, F_b) == pytest.approx(6 / 10)


def test_label_alignment_is_the_cosine_with_the_targets_kernel(pair, streamed):
    Y = one_hot(80, 3) - one_hot(80, 3).mean(dim=0)
    expected = cosine(pair[0] @ pair[0].T, Y @ Y.T)
    assert label_alignment(streamed[0], Y, tol=0).value == pytest.approx(expected, rel=1e-5)


def test_a_similarity_matrix_holds_every_pair(streamed):
    matrix = similarity_matrix(
        [*streamed, streamed[0]], lambda A, B: parameter_cosine(A, B, tol=0).value
    )
    assert matrix[0, 2] == pytest.approx(1, rel=1e-5)
    assert matrix[0, 1] == matrix[1, 0] == pytest.approx(matrix[1, 2], rel=1e-5)


def test_what_cannot_be_compared_is_refused(streamed):
    fewer = StreamedFeatures(features(80, 50).float())
    with pytest.raises(InputError, match="equal parameters"):
        parameter_cosine(streamed[0], fewer)
    with pytest.raises(InputError, match="same samples"):
        kernel_alignment(streamed[0], StreamedFeatures(features(70, 60).float()))
    with pytest.raises(InputError, match="one sketch"):
        task2vec_cosine(torch.ones(3), torch.ones(4))
