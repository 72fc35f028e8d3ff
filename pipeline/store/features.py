"""The feature store: every sample's sketched gradient in sharded Zarr, written once.

    STORE/
      store.json            what the store is: sizes, type, scale, provenance
      column_weights.npy    what makes the kernel unbiased, float64 (p,)
      features/             Zarr v3 array (n·outputs, p): gradient × scale
      rows/00003.npz        shard 3's penultimate activations, f₀, labels, ids
      done/00003.json       its done mark: sizes and content digests, written last

A missing shard reads as zeros in Zarr, so nothing is read here that carries no done mark. One
writer owns a whole shard; any number of processes write different shards at once.
"""

import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.artefact import (
    CorruptArtefactError,
    refuse_difference,
)
from pipeline.store.facts import (
    StoreFacts,
    as_json,
    facts_bytes,
    parsed_facts,
)
from pipeline.store.facts import rows_per_shard as default_rows_per_shard
from pipeline.store.gathered import GatheredShard
from pipeline.store.lazy import lazy_array, lazy_chunks
from pipeline.store.marks import DoneMarks, shard_key
from pipeline.store.place import Location, absolute, as_location, child, place_at
from pipeline.store.precision import TORCH_DTYPES, StoredDtype, storage_view
from pipeline.store.samples import npy_bytes, npz_bytes
from pipeline.store.shard import (
    CHUNK_COLUMNS,
    Compression,
    ShardReader,
    array_description,
    encode_shard,
)
from pipeline.types import InputError

STORE, WEIGHTS, ZARR = "store.json", "column_weights.npy", "zarr.json"


class StoreExistsError(InputError):
    """Somebody has created the store already."""


class FeatureStore:
    """Features of one split. Make it with :meth:`create`, find it with :meth:`open`.

    ``path`` is a folder, or the URL of a prefix in an object store.
    """

    def __init__(self, path: Location, facts: StoreFacts) -> None:
        self.path = path
        self.place = place_at(path)
        self.facts = facts
        self._marks = DoneMarks(path, self.place, self.shards)
        self._readers: dict[int, ShardReader] = {}
        self._known_complete = False

    # -- making and opening -------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        path: Location,
        *,
        n: int,
        p: int,
        provenance: Mapping[str, Any],
        dtype: StoredDtype = "float16",
        scale: float = 1.0,
        rows_per_shard: int | None = None,
        outputs: int = 1,
        h: int = 0,
        k: int = 1,
        column_weights: Any = None,
        compression: Compression = "none",
        recorded: Mapping[str, Any] | None = None,
    ) -> "FeatureStore":
        """An empty store at ``path``, which must not exist; it appears whole or not at all."""
        path = as_location(path)
        weights = npy_bytes(_checked_weights(column_weights, p))
        facts = StoreFacts(
            n=n,
            p=p,
            outputs=outputs,
            dtype=dtype,
            scale=scale,
            rows_per_shard=rows_per_shard or default_rows_per_shard(p, dtype, n, outputs),
            h=h,
            k=k,
            compression=compression,
            provenance=as_json(provenance),
            recorded=as_json(recorded or {}),
            weights_sha256=hashlib.sha256(weights).hexdigest(),
        )
        store = cls(path, facts)
        store._lay_out(weights)
        return store

    @classmethod
    def open(cls, path: Location, provenance: Mapping[str, Any] | None = None) -> "FeatureStore":
        """The store at ``path``, finished or not; refused when its provenance differs."""
        path = as_location(path)
        place = place_at(path)
        if place.size(STORE) is None:
            raise InputError(f"no feature store at {path}. Run the features stage first.")
        facts = parsed_facts(place.read(STORE), f"{path}/{STORE}")
        if provenance is not None:
            refuse_difference(path, facts.provenance, as_json(provenance))
        return cls(path, facts)

    def __reduce__(self) -> tuple[Any, ...]:
        # Workers get the path, which may be relative to another folder than theirs, and the facts;
        # each reads the shard indices itself.
        return FeatureStore, (absolute(self.path), self.facts)

    # -- what there is ------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, int]:
        """Rows (samples × outputs) and columns of the features."""
        return self.facts.n * self.facts.outputs, self.facts.p

    @property
    def dtype(self) -> torch.dtype:
        """Type in which :meth:`read` gives the stored values."""
        return TORCH_DTYPES[self.facts.dtype]

    @property
    def shards(self) -> int:
        """Number of shards."""
        return -(-self.facts.n // self.facts.rows_per_shard)

    def samples(self, shard: int) -> slice:
        """The samples of one shard."""
        start = shard * self.facts.rows_per_shard
        return slice(start, min(start + self.facts.rows_per_shard, self.facts.n))

    def shard_path(self, shard: int) -> Location:
        """The Zarr file that holds a shard."""
        return child(self.path, shard_key(shard))

    def is_done(self, shard: int) -> bool:
        """Whether a shard carries its done mark."""
        return self._marks.is_done(shard)

    def missing_rows(self) -> list[int]:
        """The shards without a done mark, in order; marks are read, other files only listed.

        Raises :class:`CorruptArtefactError` for a marked shard whose files are gone or cut.
        """
        return self._marks.missing()

    def remove_partial(self, shard: int) -> None:
        """Delete what killed writers of a shard left; for the one who holds its lease."""
        self._marks.remove_partial(shard)

    def verify(self) -> None:
        """Compare every byte with the digests in the done marks."""
        self._require_complete()
        for shard in range(self.shards):
            self._marks.verify(shard)

    # -- writing ------------------------------------------------------------------------------

    def write_rows(
        self,
        shard: int,
        phi: Float[Tensor, "n *outputs p"],
        *,
        f0: Tensor | np.ndarray,
        labels: Tensor | np.ndarray,
        ids: Sequence[str],
        penultimate: Tensor | np.ndarray | None = None,
    ) -> bool:
        """Store one whole shard and mark it done; False if it was done already.

        ``phi`` holds raw gradients, (n, p) or (n, outputs, p), on any device; ``f0`` is (n, k),
        ``penultimate`` (n, h). Nothing of the shard is trusted before its mark is written.
        Raises :class:`NonFiniteFeatureError`, naming the sample, before anything is written.
        """
        if self.is_done(shard):
            return False
        gathered = self.new_shard(shard)
        gathered.add(phi, f0=f0, labels=labels, ids=ids, penultimate=penultimate)
        self.write_shard(shard, gathered)
        return True

    def new_shard(self, shard: int) -> GatheredShard:
        """What takes a shard's rows in the order of its samples, some at a time."""
        return GatheredShard(self.facts, self._sample_count(shard), f"shard {shard}")

    def write_shard(self, shard: int, gathered: GatheredShard) -> None:
        """Store a shard whose rows have all come, and mark it done."""
        content = encode_shard(storage_view(gathered.features), self.facts.layout)
        self._marks.publish(shard, content, npz_bytes(gathered.rows))

    # -- reading ------------------------------------------------------------------------------

    def weights(self) -> np.ndarray:
        """W's diagonal, float64 (p,): column weights / scale, so that K = S W² Sᵀ of stored S."""
        return self.column_weights() / self.facts.scale

    def column_weights(self) -> np.ndarray:
        """The sketch's weights of the raw gradients' columns, float64 (p,)."""
        try:
            content = self.place.read(WEIGHTS)
            weights: np.ndarray = np.load(io.BytesIO(content))
        except (FileNotFoundError, ValueError, EOFError) as error:
            raise self._damaged_weights(str(error)) from None
        if weights.shape != (self.facts.p,):
            raise self._damaged_weights(f"it has shape {weights.shape}, expected ({self.facts.p},)")
        if self.facts.weights_sha256 not in (None, hashlib.sha256(content).hexdigest()):
            raise self._damaged_weights("its content does not match the digest in store.json")
        return weights

    def read(self, columns: slice, out: Tensor, rows: slice = slice(None)) -> None:
        """Fill ``out``, of the store's own type, with the stored values of a column range.

        A range of one inner chunk (8,192 columns) goes from the file to ``out`` directly.
        Every byte's checksum is compared; damage raises with the shard's name.
        """
        self._require_complete()
        start, stop, _ = rows.indices(self.shape[0])
        target = storage_view(out)
        height = self.facts.rows_per_shard * self.facts.outputs

        def read_shard(shard: int) -> None:
            first = shard * height
            a, b = max(start, first), min(stop, first + height)
            own = slice(a - first, b - first)
            self._reader(shard).read(columns, own, target[a - start : b - start])

        shards = range(start // height, -(-stop // height))
        if self.place.reads_at_once == 1 or len(shards) == 1:
            for shard in shards:
                read_shard(shard)
        else:
            with ThreadPoolExecutor(self.place.reads_at_once) as readers:
                list(readers.map(read_shard, shards))

    def panel(self, columns: slice, rows: slice = slice(None)) -> np.ndarray:
        """Stored values (gradient × scale) of a column range, float32 (n, w)."""
        first, last, _ = columns.indices(self.shape[1])
        start, stop, _ = rows.indices(self.shape[0])
        out = torch.empty((stop - start, last - first), dtype=self.dtype)
        self.read(slice(first, last), out, slice(start, stop))
        panel: np.ndarray = out.float().numpy()
        return panel

    def panels(self, width: int = CHUNK_COLUMNS) -> Iterator[tuple[slice, np.ndarray]]:
        """All columns in order: a column range and its stored values, float32 (n, width)."""
        for start in range(0, self.shape[1], width):
            columns = slice(start, min(start + width, self.shape[1]))
            yield columns, self.panel(columns)

    def gradients(self, columns: slice, rows: slice = slice(None)) -> np.ndarray:
        """Raw gradients ∂f/∂θ of a column range, float32 (n, w): the scale is taken out."""
        return self.panel(columns, rows) / np.float32(self.facts.scale)

    def as_dask(self) -> Any:
        """Raw gradients as a lazy Dask array, float32 (n, p), in chunks of a few MiB."""
        self._require_complete()
        return lazy_array(self, lazy_chunks(self.facts.layout))

    def penultimate(self) -> np.ndarray:
        """Penultimate activations, float32 (n, h)."""
        return self._per_sample("penultimate")

    def f0(self) -> np.ndarray:
        """The network's outputs at θ₀, float32 (n, k)."""
        return self._per_sample("f0")

    def labels(self) -> np.ndarray:
        """Labels, int64 (n,), or targets, float64 (n, t)."""
        return self._per_sample("labels")

    def ids(self) -> list[str]:
        """Sample ids, in order."""
        return [str(name) for name in self._per_sample("ids")]

    # -- inside -------------------------------------------------------------------------------

    def _sample_count(self, shard: int) -> int:
        samples = self.samples(shard)
        return samples.stop - samples.start

    def _damaged_weights(self, what: str) -> CorruptArtefactError:
        return CorruptArtefactError(
            f"{self.path}/{WEIGHTS} is damaged ({what}). Delete {self.path} and run again."
        )

    def _lay_out(self, weights: bytes) -> None:
        """Everything a store has before its first shard; of several makers at once one wins."""
        facts, place = self.facts, self.place
        if place.size(STORE) is None:
            attributes = {"dtype": facts.dtype, "scale": facts.scale, "outputs": facts.outputs}
            rows = facts.n * facts.outputs
            place.write(f"features/{ZARR}", array_description(facts.layout, rows, attributes))
            place.write(WEIGHTS, weights)
            if place.create(STORE, facts_bytes(facts)):
                return
        raise StoreExistsError(f"{self.path} exists already. Open it, or use another folder.")

    def _reader(self, shard: int) -> ShardReader:
        if shard not in self._readers:
            self._readers[shard] = ShardReader(
                self.place,
                shard_key(shard),
                self.facts.layout,
                self._sample_count(shard) * self.facts.outputs,
                name=str(self.shard_path(shard)),
                remedy=self._marks.remedy(shard),
            )
        return self._readers[shard]

    def _per_sample(self, name: str) -> np.ndarray:
        self._require_complete()
        return np.concatenate([self._shard_array(shard, name) for shard in range(self.shards)])

    def _shard_array(self, shard: int, name: str) -> np.ndarray:
        with np.load(io.BytesIO(self._marks.checked_rows(shard))) as arrays:
            if name not in arrays:
                raise InputError(f"{self.path} was written without {name}.")
            values: np.ndarray = arrays[name]
        return values

    def _require_complete(self) -> None:
        if self._known_complete:
            return
        missing = self.missing_rows()
        if missing:
            raise InputError(
                f"{self.path} lacks {len(missing)} of {self.shards} shards (first: {missing[0]}). "
                "Run the features stage to the end."
            )
        self._known_complete = True


def _checked_weights(column_weights: Any, p: int) -> np.ndarray:
    weights = np.ones(p) if column_weights is None else np.asarray(column_weights, float)
    if weights.shape != (p,):
        raise InputError(f"column_weights must have shape ({p},), got {weights.shape}.")
    return weights
