"""Small image sets on disk, made by the tests."""

import io
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

LONG_AGO = 1_600_000_000


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A content cache of the test's own."""
    folder = tmp_path / "entk-cache"
    monkeypatch.setenv("ENTK_CACHE", str(folder))
    return folder


def encoded(number: int, size: tuple[int, int] = (12, 10), kind: str = "JPEG") -> bytes:
    """A noise image (width, height), different for every number."""
    pixels = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def write_old(path: Path, data: bytes) -> None:
    """Write a file that has been there for long, so that facts about it may be remembered."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    os.utime(path, (LONG_AGO, LONG_AGO))


@pytest.fixture
def write_tree() -> Callable[..., None]:
    """Fill class folders with JPEGs: ``write_tree(root, {"cat": 3, "dog": 2}, first=0)``."""

    def write(root: Path, counts: Mapping[str, int], *, first: int = 0) -> None:
        number = first
        for folder, count in counts.items():
            for i in range(count):
                write_old(root / folder / f"image_{i:03d}.JPEG", encoded(number))
                number += 1

    return write


@pytest.fixture
def write_parquet() -> Callable[..., None]:
    """Write images and label columns as one Parquet file of the Hugging Face layout."""

    def write(
        path: Path,
        images: list[bytes | None],
        columns: Mapping[str, list],
        *,
        metadata: Mapping[str, str] | None = None,
        row_group: int = 4,
        image_column: str = "image",
    ) -> None:
        structs = [{"bytes": data, "path": f"{i}.jpg"} for i, data in enumerate(images)]
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        table = pa.table({image_column: pa.array(structs, kind), **columns})
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table.replace_schema_metadata(metadata), path, row_group_size=row_group)
        os.utime(path, (LONG_AGO, LONG_AGO))

    return write


@pytest.fixture
def jpeg() -> Callable[..., bytes]:
    """``jpeg(number)``: the bytes of a small noise image."""
    return encoded


@pytest.fixture
def put() -> Callable[[Path, bytes], None]:
    """Write a file with an old modification time."""
    return write_old


@pytest.fixture
def write_cifar(tmp_path, jpeg, write_parquet):
    """A CIFAR-100 of one training and one test image for each class; extra images appended."""

    def write(images_of_test=None, superclasses=20):
        fine = list(range(5 * superclasses))
        columns = {"fine_label": fine, "coarse_label": [f % 20 for f in fine]}
        size = (4, 4)
        train = [jpeg(i, size) for i in fine]
        test = images_of_test or [jpeg(1000 + i, size) for i in fine]
        write_parquet(tmp_path / "cifar" / "train-00000-of-00001.parquet", train, columns)
        write_parquet(tmp_path / "cifar" / "test-00000-of-00001.parquet", test, columns)
        return str(tmp_path / "cifar")

    return write
