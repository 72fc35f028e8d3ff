import numpy as np
import pytest
import torch
from sklearn.preprocessing import KernelCenterer

from pipeline.gram import gram, gram_blocks, gram_prefixes, gram_rows
from pipeline.store import FeatureStore
from pipeline.types import InputError


def features(n, p, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).standard_normal((n, p)).astype(dtype)


def exact(x, y, weights=None):
    """K = X W² Yᵀ in float64."""
    w = np.ones(x.shape[1]) if weights is None else weights
    return (x.astype(np.float64) * w**2) @ y.astype(np.float64).T


def close(K, expected, p):
    # Rounding of a float32 sum of p products of unit size.
    np.testing.assert_allclose(K, expected, rtol=1e-5, atol=2e-6 * p**0.5)


def stored(path, phi, *, weights=None, scale=1.0, rows=3, dtype="float32"):
    n, p = phi.shape
    store = FeatureStore.create(
        path, n=n, p=p, dtype=dtype, scale=scale, rows_per_shard=rows, column_weights=weights,
        provenance={},
    )  # fmt: skip
    for shard in range(store.shards):
        at = store.samples(shard)
        ids = [str(i) for i in range(at.start, at.stop)]
        store.write_rows(
            shard, torch.from_numpy(phi[at]), f0=np.ones((len(ids), 1)),
            labels=np.zeros(len(ids), int), ids=ids,
        )  # fmt: skip
    return store


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize(("n", "p", "width"), [(1, 1, 4), (1, 30, 8), (9, 30, 8), (1030, 17, 17)])
def test_kernel_equals_the_float64_product(n, p, width, dtype):
    x = features(n, p, dtype=dtype)
    K = gram(x, panel_columns=width)
    assert K.dtype == np.float32
    assert K.flags.c_contiguous
    np.testing.assert_array_equal(K, K.T)
    close(K, exact(x, x), p)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_tensors_and_sixteen_bit_numbers_are_taken_as_they_are(dtype):
    x = torch.from_numpy(features(6, 40)).to(dtype)
    rounded = x.double().numpy()
    close(gram(x, panel_columns=16), exact(rounded, rounded), 40)


def test_input_is_left_as_it_was():
    x = features(5, 20)
    before = x.copy()
    gram(x, weights=np.linspace(1, 2, 20))
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize("weights", [None, np.full(30, 3.0), np.linspace(0.1, 40, 30)])
def test_weights_enter_squared(weights):
    x, y = features(7, 30), features(4, 30, seed=1)
    close(gram(x, weights=weights, panel_columns=8), exact(x, x, weights), 3e6)
    np.testing.assert_allclose(
        gram(x, y, weights=weights, panel_columns=8), exact(x, y, weights), rtol=1e-4, atol=1e-2
    )


def test_cross_kernels_come_from_the_same_pass():
    train, others = features(9, 30), {"val": features(4, 30, 1), "ood_test": features(1, 30, 2)}
    blocks = gram_blocks(train, others, panel_columns=8)
    close(blocks["train"], exact(train, train), 30)
    for name, rows in others.items():
        close(blocks[name], exact(rows, train), 30)
        assert blocks[name].flags.c_contiguous
        close(blocks[name + "_diagonal"], np.diag(exact(rows, rows)), 30)


@pytest.mark.parametrize("rows", [slice(0, 9), slice(2, 5), slice(8, 9)])
def test_rows_of_a_worker_are_rows_of_the_whole(rows):
    x = features(9, 30)
    close(gram_rows(x, rows, panel_columns=8), exact(x, x)[rows], 30)


def test_kernels_of_column_ranges_add_up():
    train, val = features(9, 30), features(4, 30, 1)
    parts = [gram_blocks(train, {"val": val}, columns=c) for c in (slice(0, 13), slice(13, 30))]
    whole = gram_blocks(train, {"val": val})
    for name, block in whole.items():
        close(parts[0][name] + parts[1][name], block, 30)


def test_prefixes_come_out_of_one_pass_reweighted_to_the_whole():
    train, val = features(9, 30), features(4, 30, 1)
    weights = np.full(30, 1.5)
    seen = dict(gram_prefixes(train, {"val": val}, [4, 20, 8], weights=weights, panel_columns=8))
    assert sorted(seen) == [4, 8, 20, 30]
    for q, blocks in seen.items():
        w = weights[:q] * (30 / q) ** 0.5
        close(blocks["train"], exact(train[:, :q], train[:, :q], w), 300)
        close(blocks["val"], exact(val[:, :q], train[:, :q], w), 300)
        close(blocks["val_diagonal"], np.diag(exact(val[:, :q], val[:, :q], w)), 300)


def test_prefixes_beyond_the_columns_are_refused():
    with pytest.raises(InputError, match=r"kernel\.sizes: 31 columns .* have 30"):
        list(gram_prefixes(features(3, 30), None, [31]))


def test_store_gives_the_kernel_of_the_raw_gradients(tmp_path):
    # Each store has a scale of its own; both share the sketch's weights.
    weights = np.linspace(1, 2, 30)
    train, val = features(9, 30), features(4, 30, 1)
    blocks = gram_blocks(
        stored(tmp_path / "train", train, weights=weights, scale=2.0**4),
        {"val": stored(tmp_path / "val", val, weights=weights, scale=2.0**7)},
        panel_columns=8,
    )
    close(blocks["train"], exact(train, train, weights), 30)
    close(blocks["val"], exact(val, train, weights), 30)
    close(blocks["val_diagonal"], np.diag(exact(val, val, weights)), 30)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_sixteen_bit_store_gives_the_kernel_of_the_rounded_features(tmp_path, dtype):
    phi = features(9, 30)
    store = stored(tmp_path / "s", phi, dtype=dtype, scale=8.0)
    rounded = store.gradients(slice(0, 30))
    close(gram(store, panel_columns=7), exact(rounded, rounded), 30)


def test_centering_subtracts_the_training_mean():
    train, val = features(9, 30) + 1, features(4, 30, 1) + 1
    blocks = gram_blocks(train, {"val": val}, center=True, panel_columns=8)
    centered_train, centered_val = (rows - train.mean(0, dtype=float) for rows in (train, val))
    close(blocks["train"], exact(centered_train, centered_train), 300)
    close(blocks["val"], exact(centered_val, centered_train), 300)
    close(blocks["val_diagonal"], np.diag(exact(centered_val, centered_val)), 300)
    centerer = KernelCenterer().fit(exact(train, train))
    close(gram(val, train, center=True), centerer.transform(exact(val, train)), 300)


@pytest.mark.parametrize("center", [False, True])
def test_normalizing_divides_by_the_norms(center):
    train, val = features(9, 30) + 1, features(4, 30, 1) + 1
    blocks = gram_blocks(train, {"val": val}, center=center, normalize=True, panel_columns=8)
    mean = train.mean(0, dtype=float) if center else 0.0
    unit_train, unit_val = (
        (rows - mean) / np.linalg.norm(rows - mean, axis=1, keepdims=True) for rows in (train, val)
    )
    np.testing.assert_allclose(blocks["train"], exact(unit_train, unit_train), atol=2e-6)
    np.testing.assert_allclose(blocks["val"], exact(unit_val, unit_train), atol=2e-6)
    np.testing.assert_array_equal(blocks["val_diagonal"], 1.0)
    alone = gram(val, train, center=center, normalize=True)
    np.testing.assert_allclose(alone, blocks["val"], atol=2e-6)


def test_zero_row_cannot_be_normalized_and_is_named():
    x = features(5, 8)
    x[3] = 0
    with pytest.raises(InputError, match="row 3 of the training features"):
        gram(x, normalize=True)


def test_other_numbers_of_columns_are_refused():
    with pytest.raises(InputError, match="31 columns"):
        gram(features(3, 30), features(3, 31))


def test_stores_of_different_sketches_are_refused(tmp_path):
    train = stored(tmp_path / "a", features(4, 30), weights=np.linspace(1, 2, 30))
    other = stored(tmp_path / "b", features(4, 30), weights=np.linspace(1, 3, 30))
    with pytest.raises(InputError, match="different sketches"):
        gram_blocks(train, {"val": other})


def test_weights_that_are_not_positive_are_refused():
    with pytest.raises(InputError, match=r"column 2 is 0\.0"):
        gram(features(3, 4), weights=[1, 1, 0, 1])


def test_empty_features_are_refused():
    with pytest.raises(InputError, match="at least one row"):
        gram(features(0, 30))


def test_damaged_shard_stops_the_pass(tmp_path):
    store = stored(tmp_path / "s", features(9, 30))
    path = store.shard_path(1)
    content = bytearray(path.read_bytes())
    content[5] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="c/1/0 is damaged"):
        gram(store, panel_columns=8)
