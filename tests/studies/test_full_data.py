"""Regression on all images by the pseudo-NTK alone."""

import pytest
import torch

from pipeline.analyses.full_kernel import kernel_of
from pipeline.analyses.primal_regression import Moments
from pipeline.analyses.width_networks import make_network
from pipeline.artefact import read_json
from pipeline.data.digits import DigitsOptions
from pipeline.studies.images import load_splits

OUT = "runs/analyses/full_data_quick"
SMALL = ("widths=[3]", "epochs=1", "sketch_size=10000", "ridges=[0.01]")


@pytest.fixture
def rows(study, tmp_path):
    code, printed = study("full_data", *SMALL, config="full_data_quick")
    assert code == 0, printed
    return {row["method"]: row for row in read_json(tmp_path / OUT / "analysis.json")["table"]}


def test_streamed_regression_is_that_of_the_pseudo_ntk(rows):
    data = load_splits(DigitsOptions(), "train", "val", "id_test")
    x = torch.cat([data["train"].x, data["val"].x])
    labels = torch.cat([data["train"].labels, data["val"].labels])
    model = make_network("convnet", x.shape[1:], 3, data["train"].k, 0)
    K, cross = kernel_of(model, x, output=0), kernel_of(model, data["id_test"].x, x, output=0)
    mean = data["train"].one_hot().double().mean(dim=0)
    Y = torch.nn.functional.one_hot(labels, data["train"].k).double() - mean
    ridge = 0.01 * float(K.diagonal().mean())
    shifted = K + ridge * torch.eye(len(K), dtype=K.dtype)
    scores = mean + cross @ torch.linalg.solve(shifted, Y)
    hits = (scores.argmax(dim=1) == data["id_test"].labels).double().mean()
    assert rows["initial, from the class means"]["id_test, %"] == pytest.approx(100 * float(hits))


def test_every_state_stands_beside_sgd(rows):
    assert list(rows) == [
        "SGD", "initial, from the class means", "initial, around the network",
        "trained, from the class means", "trained, around the network",
    ]  # fmt: skip
    assert rows["SGD"]["kept"] is None
    assert rows["initial, from the class means"]["kept"] == rows["SGD"]["parameters"]


def test_sums_are_continued_where_they_were_kept(tmp_path):
    generator = torch.Generator().manual_seed(0)
    phi, Y = torch.randn(30, 6, generator=generator), torch.randn(30, 2, generator=generator)
    whole, half = Moments.empty(6, 2), Moments.empty(6, 2)
    for part in (slice(0, 10), slice(10, 30)):
        whole.add(phi[part], Y[part])
    half.add(phi[:10], Y[:10])
    half.save(tmp_path / "sums", {"width": 3})
    assert Moments.kept(tmp_path / "sums", {"width": 4}) is None
    assert Moments.kept(tmp_path / "absent", {"width": 3}) is None
    again = Moments.kept(tmp_path / "sums", {"width": 3})
    assert again is not None
    again.add(phi[10:], Y[10:])
    assert torch.equal(again.inner, whole.inner)
    assert again.rows == 30


def test_ridge_of_the_sums_is_that_of_the_kernel():
    generator = torch.Generator().manual_seed(1)
    phi, Y = torch.randn(20, 5, generator=generator), torch.randn(20, 2, generator=generator)
    sums = Moments.empty(5, 2)
    sums.add(phi, Y)
    [theta] = sums.solve([0.3])
    K = (phi @ phi.T).double()
    shifted = K + 0.3 * K.diagonal().mean() * torch.eye(20, dtype=torch.float64)
    expected = K @ torch.linalg.solve(shifted, Y.double())
    torch.testing.assert_close(phi.double() @ theta, expected, atol=1e-5, rtol=1e-5)


def test_a_ridge_far_below_float32_s_rounding_is_solved():
    generator = torch.Generator().manual_seed(0)
    # Large common direction, as gradients have; the last column repeats the first.
    phi = torch.randn(4_000, 6, generator=generator) + 30
    phi[:, 5] = phi[:, 0]
    Y = torch.randn(4_000, 2, generator=generator)
    sums = Moments.empty(6, 2)
    for part in range(0, 4_000, 100):
        sums.add(phi[part : part + 100], Y[part : part + 100])
    [theta] = sums.solve([1e-6])
    exact = phi.double()
    ridge = 1e-6 * float(exact.square().sum()) / 4_000
    wanted = torch.linalg.solve(
        exact.T @ exact + ridge * torch.eye(6, dtype=torch.float64), exact.T @ Y.double()
    )
    torch.testing.assert_close(exact @ theta, exact @ wanted, rtol=1e-6, atol=1e-6)
