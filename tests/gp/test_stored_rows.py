import gpytorch
import numpy as np
import pytest
import torch
from gpytorch.kernels import ScaleKernel

from pipeline.gp import EmpiricalNTK
from pipeline.gp.stored_rows import StoredRows
from pipeline.store import FeatureStore
from pipeline.types import InputError


@pytest.fixture(scope="module")
def phi():
    return torch.randn(9, 2, 5, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def store(phi, tmp_path_factory):
    store = FeatureStore.create(
        tmp_path_factory.mktemp("store") / "features",
        n=9,
        p=5,
        outputs=2,
        k=2,
        dtype="float32",
        scale=4.0,
        rows_per_shard=4,
        column_weights=np.arange(1.0, 6.0),
        provenance={},
    )
    for shard in range(store.shards):
        own = store.samples(shard)
        count = own.stop - own.start
        names = [str(i) for i in range(own.start, own.stop)]
        labels, f0 = np.zeros(count, dtype=np.int64), np.zeros((count, 2))
        store.write_rows(shard, phi[own], f0=f0, labels=labels, ids=names)
    return store


def test_rows_are_the_stored_gradients_weighted(store, phi):
    found = StoredRows(store).rows(torch.tensor([[7], [2], [2]]))
    wanted = phi[[7, 2, 2]].double() * torch.arange(1.0, 6.0, dtype=torch.float64)
    torch.testing.assert_close(found, wanted.reshape(6, 5))


@pytest.mark.parametrize("dtype", [torch.int64, torch.float32])
def test_a_kernel_of_row_ids_has_the_features_type(store, phi, dtype):
    kernel = EmpiricalNTK(StoredRows(store))
    ids = torch.tensor([[0], [4], [8]], dtype=dtype)
    lazy = ScaleKernel(kernel).double()(ids)
    rows = StoredRows(store).rows(ids)
    scale = torch.tensor(2.0).log1p()  # any positive scale
    lazy.kernel.outputscale = scale.double()
    assert lazy.dtype == torch.float64
    torch.testing.assert_close(lazy.to_dense(), rows @ rows.T * scale.double())


def test_integer_ids_give_the_loss_of_the_explicit_features(store):
    ids = torch.arange(9)[:, None]
    rows = StoredRows(store).rows(ids)
    y = torch.randn(18, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    prior = gpytorch.distributions.MultivariateNormal
    K = EmpiricalNTK(StoredRows(store))(ids).add_jitter(0.5)
    found = prior(torch.zeros(18, dtype=torch.float64), K).log_prob(y)
    dense = rows @ rows.T + 0.5 * torch.eye(18, dtype=torch.float64)
    wanted = torch.distributions.MultivariateNormal(torch.zeros(18).double(), dense).log_prob(y)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=0)


@pytest.mark.parametrize(
    ("ids", "message"),
    [([[9]], "row id 9 is outside 0 … 8"), ([[-1]], "row id -1"), ([[0.5]], "whole")],
)
def test_ids_that_no_sample_has_are_refused(store, ids, message):
    with pytest.raises(InputError, match=message):
        StoredRows(store).rows(torch.tensor(ids))
