import hashlib
import io
import pickle

import numpy as np
import pytest
from PIL import Image

from pipeline.data.decoding import UnreadableImageError
from pipeline.data.parquet import ParquetSource, _RowGroups, find_shards
from pipeline.types import InputError


@pytest.fixture
def two_files(tmp_path, jpeg, write_parquet):
    """Files of 10 and 3 rows in row groups of 4, and the encoded images."""
    data = [jpeg(i) for i in range(13)]
    write_parquet(tmp_path / "train-00000-of-00002.parquet", data[:10], {"label": [*range(10)]})
    write_parquet(tmp_path / "train-00001-of-00002.parquet", data[10:], {"label": [10, 11, 12]})
    return find_shards(tmp_path, "train"), data


def test_rows_run_on_over_row_groups_and_files(two_files):
    files, data = two_files
    source = ParquetSource.open(files)
    assert len(source) == 13
    assert source.column("label").tolist() == list(range(13))
    for row in (12, 0, 3, 4, 9, 10):
        expected = Image.open(io.BytesIO(data[row]))
        assert np.array_equal(np.array(source.image(row)), np.array(expected))
    rows = np.array([12, 3, 10])
    assert source.ids(rows) == [
        "train-00001-of-00002.parquet:2",
        "train-00000-of-00002.parquet:3",
        "train-00001-of-00002.parquet:0",
    ]
    assert source.fingerprints(rows) == [hashlib.sha256(data[i]).hexdigest() for i in rows]
    for outside in (-1, 13):
        with pytest.raises(IndexError):
            source.image(outside)


def test_a_source_is_small_when_pickled(two_files):
    source = ParquetSource.open(two_files[0])
    source.image(0)
    assert len(pickle.dumps(source)) < 2000
    assert pickle.loads(pickle.dumps(source)) == source


def test_row_groups_are_dropped_over_the_limit(two_files):
    files, data = two_files
    groups = _RowGroups(limit=2 * sum(len(d) for d in data[:4]))
    for group in (0, 1, 2, 0):
        assert groups.get(files[0], group, "image")[0].as_py() == data[4 * group]
    assert len(groups._groups) <= 2
    assert groups._bytes == sum(array.nbytes for array in groups._groups.values())


def test_class_names_come_from_either_metadata(tmp_path, jpeg, write_parquet):
    own = {"class_names": '["a", "b"]'}
    hub = {"huggingface": '{"info": {"features": {"label": {"names": ["c", "d"]}}}}'}
    for name, metadata, expected in [
        ("x", own, ["a", "b"]),
        ("y", hub, ["c", "d"]),
        ("z", {}, None),
    ]:
        write_parquet(tmp_path / f"{name}.parquet", [jpeg(0)], {"label": [0]}, metadata=metadata)
        assert ParquetSource.open([tmp_path / f"{name}.parquet"]).class_names("label") == expected


def test_shards_are_found_in_the_hub_layouts(tmp_path, jpeg, write_parquet):
    for place in ("data", "here"):
        folder = tmp_path / place
        inner = folder / ("data" if place == "data" else ".")
        write_parquet(inner / "test-00000-of-00001.parquet", [jpeg(0)], {"label": [0]})
        assert len(find_shards(folder, "test")) == 1
        assert find_shards(folder, "train") == []


def test_a_missing_shard_is_named(two_files):
    files, _ = two_files
    files[0].unlink()
    with pytest.raises(InputError, match="1 of 2 train files; missing: 0"):
        find_shards(files[1].parent, "train")


def test_a_bad_row_is_named(tmp_path, jpeg, write_parquet):
    path = tmp_path / "train-00000-of-00001.parquet"
    write_parquet(path, [jpeg(0), jpeg(1)[:100], None], {"label": [0, 1, 2]})
    source = ParquetSource.open([path])
    source.image(0)
    with pytest.raises(UnreadableImageError, match=r"train-00000-of-00001\.parquet, row 1: "):
        source.image(1)
    with pytest.raises(UnreadableImageError, match=r"row 2: no bytes"):
        source.image(2)


def test_other_files_and_columns_are_refused_by_name(tmp_path, jpeg, write_parquet):
    (tmp_path / "x.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(InputError, match="not a readable Parquet file"):
        ParquetSource.open([tmp_path / "x.parquet"])
    path = tmp_path / "y.parquet"
    write_parquet(path, [jpeg(0)], {"label": [0]}, image_column="picture")
    with pytest.raises(InputError, match="its columns are picture, label"):
        ParquetSource.open([path])
    write_parquet(path, [jpeg(0), jpeg(1)], {"label": [0, None]}, image_column="img")
    with pytest.raises(InputError, match="1 empty values"):
        ParquetSource.open([path]).column("label")
    write_parquet(path, [jpeg(0), jpeg(1)], {"label": [0.0, 1.0]})
    assert ParquetSource.open([path]).column("label").dtype == np.int64
    write_parquet(path, [jpeg(0), jpeg(1)], {"label": [0.0, float("nan")]})
    with pytest.raises(InputError, match=r"1 value\(s\) that are no whole .* nan of y\.parquet:1"):
        ParquetSource.open([path]).column("label")
    with pytest.raises(InputError, match="no column 'fine'"):
        ParquetSource.open([path]).column("fine")
