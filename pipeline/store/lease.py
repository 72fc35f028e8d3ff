"""Leases on shards: who works on what, so that two jobs share the work and never do it twice.

``leases/NAME.G`` is created by exactly one writer and renewed while it works. A holder that is
gone lets it run out, or is seen to be dead by others on its machine; then generation G + 1 is up
for grabs. Nothing depends on leases but time: a shard written twice is written with the same bytes.
"""

import contextlib
import json
import logging
import os
import platform
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil
from pydantic import TypeAdapter, ValidationError

from pipeline.artefact import FullDiskError
from pipeline.store.place import Place

logger = logging.getLogger(__name__)

LEASE_SECONDS = 60.0
"""A lease that has not been renewed for so long is nobody's. Clocks may differ by half of it."""

RENEWALS = 4
"""Renewals within the life of a lease."""

FOLDER = "leases"


@dataclass(frozen=True)
class Holder:
    """Who holds a lease, and until when (seconds since 1970, UTC)."""

    owner: str
    """The job; another worker of the same job may take over."""
    host: str
    machine: str
    """What tells whether a process number means anything here."""
    pid: int
    born: float
    until: float

    def alive(self) -> bool:
        """Whether the lease still counts."""
        if self.until < time.time():
            return False
        return self.machine != _machine() or _born(self.pid) == self.born


HOLDER = TypeAdapter(Holder)

NOBODY = Holder(owner="", host="", machine="", pid=0, born=0.0, until=0.0)
"""Who holds a lease whose file is damaged: whoever renews it writes it anew."""


class Lease:
    """A right to work, renewed by a thread until the ``with`` block ends."""

    def __init__(self, place: Place, name: str, generation: int, owner: str) -> None:
        self._place, self._name, self._generation = place, name, generation
        self._owner = owner
        self._over = threading.Event()
        self._renewing = threading.Thread(target=self._renew, daemon=True)

    def offered(self) -> bool:
        """Try to become the holder."""
        return self._place.create(self._key(self._generation), self._content(LEASE_SECONDS))

    def __enter__(self) -> Self:
        self._renewing.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._renewing.join()
        if kind is None:
            # The work is done and marked, so whoever takes it from here on finds that.
            for generation in range(self._generation + 1):
                self._place.remove(self._key(generation))
            return
        with contextlib.suppress(OSError, FullDiskError):
            # Not removed: its generation would be free while a later one may be at work.
            self._place.write(self._key(self._generation), self._content(-1.0))

    def _renew(self) -> None:
        while not self._over.wait(LEASE_SECONDS / RENEWALS):
            try:
                self._place.write(self._key(self._generation), self._content(LEASE_SECONDS))
            except (OSError, FullDiskError):
                logger.warning("the lease of %s could not be renewed", self._name, exc_info=True)

    def _key(self, generation: int) -> str:
        return f"{FOLDER}/{self._name}.{generation}"

    def _content(self, seconds: float) -> bytes:
        pid = os.getpid()
        born = _born(pid) or 0.0
        until = time.time() + seconds
        holder = Holder(self._owner, platform.node(), _machine(), pid, born, until)
        return json.dumps(asdict(holder)).encode()


def take_lease(place: Place, name: str, owner: str) -> Lease | None:
    """The right to work on ``name``, or None while another job has it.

    Look for the finished work after this: its last holder may just have ended.
    """
    generation = 0
    while True:
        lease = Lease(place, name, generation, owner)
        if lease.offered():
            return lease
        holder = _holder(place, f"{FOLDER}/{name}.{generation}")
        if holder is None:
            continue  # it ended this moment
        if holder.alive() and holder.owner != owner:
            return None
        generation += 1


def live_leases(place: Place) -> dict[str, Holder]:
    """Who works on what in a store at this moment, by the leases' names."""
    found = {}
    for key in place.sizes(FOLDER):
        holder = _holder(place, key)
        if holder is not None and holder.alive():
            found[key.removeprefix(f"{FOLDER}/").rpartition(".")[0]] = holder
    return found


def _holder(place: Place, key: str) -> Holder | None:
    try:
        return HOLDER.validate_json(place.read(key))
    except FileNotFoundError:
        return None
    except ValidationError:
        return NOBODY


def _born(pid: int) -> float | None:
    """When a process of this machine began; None when there is none of that number."""
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.Error:
        return None


def _machine() -> str:
    """This machine since it was started, and the namespace of its process numbers."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # No Linux: there a host name and its start must do.
        return f"{platform.node()} {psutil.boot_time()}"
