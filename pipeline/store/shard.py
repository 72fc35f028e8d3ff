"""One shard of a Zarr v3 array: a block of rows × all columns, in one file.

Zarr encodes it; reading goes straight to the bytes. A shard file is its inner chunks (all rows of
the shard × some columns, row-major, each followed by its CRC-32C), in any order, and an index of
(offset, length) pairs with a CRC-32C of its own. A panel one chunk wide is read from disk into
its place with no copy between, several times faster than through Zarr's chunk pipeline.
"""

from dataclasses import dataclass
from typing import Any, Literal

import google_crc32c
import numpy as np

from pipeline.artefact import CorruptArtefactError
from pipeline.store.place import OpenedFile, Place

Compression = Literal["none", "lz4"]

CHUNK_COLUMNS = 8192
"""Width of an inner chunk, the narrowest panel that is read without waste."""

CHECKSUM_BYTES = 4
INDEX_ENTRY = np.dtype("<u8")
ABSENT = np.iinfo(np.uint64).max
"""What the index holds for a chunk that was never written."""


@dataclass(frozen=True)
class ShardLayout:
    """Shape, type and codecs of every shard of one array."""

    rows: int
    """Rows of a whole shard (the last one may hold fewer)."""
    columns: int
    dtype: np.dtype
    compression: Compression = "none"

    @property
    def chunk_columns(self) -> int:
        """Columns of an inner chunk."""
        return min(CHUNK_COLUMNS, self.columns)

    @property
    def chunks(self) -> int:
        """Inner chunks of a shard, one row of them."""
        return -(-self.columns // self.chunk_columns)

    @property
    def nbytes(self) -> int:
        """Bytes of a whole shard without compression."""
        return self.rows * self.chunks * self.chunk_columns * self.dtype.itemsize


def array_description(layout: ShardLayout, rows: int, attributes: dict[str, Any]) -> bytes:
    """The ``zarr.json`` of an array of ``rows`` × ``layout.columns``."""
    from zarr.storage import MemoryStore

    files: dict[str, Any] = {}
    _create_array(MemoryStore(files), layout, rows, attributes)
    return bytes(files["zarr.json"].to_bytes())


def _create_array(
    store: Any, layout: ShardLayout, rows: int, attributes: dict[str, Any] | None = None
) -> Any:
    import zarr
    from zarr.codecs import BloscCodec, Crc32cCodec

    blosc = BloscCodec(cname="lz4", shuffle="bitshuffle", typesize=layout.dtype.itemsize)
    return zarr.create_array(
        store,
        shape=(rows, layout.columns),
        chunks=(layout.rows, layout.chunk_columns),
        shards=(layout.rows, layout.chunks * layout.chunk_columns),
        dtype=layout.dtype,
        filters=None,
        compressors=[Crc32cCodec()] if layout.compression == "none" else [blosc, Crc32cCodec()],
        fill_value=0,
        attributes=attributes,
        # Chunks of zeros are written like others: a missing one is then always damage.
        config={"write_empty_chunks": True},
    )


def encode_shard(values: np.ndarray, layout: ShardLayout) -> Any:
    """The bytes of one shard file, a buffer; ``values`` may have fewer rows than the layout.

    It is encoded in memory, so that the file can be written, synced and renamed in one step and
    what an earlier attempt left behind is never read.
    """
    from zarr.storage import MemoryStore

    files: dict[str, Any] = {}
    array = _create_array(MemoryStore(files), layout, len(values))
    array[:] = values
    return memoryview(files["c/0/0"].as_buffer_like())


class ShardReader:
    """Checked reads of column ranges from one shard file."""

    def __init__(
        self, place: Place, key: str, layout: ShardLayout, rows: int, *, name: str, remedy: str
    ) -> None:
        self.layout = layout
        self.rows = rows
        self._place, self._key = place, key
        self._name, self._remedy = name, remedy
        self._index = self._read_index()

    def read(self, columns: slice, rows: slice, out: np.ndarray) -> None:
        """Fill ``out`` with ``rows`` (of this shard) × ``columns`` in the stored type."""
        layout, width = self.layout, self.layout.chunk_columns
        first, last = columns.start // width, -(-columns.stop // width)
        whole = rows == slice(0, self.rows) and layout.compression == "none"
        with self._place.opened(self._key) as file:
            for chunk in range(first, last):
                start, stop = chunk * width, (chunk + 1) * width
                a, b = max(start, columns.start), min(stop, columns.stop)
                target = out[:, a - columns.start : b - columns.start]
                if whole and b - a == width and target.flags.c_contiguous:
                    self._read_in_place(file, chunk, target)
                else:
                    values = self._read_chunk(file, chunk)
                    target[:] = values[rows, a - start : b - start]

    def _read_in_place(self, file: OpenedFile, chunk: int, target: np.ndarray) -> None:
        """Read a chunk's rows straight into contiguous memory; only its padding is set aside."""
        offset, length = self._position(chunk)
        rest = np.empty(length - target.nbytes, dtype=np.uint8)
        data = target.reshape(-1).view(np.uint8)
        self._fill(file, [data, rest], offset)
        checksum = google_crc32c.extend(google_crc32c.value(data), rest[:-CHECKSUM_BYTES])
        self._check(checksum, rest[-CHECKSUM_BYTES:], chunk)

    def _read_chunk(self, file: OpenedFile, chunk: int) -> np.ndarray:
        """All rows of one inner chunk, those that only pad the last shard too."""
        offset, length = self._position(chunk)
        data = np.empty(length, dtype=np.uint8)
        self._fill(file, [data], offset)
        body = data[:-CHECKSUM_BYTES]
        self._check(google_crc32c.value(body), data[-CHECKSUM_BYTES:], chunk)
        if self.layout.compression != "none":
            from numcodecs.blosc import decompress

            body = np.frombuffer(decompress(body), dtype=np.uint8)
        return body.view(self.layout.dtype).reshape(self.layout.rows, self.layout.chunk_columns)

    def _read_index(self) -> np.ndarray:
        length = 2 * INDEX_ENTRY.itemsize * self.layout.chunks
        data = np.empty(length + CHECKSUM_BYTES, dtype=np.uint8)
        try:
            with self._place.opened(self._key) as file:
                self._fill(file, [data], file.size - len(data))
        except FileNotFoundError:
            raise self._damaged("the file is missing") from None
        self._check(google_crc32c.value(data[:length]), data[length:], None)
        return data[:length].view(INDEX_ENTRY).reshape(-1, 2)

    def _fill(self, file: OpenedFile, buffers: list[np.ndarray], offset: int) -> None:
        try:
            if offset < 0:
                raise EOFError
            file.fill(buffers, offset)
        except EOFError:
            raise self._damaged("the file is too short") from None

    def _position(self, chunk: int) -> tuple[int, int]:
        offset, length = (int(value) for value in self._index[chunk])
        if offset == ABSENT:
            raise self._damaged(f"chunk {chunk} is missing")
        return offset, length

    def _check(self, computed: int, stored: np.ndarray, chunk: int | None) -> None:
        if computed != int.from_bytes(stored.tobytes(), "little"):
            where = "its index" if chunk is None else f"column chunk {chunk}"
            raise self._damaged(f"the checksum of {where} does not match")

    def _damaged(self, what: str) -> CorruptArtefactError:
        return CorruptArtefactError(f"the shard {self._name} is damaged: {what}. {self._remedy}")
