"""Done marks: the sizes and digests of a shard's files, written last; what disagrees is damage.

features/c/3/0    the Zarr file of shard 3
rows/00003.npz    what is saved beside its features
done/00003.json   its mark
"""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from pipeline.artefact import CorruptArtefactError, readable_json
from pipeline.store.place import Location, Place, child

DIGEST_DIFFERS = "its content does not match the digest in its done mark"


def shard_key(shard: int) -> str:
    """The Zarr file of a shard."""
    return f"features/c/{shard}/0"


def rows_key(shard: int) -> str:
    """What is saved beside a shard's features."""
    return f"rows/{shard:05d}.npz"


def mark_key(shard: int) -> str:
    """A shard's done mark."""
    return f"done/{shard:05d}.json"


FILES = {"features": shard_key, "rows": rows_key}
"""The files that a mark speaks of, and where a shard's lie."""


@dataclass(frozen=True)
class Written:
    """What a mark says of one file."""

    size: int
    sha256: str


MARK = TypeAdapter(dict[str, Written])


class DoneMarks:
    """The marks of a store of so many shards at ``path``."""

    def __init__(self, path: Location, place: Place, shards: int) -> None:
        self._path, self._place, self._shards = path, place, shards

    def is_done(self, shard: int) -> bool:
        """Whether a shard carries its mark."""
        return self._place.size(mark_key(shard)) is not None

    def missing(self) -> list[int]:
        """The shards without a mark, in order; marks are read, other files only listed.

        Raises :class:`CorruptArtefactError` for a marked shard whose files are gone or cut.
        """
        marked = self._place.sizes("done")
        done = [shard for shard in range(self._shards) if mark_key(shard) in marked]
        # After the marks: what they promise is there by now.
        sizes = {**self._place.sizes("features/c"), **self._place.sizes("rows")} if done else {}
        contents = self._place.read_each([mark_key(shard) for shard in done])
        for shard, content in zip(done, contents, strict=True):
            self._check_sizes(shard, self._parsed(shard, content), sizes)
        return sorted(set(range(self._shards)) - set(done))

    def publish(self, shard: int, features: Any, rows: bytes) -> None:
        """Write a shard's two files, each in one step, and then its mark."""
        mark = {}
        for name, content in (("features", features), ("rows", rows)):
            self._place.write(FILES[name](shard), content)
            written = Written(len(content), hashlib.sha256(content).hexdigest())
            mark[name] = asdict(written)
        self._place.write(mark_key(shard), readable_json(mark).encode())

    def remove_partial(self, shard: int) -> None:
        """Delete what killed writers of a shard left; for the one who holds its lease."""
        for key_of in (*FILES.values(), mark_key):
            self._place.remove_partial(key_of(shard))

    def verify(self, shard: int) -> None:
        """Compare every byte of a shard with the digests in its mark."""
        for name in FILES:
            self._checked(shard, name)

    def checked_rows(self, shard: int) -> bytes:
        """What is saved beside a shard's features, equal to its digest."""
        return self._checked(shard, "rows")

    def remedy(self, shard: int) -> str:
        """What to do about a damaged shard."""
        mark = child(self._path, mark_key(shard))
        return f"Delete {mark} and run again to make shard {shard} anew."

    def _checked(self, shard: int, name: str) -> bytes:
        key = FILES[name](shard)
        content = self._place.read(key)
        mark = self._parsed(shard, self._place.read(mark_key(shard)))
        if hashlib.sha256(content).hexdigest() != mark[name].sha256:
            raise self._damaged(shard, key, DIGEST_DIFFERS)
        return content

    def _check_sizes(
        self, shard: int, mark: Mapping[str, Written], sizes: Mapping[str, int]
    ) -> None:
        for name, key_of in FILES.items():
            key = key_of(shard)
            size = sizes.get(key)
            if size != mark[name].size:
                found = "is missing" if size is None else f"has {size} bytes"
                raise self._damaged(shard, key, f"it {found}, {mark[name].size} were written")

    def _damaged(self, shard: int, key: str, what: str) -> CorruptArtefactError:
        return CorruptArtefactError(
            f"shard {shard} is damaged: {child(self._path, key)}: {what}. {self.remedy(shard)}"
        )

    def _parsed(self, shard: int, content: bytes) -> dict[str, Written]:
        try:
            mark = MARK.validate_json(content)
        except ValidationError:
            mark = {}
        if mark.keys() != FILES.keys():
            raise self._damaged(shard, mark_key(shard), "it is no done mark")
        return mark
