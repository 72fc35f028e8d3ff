"""Block functions that workers of the tests import by name."""

import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from pipeline.artefact import CorruptArtefactError
from pipeline.log import BlockDone
from pipeline.types import InputError, MissingExtraError


@dataclass(frozen=True)
class Spec:
    folder: str
    troubled_block: int = 3

    def with_trouble_in(self, block: int) -> "Spec":
        return replace(self, troubled_block=block)

    def attempts(self, block: int) -> int:
        """How often the block was begun, over all processes."""
        return len(list(Path(self.folder).glob(f"begun-{block}-*")))

    def results(self) -> dict[str, bytes]:
        return {file.name: file.read_bytes() for file in Path(self.folder).glob("*.npy")}


def begin(spec: Spec, block: int) -> int:
    """Note an attempt; says the how-manieth it is."""
    (Path(spec.folder) / f"begun-{block}-{time.time_ns()}-{os.getpid()}").touch()
    return spec.attempts(block)


def done(block: int) -> BlockDone:
    return BlockDone("test", block, rows=1, seconds=0.5, peak_bytes=0)


def write_products(spec: Spec) -> Callable[[int], BlockDone]:
    """Each block a float32 product, saved: its bytes depend on the number of threads."""
    weight = torch.randn(200, 300, generator=torch.Generator().manual_seed(0))

    def block_function(block: int) -> BlockDone:
        begin(spec, block)
        rows = torch.randn(64, 200, generator=torch.Generator().manual_seed(block))
        np.save(Path(spec.folder) / f"{block}.npy", (rows @ weight).numpy())
        return done(block)

    return block_function


def make_troubled(trouble: Callable[[Spec, int], None]) -> Callable[[Spec], Callable]:
    """A worker maker whose one block meets ``trouble`` first."""

    def make_worker(spec: Spec) -> Callable[[int], BlockDone]:
        write = write_products(spec)

        def block_function(block: int) -> BlockDone:
            if block == spec.troubled_block:
                trouble(spec, block)
            return write(block)

        return block_function

    return make_worker


def _die_once(spec: Spec, block: int) -> None:
    if begin(spec, block) == 1:
        os.kill(os.getpid(), signal.SIGKILL)


def _fail_once(spec: Spec, block: int) -> None:
    if begin(spec, block) == 1:
        raise OSError("the disk blinked")


def _poison(spec: Spec, block: int) -> None:
    begin(spec, block)
    raise ZeroDivisionError("seventeen divided by nothing")


def _die_always(spec: Spec, block: int) -> None:
    begin(spec, block)
    os.kill(os.getpid(), signal.SIGKILL)


def _user_error(spec: Spec, block: int) -> None:
    begin(spec, block)
    raise CorruptArtefactError("shard 3 is damaged. Delete it.", "store.root")


def _missing_extra(spec: Spec, block: int) -> None:
    begin(spec, block)
    raise MissingExtraError("timm", "vision", "this model")


def _hang_once(spec: Spec, block: int) -> None:
    if begin(spec, block) == 1:
        time.sleep(600)


die_once = make_troubled(_die_once)
fail_once = make_troubled(_fail_once)
poisoned = make_troubled(_poison)
die_always = make_troubled(_die_always)
user_error = make_troubled(_user_error)
missing_extra = make_troubled(_missing_extra)
hang_once = make_troubled(_hang_once)


def refuse_to_start(spec: Spec) -> Callable[[int], BlockDone]:
    raise InputError("no weights there", "model.weights")


def fail_to_start(spec: Spec) -> Callable[[int], BlockDone]:
    raise RuntimeError("the device is on fire")


def report_threads(spec: Spec) -> Callable[[int], BlockDone]:
    def block_function(block: int) -> BlockDone:
        return BlockDone("test", block, torch.get_num_threads(), 0.0, 0)

    return block_function


def write_slowly(spec: Spec) -> Callable[[int], BlockDone]:
    """Products that take half a second each."""
    write = write_products(spec)

    def block_function(block: int) -> BlockDone:
        time.sleep(0.5)
        return write(block)

    return block_function


def slow_in_one_of_two(spec: Spec) -> Callable[[int], BlockDone]:
    """Products that take one worker twenty times as long as the other; both begin together."""
    write = write_products(spec)
    own = Path(spec.folder) / f"came-{os.getpid()}"
    own.touch()
    while len(came := sorted(own.parent.glob("came-*"))) < 2:
        time.sleep(0.01)
    seconds = 1.0 if own == came[0] else 0.05

    def block_function(block: int) -> BlockDone:
        time.sleep(seconds)
        return write(block)

    return block_function


def leave_the_end(spec: Spec) -> Callable[[int], Callable[[], BlockDone]]:
    """Products whose saving is left; block 0's comes after block 1 has begun in the same process.

    The end of the troubled block goes wrong once.
    """
    write = write_products(spec)
    following = threading.Event()

    def block_function(block: int) -> Callable[[], BlockDone]:
        if block == 1:
            following.set()

        def finish() -> BlockDone:
            if block == 0 and not following.wait(30):
                raise TimeoutError("nothing went on beside the end of block 0")
            if block == spec.troubled_block:
                _fail_once(spec, block)
            return write(block)

        return finish

    return block_function


def note_the_node(spec: Spec) -> Callable[[int], BlockDone]:
    """Blocks of a worker that notes where it is."""
    import ray

    node = ray.get_runtime_context().get_node_id()
    (Path(spec.folder) / f"{node}-{os.getpid()}").touch()
    return done


def load_the_node(spec: Spec) -> Callable[[str], str]:
    """A loader that says where it is."""
    import ray

    return lambda request: ray.get_runtime_context().get_node_id()


def sleep_long(spec: Spec) -> Callable[[int], BlockDone]:
    """Blocks that note their process and then take minutes: for tests that kill the driver."""

    def block_function(block: int) -> BlockDone:
        (Path(spec.folder) / f"pid-{os.getpid()}").touch()
        time.sleep(300)
        return done(block)

    return block_function


def load_requests(spec: Spec) -> Callable[[str], str]:
    """A loader that notes what it began; some requests go wrong."""

    def load(request: str) -> str:
        (Path(spec.folder) / f"begun-{request}").touch()
        if request == "pid":
            slow = Path(spec.folder) / "slow"
            if slow.is_file() and slow.read_text() == str(os.getpid()):
                time.sleep(0.3)
            return str(os.getpid())
        if request == "refuse":
            raise InputError("no such sample")
        if request == "fail":
            raise KeyError("lost")
        if request == "hang":
            time.sleep(60)
        return f"loaded {request}"

    return load
