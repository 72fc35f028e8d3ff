"""Statistics that Dask computes out of core equal those of the whole array in memory."""

import numpy as np
import pytest
import torch

from pipeline.analyses import stored as stored_features
from pipeline.analyses.stored import (
    COPIES,
    column_stats,
    drift,
    out_of_core,
    spectrum,
)
from pipeline.store import FeatureStore
from pipeline.store.lazy import CHUNK_BYTES
from pipeline.types import InputError

pytest.importorskip("dask.array")

N, P = 50, 9000


def weights() -> np.ndarray:
    return np.linspace(0.5, 2.0, P)


def stored(path, phi: np.ndarray, revision: str, sketch: int = 0) -> FeatureStore:
    """Shards of 16 rows, two inner chunks of columns, with column weights."""
    store = FeatureStore.create(
        path,
        n=len(phi),
        p=phi.shape[1],
        dtype="float32",
        rows_per_shard=16,
        column_weights=weights(),
        provenance={"model": {"state": revision}, "sketch": {"seed": sketch}},
    )
    for shard in range(store.shards):
        rows = store.samples(shard)
        count = rows.stop - rows.start
        names = [str(i) for i in range(rows.start, rows.stop)]
        labels, f0 = torch.zeros(count, dtype=torch.int64), torch.zeros(count, 1)
        store.write_rows(shard, torch.from_numpy(phi[rows]), f0=f0, labels=labels, ids=names)
    return store


@pytest.fixture(scope="module")
def phi() -> np.ndarray:
    """Decaying spectrum, one column of zeros."""
    rng = np.random.default_rng(0)
    factors = rng.normal(size=(N, 8)) * 2.0 ** -np.arange(8)
    array = (factors @ rng.normal(size=(8, P)) + 1e-3 * rng.normal(size=(N, P))).astype("float32")
    array[:, 7] = 0
    return array


@pytest.fixture(scope="module")
def store(phi, tmp_path_factory) -> FeatureStore:
    return stored(tmp_path_factory.mktemp("stored") / "before", phi, "a")


def test_column_norms_are_those_of_the_weighted_columns(store, phi):
    expected = np.linalg.norm(phi.astype(np.float64) * weights(), axis=0)
    found = column_stats(store)
    np.testing.assert_allclose(found.norms, expected, rtol=1e-6)
    assert found.norms[7] == 0
    assert found.nonfinite.sum() == 0


def test_entries_that_are_not_finite_are_counted_by_column_and_left_out_of_the_norm(
    store, phi, monkeypatch
):
    damaged = phi.copy()
    damaged[3, 11], damaged[20, 11], damaged[49, 8999] = np.nan, np.inf, -np.inf

    def gradients(_, columns, rows=slice(None)):
        return damaged[rows, columns]

    monkeypatch.setattr(FeatureStore, "gradients", gradients)
    found = column_stats(store)
    assert found.nonfinite[11] == 2
    assert found.nonfinite[8999] == 1
    assert found.nonfinite.sum() == 3
    assert np.isfinite(found.norms).all()


def test_drift_is_the_distance_of_two_revisions_on_the_same_rows(store, phi, tmp_path):
    other = phi + 0.1 * np.random.default_rng(1).normal(size=phi.shape).astype("float32")
    found = drift(store, stored(tmp_path / "after", other, "b"))
    a, b = phi.astype(np.float64) * weights(), other.astype(np.float64) * weights()
    relative = np.linalg.norm(b - a) / np.linalg.norm(a)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    assert found.relative == pytest.approx(relative, rel=1e-5)
    assert found.cosine == pytest.approx(((a * b).sum(axis=1) / lengths).mean(), rel=1e-5)


def test_a_revision_has_not_moved_from_itself(store):
    found = drift(store, store)
    assert found.relative == 0
    assert found.cosine == pytest.approx(1.0, rel=1e-6)


def test_drift_through_another_sketch_is_refused(store, phi, tmp_path):
    with pytest.raises(InputError, match=r"sketch\.seed"):
        drift(store, stored(tmp_path / "other", phi, "b", sketch=1))


def test_the_largest_eigenvalues_are_those_of_the_dense_kernel(store, phi):
    weighted = phi.astype(np.float64) * weights()
    expected = np.linalg.eigvalsh(weighted @ weighted.T)[::-1][:6]
    np.testing.assert_allclose(spectrum(store, 6), expected, rtol=1e-3)


def test_a_rank_beyond_the_rows_is_refused(store):
    with pytest.raises(InputError, match="rank from 1 to 50"):
        spectrum(store, 51)


def test_threads_follow_from_the_memory_given(store):
    import dask

    a_thread = COPIES * CHUNK_BYTES
    with out_of_core([store], a_thread + 2**20):
        assert dask.config.get("num_workers") == 1
    with pytest.raises(InputError, match="--memory"), out_of_core([store], 1000):
        pass


def test_a_cluster_finds_what_threads_find(store):
    pytest.importorskip("distributed")
    from dask.distributed import LocalCluster

    expected = column_stats(store)
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as cluster,
        out_of_core([store], address=cluster.scheduler_address),
    ):
        found = column_stats(store)
    np.testing.assert_array_equal(found.norms, expected.norms)


def test_a_scheduler_without_workers_is_refused(store, monkeypatch):
    pytest.importorskip("distributed")
    from dask.distributed import LocalCluster

    monkeypatch.setattr(stored_features, "SCHEDULER_SECONDS", 1)
    with (
        LocalCluster(n_workers=0, processes=False, dashboard_address=":0") as cluster,
        pytest.raises(InputError, match="has no worker"),
        out_of_core([store], address=cluster.scheduler_address),
    ):
        pass


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "nonsense"])
def test_a_scheduler_that_does_not_answer_is_refused(store, monkeypatch, address):
    pytest.importorskip("distributed")
    monkeypatch.setattr(stored_features, "SCHEDULER_SECONDS", 1)
    with (
        pytest.raises(InputError, match="no Dask scheduler answers at"),
        out_of_core([store], address=address),
    ):
        pass
