"""Figures of a run of blocks among Ray's own metrics (Prometheus, Ray's dashboard)."""

from pipeline.log import BlockDone


class BlockMetrics:
    """Reports from the driver; all names begin with ``entk_``."""

    def __init__(self) -> None:
        from ray.util.metrics import Counter, Gauge

        self._waiting = Gauge("entk_blocks_waiting", "Blocks that no worker has yet.")
        self._running = Gauge("entk_blocks_running", "Blocks that workers have.")
        self._workers = Gauge("entk_workers_ready", "Workers that have loaded their network.")
        by_stage = {"tag_keys": ("stage",)}
        self._blocks = Counter("entk_blocks_done", "Finished blocks.", **by_stage)
        self._rows = Counter("entk_rows_done", "Rows of the finished blocks.", **by_stage)
        self._seconds = Counter("entk_block_seconds", "Seconds spent on them.", **by_stage)
        self._waited = Counter("entk_waited_seconds", "Those of waiting for samples.", **by_stage)

    def queue(self, *, waiting: int, running: int, workers: int) -> None:
        """How many blocks wait and run, and for how many workers."""
        self._waiting.set(waiting)
        self._running.set(running)
        self._workers.set(workers)

    def done(self, event: BlockDone) -> None:
        """One more block is finished."""
        tags = {"stage": event.stage}
        amounts = {
            self._blocks: 1,
            self._rows: event.rows,
            self._seconds: event.seconds,
            self._waited: event.waited,
        }
        for counter, amount in amounts.items():
            if amount > 0:  # Ray's counters refuse 0
                counter.inc(amount, tags=tags)
