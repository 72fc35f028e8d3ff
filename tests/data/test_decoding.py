import contextlib
import io

import numpy as np
import pytest
from PIL import Image

from pipeline.data import decoding
from pipeline.data.decoding import UnreadableImageError, decode_image


def test_a_whole_image_is_decoded(jpeg):
    assert decode_image(jpeg(0, (12, 10)), "x").size == (12, 10)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"])
def test_a_truncated_image_is_refused_by_name(jpeg, kind):
    data = jpeg(0, (64, 64), kind)
    for kept in (0, 10, len(data) // 2):
        with pytest.raises(UnreadableImageError, match=r"cat\.jpg.*on_bad: skip"):
            decode_image(data[:kept], "cat.jpg")


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, about damaged TIFF tags
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_random_damage_never_raises_anything_else(jpeg):
    rng = np.random.default_rng(0)
    for kind in ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"):
        data = jpeg(0, (24, 24), kind)
        for _ in range(150):
            damaged = bytearray(data)
            for position in rng.integers(0, len(data), 6):
                damaged[position] = int(rng.integers(256))
            with contextlib.suppress(UnreadableImageError):
                decode_image(bytes(damaged), "x")


def test_no_image_at_all_is_refused():
    with pytest.raises(UnreadableImageError, match=r"image x: no image of a known format\."):
        decode_image(b"<html>not found</html>", "x")


def test_a_decompression_bomb_is_refused(monkeypatch):
    buffer = io.BytesIO()
    Image.new("L", (400, 400)).save(buffer, "PNG")
    monkeypatch.setattr(decoding, "MAX_PIXELS", 399 * 400)
    with pytest.raises(UnreadableImageError, match="400×400 pixels"):
        decode_image(buffer.getvalue(), "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # Pillow's own error
    with pytest.raises(UnreadableImageError, match="bomb"):
        decode_image(buffer.getvalue(), "bomb.png")
