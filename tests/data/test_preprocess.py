import pickle
from typing import Annotated

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import BaseModel, ValidationError

from pipeline.data.arrays import ArraySource
from pipeline.data.image_folder import FolderSource
from pipeline.data.preprocess import Preprocess, PreprocessOptions, load_batch, over_default
from pipeline.data.split import Split
from pipeline.types import InputError


def noise(width, height, seed=0):
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def test_resize_takes_the_shorter_side_and_truncates_the_longer():
    for size, expected in [((100, 67), (16, 23)), ((67, 100), (23, 16)), ((50, 50), (16, 16))]:
        out = Preprocess(PreprocessOptions(resize=16))(noise(*size))
        assert out.shape == (3, *expected)


def test_an_image_of_the_right_size_is_left_alone():
    image = noise(20, 16)
    out = Preprocess(PreprocessOptions(resize=16, scale=255))(image)
    assert torch.equal(out, torch.tensor(np.array(image)).permute(2, 0, 1).float())


def test_the_crop_is_the_centre():
    image = noise(21, 16)
    out = Preprocess(PreprocessOptions(crop=8, scale=255))(image)
    # (21 - 8)/2 = 6.5 rounds to 6, half to even, as in torchvision.
    expected = np.array(image)[4:12, 6:14]
    assert torch.equal(out, torch.tensor(expected).permute(2, 0, 1).float())


def test_values_are_scaled_then_normalized():
    image = noise(6, 5)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    out = Preprocess(PreprocessOptions(mean=mean, std=std))(image)
    pixels = torch.tensor(np.array(image)).permute(2, 0, 1).float()
    expected = (pixels.div(255) - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[
        :, None, None
    ]
    assert torch.equal(out, expected)
    raw = Preprocess(PreprocessOptions(scale=255, mean=(100.0,)))(image)
    assert torch.equal(raw, pixels - 100)


def test_bicubic_is_not_bilinear():
    image = noise(40, 40)
    a, b = (
        Preprocess(PreprocessOptions(resize=16, interpolation=kind))(image)
        for kind in ("bilinear", "bicubic")
    )
    assert not torch.equal(a, b)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "1"])
def test_every_8_bit_mode_becomes_rgb_or_grey(mode):
    image = noise(8, 8).convert(mode)
    assert Preprocess(PreprocessOptions())(image).shape == (3, 8, 8)
    assert Preprocess(PreprocessOptions(channels=1))(image).shape == (1, 8, 8)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_deep_images_are_refused_rather_than_clipped(dtype):
    with pytest.raises(InputError, match="8-bit"):
        Preprocess(PreprocessOptions())(Image.fromarray(np.full((4, 4), 900, dtype=dtype)))


def test_arrays_grey_and_rgb():
    pixels = np.arange(16, dtype=np.uint8).reshape(4, 4)
    grey = Preprocess(PreprocessOptions(channels=1, scale=255))
    assert torch.equal(grey(pixels)[0], torch.tensor(pixels).float())
    assert torch.equal(grey(pixels[:, :, None]), grey(pixels))
    rgb = Preprocess(PreprocessOptions(scale=255))(pixels)
    assert torch.equal(rgb, grey(pixels).expand(3, 4, 4))
    with pytest.raises(InputError, match="uint8"):
        grey(pixels.astype(np.float64))


def test_feature_vectors_pass_unchanged():
    vector = np.array([1.5, -2.0], dtype=np.float32)
    assert Preprocess(PreprocessOptions(mean=(9.0,)))(vector).tolist() == [1.5, -2.0]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mean": (0.1, 0.2)}, "mean needs 1 value or 3"),
        ({"channels": 1, "std": (1.0, 1.0, 1.0)}, "std needs 1 value or 1"),
        ({"std": (0.0,)}, "greater than 0"),
        ({"resize": 32, "crop": 64}, "larger than resize"),
    ],
)
def test_options_that_do_not_meet_are_refused(values, message):
    with pytest.raises(ValidationError, match=message):
        PreprocessOptions(**values)


def test_options_are_hashable_and_preprocess_is_picklable():
    options = PreprocessOptions(resize=8)
    assert {options: 1}[PreprocessOptions(resize=8)] == 1
    again = pickle.loads(pickle.dumps(Preprocess(options)))
    assert torch.equal(again(noise(9, 9)), Preprocess(options)(noise(9, 9)))


def test_a_config_changes_single_keys_of_a_default():
    default = PreprocessOptions(resize=256, crop=224)

    class Holder(BaseModel):
        preprocess: Annotated[PreprocessOptions, over_default(default)] = default

    assert Holder(preprocess={"crop": 200}).preprocess == default.model_copy(update={"crop": 200})
    assert Holder().preprocess == default
    with pytest.raises(ValidationError, match="forbidden"):
        Holder(preprocess={"krop": 200})


def test_a_batch_is_its_images_in_order_for_any_thread_count():
    pixels = np.random.default_rng(0).integers(0, 256, (7, 6, 6, 3), dtype=np.uint8)
    split = Split("s", ArraySource(pixels, "s"), np.array([6, 2, 0, 5, 1]), np.zeros(5, np.int64))
    preprocess = Preprocess(PreprocessOptions())
    batch = load_batch(split, slice(1, 5), preprocess)
    assert torch.equal(batch, torch.stack([preprocess(pixels[i]) for i in (2, 0, 5, 1)]))
    assert torch.equal(batch, load_batch(split, slice(1, 5), preprocess, threads=3))
    assert load_batch(split, slice(4, 99), preprocess).shape == (1, 3, 6, 6)


def test_images_of_different_size_need_a_crop(tmp_path, jpeg, put):
    put(tmp_path / "a.jpg", jpeg(0, (12, 10)))
    put(tmp_path / "b.jpg", jpeg(1, (10, 12)))
    source = FolderSource(tmp_path, ("a.jpg", "b.jpg"))
    split = Split("train", source, np.arange(2), np.zeros(2, np.int64))
    with pytest.raises(
        InputError,
        match=r"sizes .* \(3, 10, 12\) of a\.jpg \(split train\) and \(3, 12, 10\) of b\.jpg",
    ):
        load_batch(split, slice(None), Preprocess(PreprocessOptions()))
    assert load_batch(split, slice(None), Preprocess(PreprocessOptions(crop=8))).shape[0] == 2
    with pytest.raises(InputError, match=r"12×10 is smaller than the crop of 11.*This is a\.jpg"):
        load_batch(split, slice(None), Preprocess(PreprocessOptions(crop=11)))
