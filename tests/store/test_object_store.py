"""Stores in an object store: against a server that speaks S3 and runs in this process."""

import pickle

import numpy as np
import pytest
import torch

from pipeline.artefact import CorruptArtefactError
from pipeline.store import FeatureStore
from pipeline.store.lease import live_leases, take_lease
from pipeline.store.place import place_at
from pipeline.types import InputError

pytest.importorskip("obstore")
pytest.importorskip("moto.server")


def written(url, n=10, p=8192 + 20, shards=None):
    store = FeatureStore.create(url, n=n, p=p, provenance={"w": 1}, rows_per_shard=4, h=3, k=2)
    phi = torch.from_numpy(np.random.default_rng(0).standard_normal((n, p))).float()
    for shard in range(store.shards) if shards is None else shards:
        rows = store.samples(shard)
        count = rows.stop - rows.start
        store.write_rows(
            shard,
            phi[rows],
            f0=torch.ones(count, 2),
            labels=np.arange(rows.start, rows.stop),
            ids=[f"image-{i}" for i in range(rows.start, rows.stop)],
            penultimate=torch.ones(count, 3),
        )
    return store, phi


def test_what_is_read_by_url_is_what_was_written(bucket):
    _, phi = written(f"{bucket}/whole")
    store = pickle.loads(pickle.dumps(FeatureStore.open(f"{bucket}/whole", {"w": 1})))
    np.testing.assert_array_equal(store.panel(slice(0, store.shape[1])), phi.half().float())
    some = store.panel(slice(3, 9), slice(2, 7))
    np.testing.assert_array_equal(some, phi.half().float()[2:7, 3:9])
    assert store.labels().tolist() == list(range(10))
    store.verify()


def test_zarr_reads_the_same_values_through_its_own_object_store(bucket):
    zarr = pytest.importorskip("zarr")
    from obstore.store import from_url
    from zarr.storage import ObjectStore

    store, _ = written(f"{bucket}/zarr")
    array = zarr.open_array(ObjectStore(from_url(f"{bucket}/zarr/features")), mode="r")
    np.testing.assert_array_equal(
        array[:].astype(np.float32), store.panel(slice(0, array.shape[1]))
    )


def test_missing_and_lost_shards_are_told_apart(bucket):
    store, _ = written(f"{bucket}/part", shards=[1])
    assert store.missing_rows() == [0, 2]
    store.place.remove("features/c/1/0")
    with pytest.raises(CorruptArtefactError, match=r"shard 1 is damaged: s3://.*features/c/1/0"):
        store.missing_rows()


def test_a_store_is_created_once(bucket):
    written(f"{bucket}/once", shards=[])
    with pytest.raises(InputError, match="exists already"):
        written(f"{bucket}/once", shards=[])


def test_one_of_two_jobs_gets_a_lease(bucket):
    place = place_at(f"{bucket}/leases")
    with take_lease(place, "00003", "one"):
        assert take_lease(place, "00003", "two") is None
        assert set(live_leases(place)) == {"00003"}
    with take_lease(place, "00003", "two"):
        pass
    assert live_leases(place) == {}


def test_a_url_of_no_known_kind_is_refused():
    with pytest.raises(InputError, match="cannot be used"):
        place_at("gopher://somewhere")


def test_a_server_that_does_not_answer_is_told_in_one_line(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    monkeypatch.setattr("pipeline.store.object_place.REPEATS", 1)
    place = place_at("s3://features/gone")
    for ask in (
        lambda: place.size("a"),
        lambda: place.create("a", b""),
    ):
        with pytest.raises(OSError, match=r"s3://features/gone/\w+") as caught:
            ask()
        assert "\n" not in str(caught.value)


def test_a_bucket_that_is_not_there_is_told(bucket):
    with pytest.raises(OSError, match=r"s3://no-such-bucket/x/a") as caught:
        place_at("s3://no-such-bucket/x").write("a", b"")
    assert not isinstance(caught.value, FileNotFoundError)
