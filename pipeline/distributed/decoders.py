"""Actors without a device that load what the workers compute on.

A worker asks for a few loads ahead of their use, and for the next one only when it takes one: so
many results exist at a time and no more, however fast the decoders are. It asks the decoder that
owes it least, so that a slow one gets less to do. One that waits for a CPU is asked for nothing:
its workers may hold the CPUs that it waits for, and would wait for it in turn.
"""

import itertools
import logging
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.distributed.ahead import HangingError
from pipeline.distributed.ray_worker import (
    Failed,
    Refused,
    WorkerProcess,
    failed,
    refused,
    said_shortly,
)
from pipeline.types import InputError

logger = logging.getLogger(__name__)

MakeLoader = Callable[[Any], Callable[[Any], Any]]
"""A module-level function that makes, from a spec, what answers requests."""

MOST_RESTARTS = 3
"""How often Ray starts a decoder again that died or hung."""

LOOK_SECONDS = 0.2
"""Wait for news of decoders that do not run yet, once a stream."""

AGAIN_SECONDS = 1.0
"""Wait before another decoder is asked for what one was lost with: it may be starting itself."""


class LoadingError(Exception):
    """A decoder's error, told in the worker."""


class Decoder(WorkerProcess):
    """The actor's class."""

    def __init__(
        self, index: int, log_folder: Path | None, make_loader: MakeLoader, specs: list[Any]
    ) -> None:
        super().__init__(f"decoder-{index:03d}", 1, log_folder)
        import ray

        self._load = make_loader(*ray.get(specs))

    def started(self) -> None:
        """Answers once the actor runs."""

    def load(self, request: Any) -> Any:
        """What was asked for, or the error as values."""
        try:
            return self._load(request)
        except InputError as error:
            return refused(error)
        except Exception as error:
            return failed(error, f"loading {request}")


@dataclass(frozen=True)
class Decoders:
    """The handles of some decoders; travels to the workers."""

    actors: tuple[Any, ...]
    started: tuple[Any, ...]
    """Ray's references to what each answers once it runs."""
    spec: Any
    """Ray's reference to it: while it is held, a decoder that died can be started again."""
    ahead: int
    """Loads that one stream has under way."""

    def stream(self, requests: Sequence[Any], timeout: float) -> "DecodedAhead | None":
        """The loads of these requests, the first of them begun; none while no decoder runs."""
        import ray

        actors = dict(zip(self.started, self.actors, strict=True))
        running, _ = ray.wait(list(actors), num_returns=len(actors), timeout=LOOK_SECONDS)
        serving = [actors[answer] for answer in running]
        return DecodedAhead(serving, self.ahead, requests, timeout) if serving else None


@dataclass(frozen=True)
class Load:
    """A load under way."""

    request: Any
    decoder: int
    result: Any
    """Ray's reference to it."""


class DecodedAhead:
    """The loads of some requests in order; like :class:`~pipeline.distributed.ahead.Ahead`."""

    def __init__(
        self, decoders: Sequence[Any], ahead: int, requests: Sequence[Any], timeout: float
    ) -> None:
        self._decoders, self._timeout = decoders, timeout
        self._coming = iter(requests)
        self._count = len(requests)
        self._under_way: deque[Load] = deque()
        # Workers begin at different decoders, or the first one would get all first requests.
        self._turns = itertools.count(os.getpid())
        for request in itertools.islice(self._coming, ahead):
            self._under_way.append(self._asked(request))

    def ready(self) -> int:
        """Loads that wait to be taken."""
        return len(self._under_way) - len(self._unfinished())

    def close(self) -> None:
        """Ask for nothing more: nobody wants the rest."""
        self._coming = iter(())
        self._under_way.clear()

    def __iter__(self) -> Iterator[Any]:
        for _ in range(self._count):
            result = self._taken(self._under_way.popleft())
            for request in itertools.islice(self._coming, 1):
                self._under_way.append(self._asked(request))
            if isinstance(result, Refused):
                raise result.error()
            if isinstance(result, Failed):
                raise LoadingError(result.cause)
            yield result

    def _asked(self, request: Any, avoid: int | None = None) -> Load:
        owing = Counter(load.decoder for load in self._unfinished())
        first, count = next(self._turns), len(self._decoders)
        turns = [(first + i) % count for i in range(count)]
        decoder = min(turns, key=lambda i: (i == avoid, owing[i]))
        return Load(request, decoder, self._decoders[decoder].load.remote(request))

    def _unfinished(self) -> list[Load]:
        import ray

        loads = {load.result: load for load in self._under_way}
        if not loads:
            return []
        _, waiting = ray.wait(list(loads), num_returns=len(loads), timeout=0)
        return [loads[result] for result in waiting]

    def _taken(self, load: Load) -> Any:
        """The load's result; another decoder is asked when its own is lost."""
        import ray

        deadline = time.monotonic() + self._timeout
        while True:
            try:
                return ray.get(load.result, timeout=max(0.0, deadline - time.monotonic()))
            except ray.exceptions.GetTimeoutError:
                # It would keep others waiting as well; started anew it serves them.
                ray.kill(self._decoders[load.decoder], no_restart=False)
                raise HangingError(f"nothing came within {self._timeout:g} s") from None
            except ray.exceptions.RayError as error:  # its decoder died, or the node of its result
                logger.warning("a decoder was lost while it loaded %s", load.request)
                if time.monotonic() + AGAIN_SECONDS > deadline:
                    raise LoadingError(f"no decoder answers: {said_shortly(error)}") from None
                time.sleep(AGAIN_SECONDS)
                load = self._asked(load.request, avoid=load.decoder)


def start_decoders(
    count: int, ahead: int, make_loader: MakeLoader, spec: Any, log_folder: Path | None
) -> Decoders:
    """New decoders of one thread each; Ray must be ready.

    Ray's default placement keeps actors that ask for no GPU away from nodes that have some, as
    long as there are others.
    """
    import ray

    spec = ray.put(spec)
    actor_class = ray.remote(Decoder)
    actors: list[Any] = [
        actor_class.options(
            name=f"entk-decoder-{i}-{os.urandom(4).hex()}",
            num_cpus=1,
            num_gpus=0,
            max_restarts=MOST_RESTARTS,
            runtime_env={"env_vars": {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}},
            # In a list the reference travels as it is; alone Ray would put its value in its place.
        ).remote(i, log_folder, make_loader, [spec])
        for i in range(count)
    ]
    started = tuple(actor.started.remote() for actor in actors)
    return Decoders(tuple(actors), started, spec, ahead)


def stop_decoders(decoders: Decoders) -> None:
    """End them."""
    import ray

    if ray.is_initialized():
        for actor in decoders.actors:
            ray.kill(actor, no_restart=True)
