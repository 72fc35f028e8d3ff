"""Faces rotated by unknown angles: some people are the source, others the target.

Maddox et al. 2021, figure 7: rotation U(0°, 30°), cropped to 45×45, the standardized angle is
regressed by a LeNet-like network.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.io
import scipy.ndimage
import torch
from jaxtyping import Float
from scipy.io.matlab import MatReadError
from torch import Tensor, nn

from pipeline.types import InputError

LARGEST_ANGLE = 30.0
"""Degrees."""
SIDE = 64
CROP = 45
"""Pixels: no corner of a face rotated by 30° lies within."""
IMAGES_OF_EACH = 10
"""Of every person, one person after the other."""


@dataclass(frozen=True)
class RotatedFaces:
    """Images and standardized angles."""

    x: Float[Tensor, "n 1 45 45"]
    y: Float[Tensor, " n"]


def read_faces(path: Path) -> Float[np.ndarray, "n 64 64"]:
    """The Olivetti faces of a MATLAB file, ``faces`` (4096, n), columns column-major, in [0, 1]."""
    if not path.is_file():
        raise InputError(f"{path} does not exist. Give olivettifaces.mat.", "path")
    try:
        values = scipy.io.loadmat(path).get("faces")
    except (ValueError, TypeError, EOFError, OSError, MatReadError) as error:
        raise InputError(f"{path} is no MATLAB file: {error}.", "path") from None
    if values is None or values.shape[0] != SIDE * SIDE or values.shape[1] % IMAGES_OF_EACH:
        raise InputError(f"{path} holds no faces (4096, 10 a person).", "path")
    return values.T.reshape(-1, SIDE, SIDE).transpose(0, 2, 1).astype(np.float32) / 255


def rotated_faces(
    faces: Float[np.ndarray, "n 64 64"], people: slice, copies: int, seed: int
) -> RotatedFaces:
    """Every image of some people at ``copies`` random angles, in random order."""
    generator = np.random.default_rng(seed)
    first, stop, _ = people.indices(len(faces) // IMAGES_OF_EACH)
    chosen = faces[first * IMAGES_OF_EACH : stop * IMAGES_OF_EACH]
    if len(chosen) == 0:
        raise InputError(f"there are {len(faces) // IMAGES_OF_EACH} people, none from {first} on.")
    rows = generator.permutation(np.repeat(np.arange(len(chosen)), copies))
    angles = generator.uniform(0, LARGEST_ANGLE, len(rows))
    images = np.stack([_rotated(chosen[i], a) for i, a in zip(rows, angles, strict=True)])
    # Moments of the uniform law, so that source and target share them.
    y = (angles - LARGEST_ANGLE / 2) / (LARGEST_ANGLE / math.sqrt(12))
    return RotatedFaces(torch.from_numpy(images)[:, None], torch.from_numpy(y).float())


def lenet_regressor(seed: int) -> nn.Sequential:
    """LeNet for 1×45×45 with one output; about 135,000 parameters."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        body = [nn.Conv2d(1, 6, 5), nn.ReLU(), nn.MaxPool2d(2)]
        body += [nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()]
        head = [nn.Linear(1024, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 1)]
        return nn.Sequential(*body, *head).eval()


def _rotated(face: np.ndarray, angle: float) -> np.ndarray:
    turned = scipy.ndimage.rotate(face, angle, reshape=False, order=1, mode="nearest")
    margin = (SIDE - CROP) // 2
    return np.ascontiguousarray(turned[margin : margin + CROP, margin : margin + CROP])
