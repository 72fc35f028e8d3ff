"""One shard on its way into the store: its rows are converted as they come from the engine."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.store.facts import StoreFacts
from pipeline.store.precision import TORCH_DTYPES, convert
from pipeline.store.samples import sample_arrays
from pipeline.types import InputError


class GatheredShard:
    """The rows of one shard in the stored type; no float32 copy of it is ever held whole.

    ``samples`` is how many the shard has, ``name`` what errors call it.
    """

    def __init__(self, facts: StoreFacts, samples: int, name: str) -> None:
        self._facts, self.samples, self._name = facts, samples, name
        shape = (samples * facts.outputs, facts.p)
        self._features = torch.empty(shape, dtype=TORCH_DTYPES[facts.dtype])
        self._batches: list[dict[str, np.ndarray]] = []
        self._count = 0

    def add(
        self,
        phi: Float[Tensor, "n *outputs p"],
        *,
        f0: Tensor | np.ndarray,
        labels: Tensor | np.ndarray,
        ids: Sequence[str],
        penultimate: Tensor | np.ndarray | None = None,
    ) -> None:
        """The next samples: raw gradients, (n, p) or (n, outputs, p), on any device.

        ``f0`` is (n, k), ``penultimate`` (n, h). Raises :class:`NonFiniteFeatureError`, naming the
        sample, for a value that is not finite or that the stored type cannot hold.
        """
        facts, count = self._facts, len(ids)
        arrays = sample_arrays(count, ids=ids, labels=labels, f0=f0, penultimate=penultimate)
        _refuse_shape(f"f0 of {self._name}", arrays["f0"].shape, (count, facts.k))
        if penultimate is not None:
            found = arrays["penultimate"].shape
            _refuse_shape(f"penultimate of {self._name}", found, (count, facts.h))
        # Each sample's outputs follow one another.
        rows = phi.detach().reshape(-1, phi.shape[-1])
        _refuse_shape(f"phi of {self._name}", rows.shape, (count * facts.outputs, facts.p))
        if self._count + count > self.samples:
            raise self._wrong_count(self._count + count)
        first = self._count * facts.outputs
        names = [name for name in ids for _ in range(facts.outputs)]
        convert(rows, self._features[first : first + len(rows)], facts.scale, names)
        self._batches.append(arrays)
        self._count += count

    @property
    def features(self) -> Tensor:
        """Gradient × scale in the stored type, (n·outputs, p); refused before all samples came."""
        if self._count != self.samples:
            raise self._wrong_count(self._count)
        return self._features

    @property
    def rows(self) -> dict[str, np.ndarray]:
        """What is saved beside the features, a row for every sample."""
        return {
            name: np.concatenate([batch[name] for batch in self._batches])
            for name in self._batches[0]
        }

    def _wrong_count(self, found: int) -> InputError:
        return InputError(f"{self._name} has {self.samples} samples, got {found}.")


def _refuse_shape(what: str, found: Sequence[int], wanted: tuple[int, ...]) -> None:
    if tuple(found) != wanted:
        raise InputError(f"{what} must have shape {wanted}, got {tuple(found)}.")
