"""From the bytes of an image file to pixels, refusing what cannot be trusted."""

import io
import struct
import zlib

from PIL import Image, UnidentifiedImageError

from pipeline.types import InputError

MAX_PIXELS = 89_478_485
"""Pillow's own limit (a quarter of a gigabyte as RGB); larger headers are decompression bombs."""

DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    EOFError,
    IndexError,
    OverflowError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
"""What Pillow's decoders raise on damaged files; the set is wide because there are many formats."""


class UnreadableImageError(InputError):
    """An image that is truncated, damaged, of no known format, or too large.

    ``reason`` is the file's name and what is wrong with it, without advice.
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(
            f"cannot read the image {reason}. Replace it, or set benchmark.on_bad: skip to leave "
            "such images out."
        )


def decode_image(data: bytes, name: str) -> Image.Image:
    """The decoded image; ``name`` is told when it cannot be read.

    EXIF orientation is ignored, as by torchvision's loader, with which backbones were trained.
    """
    try:
        image = Image.open(io.BytesIO(data))
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"{image.width}×{image.height} pixels, more than {MAX_PIXELS}")
        image.load()
    except UnidentifiedImageError:
        # Pillow's own message holds an address in memory.
        raise UnreadableImageError(f"{name}: no image of a known format") from None
    except DECODER_ERRORS as error:
        raise UnreadableImageError(f"{name}: {error}") from None
    return image
