"""Images of a benchmark as tensors, for studies that train small networks themselves."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pipeline.baselines.training import Images
from pipeline.data.preprocess import Preprocess, load_batch
from pipeline.registry import BenchmarkOptions, build_benchmark
from pipeline.types import InputError


@dataclass(frozen=True)
class Labelled:
    """Some samples of a split with their classes."""

    x: Float[Tensor, " n *image"]
    labels: Int[Tensor, " n"]
    k: int

    def __len__(self) -> int:
        return len(self.labels)

    def one_hot(self) -> Float[Tensor, "n k"]:
        """e_y, float32."""
        return torch.nn.functional.one_hot(self.labels, self.k).float()

    def first(self, count: int, asked_by: str) -> "Labelled":
        """The first samples; a split's order is random and stratified."""
        if count > len(self):
            raise InputError(f"{count} samples are asked for, there are {len(self)}.", asked_by)
        return self.part(0, count)

    def part(self, start: int, stop: int) -> "Labelled":
        """The samples from ``start`` to before ``stop``."""
        return Labelled(self.x[start:stop], self.labels[start:stop], self.k)


def load_splits(options: BenchmarkOptions, *names: str) -> dict[str, Labelled]:
    """The named splits of a classification benchmark, decoded whole."""
    benchmark = build_benchmark(options)
    found = {}
    for name in names:
        if name not in benchmark.splits:
            raise InputError(
                f"the benchmark has no split {name!r}; it has {', '.join(benchmark.splits)}."
            )
        split = benchmark.splits[name]
        if split.labels.dtype != np.int64:
            raise InputError("this study is about classes; the benchmark is a regression.")
        classes = benchmark.pretrain_classes if name == "pretrain" else benchmark.classes
        x = load_batch(split, slice(0, len(split)), Preprocess(options.preprocess))
        found[name] = Labelled(x, torch.from_numpy(split.labels), len(classes))
    return found


def images_of(samples: Labelled) -> Images:
    """The samples as the baselines' training takes them."""

    def load(rows: Int[np.ndarray, " b"]) -> list[Tensor]:
        return list(samples.x[torch.from_numpy(rows)])

    return Images(load, samples.labels.numpy(), [str(i) for i in range(len(samples))])
