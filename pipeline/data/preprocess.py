"""From decoded images to the tensor a network takes; declared in the config, part of provenance.

The order is torchvision's at evaluation: colour conversion, shorter side to ``resize``, centre
crop, value range, then (x − mean)/std. Pillow resizes with antialiasing.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, Literal, Self

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image
from pydantic import BeforeValidator, Field, PositiveFloat, model_validator
from torch import Tensor

from pipeline.config import Options
from pipeline.data.split import Sample, Split
from pipeline.types import InputError

RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
PILLOW_MODES = {1: "L", 3: "RGB"}
MANY_BITS = ("I", "F")


LARGEST_SIDE = 4096
"""Pixels; a typing error of a digit more would fill the memory before anything is planned."""

Side = Annotated[int, Field(gt=0, le=LARGEST_SIDE)]


class PreprocessOptions(Options):
    """How pixels become the network's input. Feature vectors (arrays) pass unchanged."""

    resize: Side | None = None
    """Length of the shorter side after resizing, in pixels; null keeps the size."""
    crop: Side | None = None
    """Side of the square cut from the centre, in pixels; null keeps everything."""
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    """Filter of the resizing, antialiased."""
    channels: Literal[1, 3] = 3
    """1 for grey, 3 for RGB; images are converted."""
    scale: PositiveFloat = 1.0
    """Value of full brightness: 1 for [0, 1], 255 for raw bytes; mean and std are in this unit."""
    mean: tuple[float, ...] = (0.0,)
    """Subtracted from each channel (one value, or one a channel)."""
    std: tuple[Annotated[float, Field(gt=0)], ...] = (1.0,)
    """Each channel is divided by it (one value, or one a channel)."""

    @model_validator(mode="after")
    def _values_meet(self) -> Self:
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, self.channels):
                raise ValueError(
                    f"{name} needs 1 value or {self.channels} (one a channel), has {len(values)}"
                )
        if self.resize and self.crop and self.crop > self.resize:
            raise ValueError(f"crop ({self.crop}) is larger than resize ({self.resize})")
        return self


IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def over_default(default: PreprocessOptions) -> BeforeValidator:
    """A validator that lets a config change single keys of a benchmark's own preprocessing."""

    def overlaid(value: Any) -> Any:
        return {**default.model_dump(), **value} if isinstance(value, dict) else value

    return BeforeValidator(overlaid)


class Preprocess:
    """The preprocessing as a function of one image; picklable."""

    def __init__(self, options: PreprocessOptions) -> None:
        self.options = options
        self._mean = torch.tensor(options.mean, dtype=torch.float32).reshape(-1, 1, 1)
        self._std = torch.tensor(options.std, dtype=torch.float32).reshape(-1, 1, 1)

    def __call__(self, image: Sample) -> Float[Tensor, "*sample"]:
        """float32 (c, h, w); a feature vector (d,) comes back as it is."""
        if isinstance(image, np.ndarray) and image.ndim == 1:
            return torch.as_tensor(image, dtype=torch.float32)
        pixels = _converted(_as_pillow(image), self.options.channels)
        if self.options.resize is not None:
            pixels = _shorter_side(pixels, self.options.resize, self.options.interpolation)
        if self.options.crop is not None:
            pixels = _centre(pixels, self.options.crop)
        values = torch.from_numpy(np.array(pixels, dtype=np.float32))
        values = values.reshape(pixels.height, pixels.width, -1).permute(2, 0, 1).contiguous()
        # Dividing by 255 first, as torchvision does, gives its bits for scale 1.
        return (values / (255.0 / self.options.scale) - self._mean) / self._std


def load_batch(
    split: Split, rows: slice, preprocess: Callable[[Sample], Tensor], *, threads: int = 1
) -> Float[Tensor, " b *sample"]:
    """The preprocessed samples at positions ``rows`` of a split, in order.

    ``threads`` decode at once (Pillow releases the interpreter); the result does not depend on it.
    Raises ``UnreadableImageError`` with the file's name, and ``InputError`` where sizes differ.
    """
    chosen = [int(row) for row in split.rows[rows]]

    def load(row: int) -> Tensor:
        image = split.source.image(row)
        try:
            return preprocess(image)
        except InputError as error:  # preprocessing sees an image without its name
            raise InputError(f"{error} This is {_named(split, row)}.") from None

    if threads > 1:
        with ThreadPoolExecutor(threads) as pool:
            samples = list(pool.map(load, chosen))
    else:
        samples = [load(row) for row in chosen]
    row_of_shape = {tuple(sample.shape): row for sample, row in zip(samples, chosen, strict=True)}
    if len(row_of_shape) > 1:
        shapes = sorted(row_of_shape)
        examples = (f"{s} of {_named(split, row_of_shape[s])}" for s in (shapes[0], shapes[-1]))
        raise InputError(
            f"images of split {split.name} have different sizes after preprocessing, such as "
            f"{' and '.join(examples)} (channels, height, width). Set resize and crop.",
            "benchmark.preprocess",
        )
    return torch.stack(samples)


def _named(split: Split, row: int) -> str:
    return f"{split.source.ids(np.array([row], dtype=np.int64))[0]} (split {split.name})"


def _as_pillow(image: Sample) -> Image.Image:
    if isinstance(image, Image.Image):
        return image
    if isinstance(image, str):
        raise InputError("a text is no image: it needs a tokenizer.", "benchmark.preprocess")
    if image.dtype != np.uint8:
        raise InputError(f"image arrays must be uint8, found {image.dtype}.", "benchmark")
    return Image.fromarray(_without_single_channel(image))


def _without_single_channel(image: NDArray[Any]) -> NDArray[Any]:
    return image[:, :, 0] if image.ndim == 3 and image.shape[2] == 1 else image


def _converted(image: Image.Image, channels: int) -> Image.Image:
    if image.mode.startswith(MANY_BITS):
        # Pillow clips 16-bit values at 255 where it should scale them: wrong pixels, no error.
        raise InputError(
            f"an image has Pillow mode {image.mode} (more than 8 bits a channel). "
            "Convert the data to 8-bit images.",
            "benchmark",
        )
    mode = PILLOW_MODES[channels]
    return image if image.mode == mode else image.convert(mode)


def _shorter_side(image: Image.Image, side: int, interpolation: str) -> Image.Image:
    short, long = sorted(image.size)
    if short == side:
        return image
    stretched = int(side * long / short)  # truncated, as torchvision does
    size = (side, stretched) if image.width <= image.height else (stretched, side)
    return image.resize(size, RESAMPLING[interpolation])


def _centre(image: Image.Image, side: int) -> Image.Image:
    if min(image.size) < side:
        raise InputError(
            f"an image of {image.width}×{image.height} is smaller than the crop of {side}. "
            "Set resize, or a smaller crop.",
            "benchmark.preprocess.crop",
        )
    left, top = round((image.width - side) / 2.0), round((image.height - side) / 2.0)
    return image.crop((left, top, left + side, top + side))
