"""Work done ahead of its use by a thread: a bounded queue that waits for whoever is slower."""

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

LOOK_SECONDS = 0.2
"""How often a thread that waits for room looks whether anybody still wants its results."""


class HangingError(Exception):
    """A result that did not come in time."""


class Ahead(Generic[Item, Result]):
    """The results of ``make`` for some items, in order, at most ``depth`` of them waiting.

    The work begins at once. Each result must come within ``timeout`` seconds of being asked for,
    or :class:`HangingError` is raised. The thread is a daemon: one that hangs keeps no process
    alive. What ``make`` raises is raised where its result is asked for.
    """

    def __init__(
        self,
        make: Callable[[Item], Result],
        items: Sequence[Item],
        *,
        depth: int = 1,
        timeout: float | None = None,
    ) -> None:
        self._make, self._items, self._timeout = make, items, timeout
        self._results: queue.Queue[tuple[Result | None, Exception | None]] = queue.Queue(depth)
        self._over = threading.Event()
        threading.Thread(target=self._work, daemon=True).start()

    def ready(self) -> int:
        """Results that wait to be taken."""
        return self._results.qsize()

    def close(self) -> None:
        """Begin nothing more: nobody wants the rest."""
        self._over.set()

    def __iter__(self) -> Iterator[Result]:
        try:
            for _ in self._items:
                yield self._next()
        finally:
            self.close()

    def _next(self) -> Result:
        try:
            result, error = self._results.get(timeout=self._timeout)
        except queue.Empty:
            raise HangingError(f"nothing came within {self._timeout:g} s") from None
        if error is not None:
            raise error
        return result  # type: ignore[return-value]

    def _work(self) -> None:
        for item in self._items:
            outcome: tuple[Result | None, Exception | None]
            try:
                outcome = (self._make(item), None)
            except Exception as error:  # Raised again where the result is asked for.
                outcome = (None, error)
            while not self._over.is_set():
                try:
                    self._results.put(outcome, timeout=LOOK_SECONDS)
                    break
                except queue.Full:
                    continue
            if self._over.is_set() or outcome[1] is not None:
                return
