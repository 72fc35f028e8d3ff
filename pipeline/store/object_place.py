"""Files of an object store by URL, through obstore: S3 and its like, Google's, Azure's.

A put is atomic and durable, and one with "only if absent" has one winner. Credentials, region and
endpoint come from the environment (``AWS_ACCESS_KEY_ID``, ``AWS_ENDPOINT_URL``, …), never from a
config.
"""

import contextlib
import errno
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import numpy as np

from pipeline.types import InputError, MissingExtraError

READS_AT_ONCE = 32
"""Requests under way at a time: each takes a round trip of some ten milliseconds."""

OUTAGE = timedelta(seconds=60)
"""A request is repeated for so long; a shard is tried three times, hence for three minutes."""

REPEATS = 40
"""Most repeats of a request, ever further apart: more than ``OUTAGE`` has room for."""


@contextlib.contextmanager
def answered(name: str, *, may_lack: bool = False) -> Iterator[None]:
    """What an object store refuses, or does not answer, as an :class:`OSError` of one line.

    ``may_lack`` leaves the :class:`FileNotFoundError` of what is not there as it is; where
    something is put, it means that the bucket is not there.
    """
    from obstore.exceptions import AlreadyExistsError, BaseError

    try:
        yield
    except AlreadyExistsError:
        raise
    except FileNotFoundError as error:
        if may_lack:
            raise
        raise _unanswered(error, name) from None
    except BaseError as error:
        raise _unanswered(error, name) from None


def _unanswered(error: Exception, name: str) -> OSError:
    return OSError(errno.EIO, _first_line(error), name)


def _first_line(error: Exception) -> str:
    """What obstore says; the rest of its message is its own state."""
    return str(error).partition("\n")[0]


class OpenedObject:
    """Reads ranges of one object."""

    def __init__(self, store: Any, key: str, size: int, name: str) -> None:
        self._store, self._key, self._name = store, key, name
        self.size = size

    def fill(self, buffers: Sequence[np.ndarray], offset: int) -> None:
        """Fill the buffers with one request."""
        import obstore

        length = sum(buffer.nbytes for buffer in buffers)
        if offset + length > self.size:
            raise EOFError
        with answered(self._name):
            content: Any = obstore.get_range(self._store, self._key, start=offset, length=length)
        values, start = np.frombuffer(content, dtype=np.uint8), 0
        for buffer in buffers:
            buffer[...] = values[start : start + buffer.nbytes]
            start += buffer.nbytes


class ObjectPlace:
    """Keys are names below one prefix."""

    reads_at_once = READS_AT_ONCE

    def __init__(self, url: str) -> None:
        try:
            from obstore.store import from_url
        except ImportError:
            raise MissingExtraError("obstore", "cloud", f"the store at {url}") from None
        self._url = url
        try:
            repeats: Any = {"max_retries": REPEATS, "retry_timeout": OUTAGE}
            self._store = from_url(url, retry_config=repeats)
        except Exception as error:
            # obstore's errors for wrong URLs share no base with those of its options.
            raise InputError(
                f"{url} cannot be used ({_first_line(error)}). Expected a URL such as "
                "s3://bucket/prefix, and credentials and region in the environment.",
                "store.root",
            ) from None

    def read(self, key: str) -> bytes:
        """A whole object."""
        import obstore

        with answered(self._name(key), may_lack=True):
            return bytes(obstore.get(self._store, key).bytes())

    def read_each(self, keys: Sequence[str]) -> list[bytes]:
        """Several small objects, many at once."""
        with ThreadPoolExecutor(READS_AT_ONCE) as readers:
            return list(readers.map(self.read, keys))

    @contextlib.contextmanager
    def opened(self, key: str) -> Iterator[OpenedObject]:
        """An object to read ranges from."""
        size = self.size(key)
        if size is None:
            raise FileNotFoundError(key)
        yield OpenedObject(self._store, key, size, self._name(key))

    def size(self, key: str) -> int | None:
        """An object's bytes, or None."""
        import obstore

        try:
            with answered(self._name(key), may_lack=True):
                return int(obstore.head(self._store, key)["size"])
        except FileNotFoundError:
            return None

    def sizes(self, folder: str = "") -> Mapping[str, int]:
        """Bytes of every object below ``folder``, by key."""
        import obstore

        with answered(self._name(folder)):
            batches = obstore.list(self._store, prefix=folder or None)
            return {entry["path"]: entry["size"] for batch in batches for entry in batch}

    def write(self, key: str, content: bytes | memoryview) -> None:
        """Put an object."""
        import obstore

        with answered(self._name(key)):
            obstore.put(self._store, key, content)

    def create(self, key: str, content: bytes) -> bool:
        """Put an object unless it exists; the server decides between two writers."""
        import obstore
        from obstore.exceptions import AlreadyExistsError

        try:
            with answered(self._name(key)):
                obstore.put(self._store, key, content, mode="create")
        except AlreadyExistsError:
            return False
        return True

    def remove(self, key: str) -> None:
        """Delete an object, if it is there."""
        import obstore

        with contextlib.suppress(FileNotFoundError), answered(self._name(key), may_lack=True):
            obstore.delete(self._store, key)

    def _name(self, key: str) -> str:
        return f"{self._url}/{key}"

    def remove_partial(self, key: str) -> None:
        """Nothing: an object is there as a whole or not at all."""
