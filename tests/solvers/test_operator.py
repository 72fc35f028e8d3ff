import numpy as np
import pytest
import torch

from pipeline.solvers import operator as operators
from pipeline.solvers.feature_kernel import FeatureKernel
from pipeline.solvers.operator import (
    DenseKernel,
    KernelOperator,
    as_operator,
    product,
    random_block,
)


@pytest.fixture
def phi() -> torch.Tensor:
    return torch.randn(70, 31, generator=torch.Generator().manual_seed(0))


def test_features_and_their_gram_are_one_operator(phi):
    dense, free = DenseKernel(phi.double() @ phi.double().T), FeatureKernel(phi)
    V = torch.randn(70, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(free.matvec(V), dense.matvec(V))
    torch.testing.assert_close(free.inner(V, V), dense.inner(V, V))
    torch.testing.assert_close(free.diagonal(), dense.diagonal())
    assert dense.products == 3
    assert isinstance(free, KernelOperator)
    assert as_operator(free) is free


def test_tiles_give_float64_products_of_float32_kernels(phi, monkeypatch):
    K = phi @ phi.T
    V = torch.randn(70, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    monkeypatch.setattr(operators, "tile_rows", lambda width, device: 33)
    torch.testing.assert_close(product(K, V), K.double() @ V, rtol=1e-14, atol=1e-13)


def test_a_memory_mapped_kernel_is_read_in_place(phi, tmp_path):
    np.save(tmp_path / "K.npy", (phi @ phi.T).numpy())
    mapped = np.load(tmp_path / "K.npy", mmap_mode="r")
    operator = DenseKernel(mapped)
    assert operator.K.data_ptr() == mapped.ctypes.data
    V = torch.ones(70, 1, dtype=torch.float64)
    torch.testing.assert_close(operator.matvec(V), (phi @ phi.T).double() @ V)


def test_random_blocks_are_signs_fixed_by_their_seed(phi):
    operator = FeatureKernel(phi)
    block = random_block(operator, 4, seed=5)
    assert set(block.unique().tolist()) == {-1.0, 1.0}
    assert torch.equal(block, random_block(operator, 4, seed=5))
    assert not torch.equal(block, random_block(operator, 4, seed=6))
