"""Digests of decoded images: equal for one picture, whatever format each of its files has.

A split's fingerprints are of encoded bytes, so those of a PNG in Parquet and of an array never
meet; a benchmark whose sets come in several formats compares pixels to find copies.
"""

import hashlib

import numpy as np
from PIL import Image

from pipeline.data.decoding import UnreadableImageError, decode_image
from pipeline.data.parquet import ParquetSource
from pipeline.data.split import Rows, Sample, Source


def pixel_digests(source: Source, rows: Rows) -> list[str]:
    """SHA-256 of each image's size and RGB values; a Parquet file's images are decoded once."""
    if isinstance(source, ParquetSource):
        return source.of_encoded(rows, "pixels", _decoded_digest)
    return [pixel_digest(source.image(int(row))) for row in rows]


def pixel_digest(sample: Sample) -> str:
    """SHA-256 of an image's size and RGB values."""
    image = Image.fromarray(sample) if isinstance(sample, np.ndarray) else sample
    if not isinstance(image, Image.Image):
        raise TypeError("a text has no pixels.")
    pixels = image.convert("RGB")
    return hashlib.sha256(f"{pixels.size}".encode() + pixels.tobytes()).hexdigest()


def _decoded_digest(encoded: bytes) -> str:
    """That of the pixels; of the bytes where they cannot be decoded, which is told elsewhere."""
    try:
        return pixel_digest(decode_image(encoded, "image"))
    except UnreadableImageError:
        return hashlib.sha256(encoded).hexdigest()
