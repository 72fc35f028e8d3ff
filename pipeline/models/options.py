"""What the options of every backbone family share."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from pipeline.config import Options, Seed
from pipeline.models.head import HeadOptions


class ModelOptions(Options):
    """Base of a family's options; the family adds ``kind`` and its architecture."""

    weights: Path | None = None
    """Checkpoint of a pretrained network (safetensors or torch); none leaves it at random."""
    seed: Seed = 0
    """Seed of the random initialization, for what no checkpoint fills."""
    head: HeadOptions = HeadOptions()
    """The final linear layer that features are taken through."""


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Inside, torch's initializers draw from ``seed``; afterwards global randomness is as before.

    Module constructors take no generator, so the global one is lent to them.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
