import io

import numpy as np
from PIL import Image

from pipeline.data.arrays import ArraySource
from pipeline.data.parquet import ParquetSource
from pipeline.data.pixels import pixel_digests


def as_png(pixels, level):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=level)
    return buffer.getvalue()


def test_one_picture_has_one_digest_in_every_format(tmp_path, write_parquet):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 6, 5, 3), dtype=np.uint8)
    array = ArraySource(pixels, "array")
    rows = np.arange(3)
    for level in (0, 9):
        path = tmp_path / f"{level}.parquet"
        write_parquet(path, [as_png(image, level) for image in pixels], {"label": [0, 1, 2]})
        source = ParquetSource.open([path])
        assert source.fingerprints(rows) != array.fingerprints(rows)
        for _ in range(2):  # the second time from memory
            assert pixel_digests(source, rows) == pixel_digests(array, rows)


def test_pictures_of_another_shape_or_other_pixels_have_other_digests():
    pixels = np.random.default_rng(0).integers(0, 256, (2, 6, 5, 3), dtype=np.uint8)
    turned = ArraySource(pixels.reshape(2, 5, 6, 3), "turned")
    rows = np.arange(2)
    digests = pixel_digests(ArraySource(pixels, "x"), rows) + pixel_digests(turned, rows)
    assert len(set(digests)) == 4


def test_an_image_that_cannot_be_decoded_has_a_digest_too(tmp_path, jpeg, write_parquet):
    path = tmp_path / "x.parquet"
    write_parquet(path, [jpeg(0)[:-100], jpeg(1)[:-100], None], {"label": [0, 1, 2]})
    assert len(set(pixel_digests(ParquetSource.open([path]), np.arange(3)))) == 3
