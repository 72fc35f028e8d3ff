import contextlib
import json
import multiprocessing
import pickle
import time

import numpy as np
import pytest
import torch

from pipeline.artefact import CorruptArtefactError, ForeignArtefactError
from pipeline.store import FeatureStore, NonFiniteFeatureError, rows_per_shard
from pipeline.types import InputError

PROVENANCE = {"weights": "abc", "sketch": {"kind": "uniform", "size": 20}}


def gradients(n, p, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((n, p))).float()


def new_store(path, n, p, **options):
    return FeatureStore.create(path, n=n, p=p, h=3, k=2, provenance=PROVENANCE, **options)


def write(store, shard, phi, f0=None):
    rows = store.samples(shard)
    count = rows.stop - rows.start
    return store.write_rows(
        shard,
        phi[rows],
        f0=torch.ones(count, 2) if f0 is None else f0,
        labels=np.arange(rows.start, rows.stop),
        ids=[f"image-{i}" for i in range(rows.start, rows.stop)],
        penultimate=torch.arange(3.0).repeat(count, 1),
    )


def filled(path, n=10, p=20, **options):
    store = new_store(path, n, p, **options)
    phi = gradients(n, p)
    for shard in range(store.shards):
        write(store, shard, phi)
    return store, phi


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("compression", ["none", "lz4"])
@pytest.mark.parametrize(("n", "p", "rows"), [(1, 1, None), (10, 20, 4), (7, 8192 + 5, 3)])
def test_what_is_read_is_what_was_written_rounded_once(tmp_path, dtype, compression, n, p, rows):
    _, phi = filled(
        tmp_path / "s",
        n,
        p,
        dtype=dtype,
        rows_per_shard=rows,
        scale=2.0**5,
        compression=compression,
    )
    rounded = (phi * 2**5).to(getattr(torch, dtype)).float().numpy()
    opened = FeatureStore.open(tmp_path / "s", PROVENANCE)
    np.testing.assert_array_equal(opened.panel(slice(0, p)), rounded)
    np.testing.assert_array_equal(opened.gradients(slice(0, p)), rounded / 2**5)
    some = slice(p // 3, p // 3 + max(1, p // 2))
    np.testing.assert_array_equal(opened.panel(some, slice(n // 2, n)), rounded[n // 2 :, some])


def test_panels_cover_all_columns_in_order(tmp_path):
    store, _ = filled(tmp_path / "s", p=20, rows_per_shard=4, dtype="float32")
    ranges, panels = zip(*store.panels(width=8), strict=True)
    assert [(c.start, c.stop) for c in ranges] == [(0, 8), (8, 16), (16, 20)]
    np.testing.assert_array_equal(np.hstack(panels), store.panel(slice(0, 20)))


def test_several_threads_read_the_same_values(tmp_path, monkeypatch):
    store, _ = filled(tmp_path / "s", 20, 8192 + 5, rows_per_shard=3)
    alone = store.panel(slice(0, 8192), slice(2, 19))
    monkeypatch.setattr(store.place, "reads_at_once", 4)
    np.testing.assert_array_equal(store.panel(slice(0, 8192), slice(2, 19)), alone)


def test_zarr_itself_reads_the_same_values(tmp_path):
    zarr = pytest.importorskip("zarr")
    store, _ = filled(tmp_path / "s", 9, 8192 * 2 + 7, rows_per_shard=4)
    array = zarr.open_array(tmp_path / "s" / "features", mode="r")
    assert array.shape == (9, 8192 * 2 + 7)
    assert array.attrs["scale"] == 1.0
    np.testing.assert_array_equal(
        array[:].astype(np.float32), store.panel(slice(0, array.shape[1]))
    )


def test_samples_rows_come_back_in_order(tmp_path):
    store, _ = filled(tmp_path / "s", 10, 20, rows_per_shard=4)
    assert store.labels().tolist() == list(range(10))
    assert store.ids() == [f"image-{i}" for i in range(10)]
    assert store.penultimate().shape == (10, 3)
    assert store.f0().shape == (10, 2)
    assert store.labels().dtype == np.int64


def test_outputs_of_a_sample_are_rows_that_follow_one_another(tmp_path):
    store = new_store(tmp_path / "s", 5, 4, outputs=2, rows_per_shard=2, dtype="float32")
    phi = torch.arange(40.0).reshape(5, 2, 4)
    for shard in range(3):
        write(store, shard, phi)
    np.testing.assert_array_equal(store.panel(slice(0, 4)), phi.reshape(10, 4).numpy())


def test_unfinished_store_says_which_shards_are_missing_and_is_not_read(tmp_path):
    store = new_store(tmp_path / "s", 10, 20, rows_per_shard=4)
    phi = gradients(10, 20)
    assert store.missing_rows() == [0, 1, 2]
    assert write(store, 1, phi)
    assert FeatureStore.open(tmp_path / "s").missing_rows() == [0, 2]
    with pytest.raises(InputError, match="lacks 2 of 3 shards"):
        store.panel(slice(0, 20))
    with pytest.raises(InputError, match="lacks 2 of 3 shards"):
        store.labels()


def test_a_finished_shard_is_not_written_again(tmp_path):
    store, phi = filled(tmp_path / "s", rows_per_shard=4)
    before = store.shard_path(0).read_bytes()
    assert not write(store, 0, phi + 1)
    assert store.shard_path(0).read_bytes() == before


def test_same_rows_give_the_same_bytes(tmp_path):
    marks = []
    for name in ("a", "b"):
        filled(tmp_path / name, rows_per_shard=4)
        marks.append([f.read_text() for f in sorted((tmp_path / name / "done").iterdir())])
    assert marks[0] == marks[1]


def test_shard_without_mark_is_written_anew_whatever_lies_there(tmp_path):
    store, phi = filled(tmp_path / "s", rows_per_shard=4)
    (tmp_path / "s" / "done" / "00001.json").unlink()
    store.shard_path(1).write_bytes(b"torn")
    again = FeatureStore.open(tmp_path / "s")
    assert again.missing_rows() == [1]
    assert write(again, 1, phi)
    again.verify()


def test_what_a_killed_writer_left_of_a_shard_is_removed_and_others_files_stay(tmp_path):
    store, _ = filled(tmp_path / "s", rows_per_shard=4)
    stale = [store.shard_path(0).with_name("0.77.partial")]
    stale += [tmp_path / "s" / "done" / f"0000{shard}.json.77.partial" for shard in (0, 1)]
    for file in stale:
        file.write_bytes(b"half")
    store.remove_partial(0)
    assert [file.exists() for file in stale] == [False, False, True]


@pytest.mark.parametrize("compression", ["none", "lz4"])
def test_every_flipped_byte_of_a_shard_is_refused_with_its_name(tmp_path, compression):
    store, _ = filled(tmp_path / "s", 4, 30, rows_per_shard=2, compression=compression)
    path = store.shard_path(1)
    good = path.read_bytes()
    for position in range(0, len(good), 7):
        bad = bytearray(good)
        bad[position] ^= 1
        path.write_bytes(bad)
        with pytest.raises(CorruptArtefactError, match=r"features/c/1/0.*done/00001\.json"):
            FeatureStore.open(tmp_path / "s").panel(slice(0, 30))


def test_flipped_byte_is_found_where_a_panel_is_read_in_place(tmp_path):
    store, _ = filled(tmp_path / "s", 6, 8192 * 2, rows_per_shard=4)
    for shard, position in ((0, 100), (1, 3 * 8192)):  # the second lies in the padding rows
        path = store.shard_path(shard)
        good = path.read_bytes()
        path.write_bytes(good[:position] + bytes([good[position] ^ 1]) + good[position + 1 :])
        with pytest.raises(CorruptArtefactError, match=f"c/{shard}/0"):
            FeatureStore.open(tmp_path / "s").panel(slice(0, 8192))
        path.write_bytes(good)


def test_cut_or_missing_files_of_a_marked_shard_are_refused(tmp_path):
    store, _ = filled(tmp_path / "s", rows_per_shard=4)
    path = store.shard_path(2)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CorruptArtefactError, match="shard 2 is damaged"):
        FeatureStore.open(tmp_path / "s").missing_rows()
    path.unlink()
    with pytest.raises(CorruptArtefactError, match="is missing"):
        FeatureStore.open(tmp_path / "s").missing_rows()


def test_verify_compares_contents_with_the_digests(tmp_path):
    store, _ = filled(tmp_path / "s", rows_per_shard=4)
    store.verify()
    rows = tmp_path / "s" / "rows" / "00001.npz"
    content = bytearray(rows.read_bytes())
    content[200] ^= 1
    rows.write_bytes(content)
    with pytest.raises(CorruptArtefactError, match=r"shard 1 .*00001\.npz"):
        store.verify()


def test_damaged_labels_are_refused_with_the_shards_name(tmp_path):
    store, _ = filled(tmp_path / "s", rows_per_shard=4)
    rows = tmp_path / "s" / "rows" / "00001.npz"
    good = rows.read_bytes()
    for position in range(0, len(good), 50):
        rows.write_bytes(good[:position] + bytes([good[position] ^ 8]) + good[position + 1 :])
        with pytest.raises(CorruptArtefactError, match="shard 1 is damaged"):
            store.labels()


def test_every_flipped_byte_of_a_stores_description_is_refused_or_changes_nothing(tmp_path):
    store, _ = filled(tmp_path / "s", rows_per_shard=4)
    path = tmp_path / "s" / "store.json"
    good = path.read_bytes()
    for position in range(len(good)):
        path.write_bytes(good[:position] + bytes([good[position] ^ 1]) + good[position + 1 :])
        with contextlib.suppress(InputError):
            assert FeatureStore.open(tmp_path / "s").facts == store.facts


@pytest.mark.parametrize("content", ["[]", "null", "{}", '{"version": 1}', "", "store"])
def test_a_description_of_something_else_is_refused_with_its_name(tmp_path, content):
    filled(tmp_path / "s")
    (tmp_path / "s" / "store.json").write_text(content)
    with pytest.raises(InputError, match=r"store\.json (is not of a feature store|.*Delete)"):
        FeatureStore.open(tmp_path / "s")


def test_a_store_of_an_earlier_version_has_no_digests_and_is_read(tmp_path):
    store, _ = filled(tmp_path / "s")
    path = tmp_path / "s" / "store.json"
    values = json.loads(path.read_text())
    del values["digest"], values["weights_sha256"]
    path.write_text(json.dumps(values))
    earlier = FeatureStore.open(tmp_path / "s", PROVENANCE)
    np.testing.assert_array_equal(earlier.column_weights(), store.column_weights())


def test_a_flipped_byte_of_the_column_weights_is_refused(tmp_path):
    filled(tmp_path / "s")
    path = tmp_path / "s" / "column_weights.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(CorruptArtefactError, match=r"column_weights\.npy is damaged"):
        FeatureStore.open(tmp_path / "s").column_weights()


@pytest.mark.parametrize("damage", [("size", "sizf"), ("features", "feature{"), ("{", "[{")])
def test_a_damaged_done_mark_is_refused_and_says_what_to_delete(tmp_path, damage):
    filled(tmp_path / "s", rows_per_shard=4)
    path = tmp_path / "s" / "done" / "00001.json"
    path.write_text(path.read_text().replace(*damage, 1))
    with pytest.raises(CorruptArtefactError, match=r"shard 1 is damaged.*Delete .*00001\.json"):
        FeatureStore.open(tmp_path / "s").missing_rows()


def test_other_provenance_is_refused_naming_both_sides(tmp_path):
    filled(tmp_path / "s")
    other = PROVENANCE | {"weights": "xyz"}
    with pytest.raises(ForeignArtefactError, match="weights: found 'abc', wanted 'xyz'"):
        FeatureStore.open(tmp_path / "s", other)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"extra": 1}, "not of a feature store.*extra"),
        ({"scale": None}, "not of a feature store.*scale"),
        ({"n": "ten"}, "not of a feature store.*n: "),
        ({"version": 99}, "feature format 99"),
    ],
)
def test_what_another_program_described_is_no_feature_store(tmp_path, changes, message):
    filled(tmp_path / "s")
    described = tmp_path / "s" / "store.json"
    values = json.loads(described.read_text())
    del values["digest"]
    described.write_text(json.dumps({**values, **changes}))
    with pytest.raises(InputError, match=message):
        FeatureStore.open(tmp_path / "s")


def test_column_weights_of_another_width_are_refused(tmp_path):
    store, _ = filled(tmp_path / "s")
    np.save(tmp_path / "s" / "column_weights.npy", np.ones(7))
    with pytest.raises(CorruptArtefactError, match=r"shape \(7,\), expected \(20,\)"):
        store.column_weights()


def test_existing_store_is_not_created_over(tmp_path):
    filled(tmp_path / "s")
    with pytest.raises(InputError, match="exists already"):
        new_store(tmp_path / "s", 10, 20)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (float("nan"), "sample 'image-5' in column 3 is nan"),
        (float("-inf"), "sample 'image-5' in column 3 is -inf"),
        (1e5, "sample 'image-5' in column 3, 1e\\+05, overflows float16"),
    ],
)
def test_value_that_cannot_be_stored_names_the_sample_and_leaves_nothing(tmp_path, value, message):
    store = new_store(tmp_path / "s", 10, 20, rows_per_shard=4)
    phi = gradients(10, 20)
    phi[5, 3] = value
    with pytest.raises(NonFiniteFeatureError, match=message):
        write(store, 1, phi)
    assert store.missing_rows() == [0, 1, 2]
    assert not store.shard_path(1).exists()


def test_non_finite_output_names_the_sample(tmp_path):
    store = new_store(tmp_path / "s", 4, 20, rows_per_shard=4)
    f0 = torch.ones(4, 2)
    f0[2, 1] = float("nan")
    with pytest.raises(NonFiniteFeatureError, match="f0 of sample 'image-2'"):
        write(store, 0, gradients(4, 20), f0=f0)


def test_wrong_shapes_are_refused(tmp_path):
    store = new_store(tmp_path / "s", 4, 20)
    with pytest.raises(InputError, match=r"phi of shard 0 must have shape \(4, 20\)"):
        write(store, 0, gradients(4, 21))
    with pytest.raises(InputError, match="f0"):
        write(store, 0, gradients(4, 20), f0=torch.ones(4, 3))


def test_column_weights_carry_the_scale(tmp_path):
    weights = np.linspace(1, 2, 20)
    store, _ = filled(tmp_path / "s", column_weights=weights, scale=8.0)
    np.testing.assert_array_equal(store.column_weights(), weights)
    np.testing.assert_array_equal(store.weights(), weights / 8)


def _write_shards(path, shards):
    store = FeatureStore.open(path)
    for shard in shards:
        write(store, shard, gradients(40, 20))


def test_processes_write_different_shards_at_once(tmp_path):
    new_store(tmp_path / "s", 40, 20, rows_per_shard=4, dtype="float32")
    context = multiprocessing.get_context("spawn")
    # Both write shard 4: blocks may run twice.
    workers = [
        context.Process(target=_write_shards, args=(tmp_path / "s", shards))
        for shards in ([0, 2, 4, 6, 8], [4, 9, 7, 5, 3, 1])
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    store = FeatureStore.open(tmp_path / "s")
    store.verify()
    np.testing.assert_array_equal(store.panel(slice(0, 20)), gradients(40, 20).numpy())


def _write_all(path, p):
    store = FeatureStore.open(path)
    for shard in store.missing_rows():
        write(store, shard, gradients(40, p))


@pytest.mark.parametrize("delay", [0.0, 0.02, 0.05, 0.1])
def test_killed_writer_leaves_a_store_that_is_finished_to_the_same_bytes(tmp_path, delay):
    p = 100_000
    for name in ("killed", "undisturbed"):
        new_store(tmp_path / name, 40, p, rows_per_shard=4)
    context = multiprocessing.get_context("spawn")
    writer = context.Process(target=_write_all, args=(tmp_path / "killed", p))
    writer.start()
    while writer.is_alive() and not any((tmp_path / "killed").glob("done/*.json")):
        time.sleep(0.001)
    time.sleep(delay)
    writer.kill()
    writer.join()
    store = FeatureStore.open(tmp_path / "killed")
    for shard in store.missing_rows():
        store.remove_partial(shard)
    _write_all(tmp_path / "killed", p)
    _write_all(tmp_path / "undisturbed", p)
    for shard in range(store.shards):
        marks = [tmp_path / n / "done" / f"{shard:05d}.json" for n in ("killed", "undisturbed")]
        assert marks[0].read_text() == marks[1].read_text()
    store.verify()
    assert not list((tmp_path / "killed").rglob("*.partial"))


def test_dask_array_holds_the_raw_gradients(tmp_path):
    pytest.importorskip("dask.array")
    store, phi = filled(tmp_path / "s", 9, 8192 + 3, rows_per_shard=2, dtype="float32", scale=4.0)
    lazy = store.as_dask()
    assert lazy.shape == (9, 8192 + 3)
    assert lazy.dtype == np.float32
    np.testing.assert_array_equal(lazy.compute(scheduler="threads"), phi.numpy())
    norms = (lazy**2).sum(axis=0).compute(scheduler="threads")
    np.testing.assert_allclose(norms, (phi**2).sum(0), rtol=1e-5)


def test_store_travels_by_path_to_workers_in_any_folder(tmp_path, monkeypatch):
    store, _ = filled(tmp_path / "s", rows_per_shard=4)
    panel = store.panel(slice(0, 20))
    monkeypatch.chdir(tmp_path)
    sent = pickle.dumps(FeatureStore.open("s"))
    monkeypatch.chdir("/")
    copy = pickle.loads(sent)
    np.testing.assert_array_equal(copy.panel(slice(0, 20)), panel)


def test_marks_hold_sizes_and_digests(tmp_path):
    store, _ = filled(tmp_path / "s", rows_per_shard=4)
    mark = json.loads((tmp_path / "s" / "done" / "00000.json").read_text())
    assert mark["features"]["size"] == store.shard_path(0).stat().st_size
    assert len(mark["features"]["sha256"]) == 64


@pytest.mark.parametrize(
    ("p", "dtype", "n", "rows"),
    [(500_000, "float16", 44_200, 64), (500_000, "float32", 44_200, 32), (100, "float16", 7, 7),
     (100_000, "float16", 5_000, 256), (10**9, "float16", 10, 1)],
)  # fmt: skip
def test_shards_stay_within_their_size(p, dtype, n, rows):
    assert rows_per_shard(p, dtype, n) == rows
