"""Events of a run and the logging that the command line sets up.

Library code logs through ``logging.getLogger(__name__)`` and reports progress as
:class:`BlockDone` events; who listens (a progress bar, ``events.jsonl``, a test) is decided above.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from rich.logging import RichHandler


@dataclass(frozen=True)
class BlockDone:
    """One block of work is finished and its result is safe."""

    stage: str
    block: int
    rows: int
    seconds: float
    """Without what was done beside the next block."""
    peak_bytes: int
    """Peak resident memory of the worker's process, in bytes."""
    waited: float = 0.0
    """Of the seconds, those in which the worker waited for samples to be loaded."""
    ready: float = 0.0
    """Loaded batches that waited in its queue when it took one, on average."""


Listener = Callable[[BlockDone], None]


def configure_logging(*, verbose: bool = False) -> None:
    """Send the package's log to the terminal; called once, by the command line."""
    handler = RichHandler(show_path=False, show_time=True, log_time_format="%H:%M:%S", markup=False)
    logger = logging.getLogger("pipeline")
    logger.handlers = [handler]
    logger.setLevel(logging.DEBUG if verbose else logging.INFO)
    logger.propagate = False
