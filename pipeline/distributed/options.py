"""What a user may say about where the blocks run."""

from typing import Annotated, Literal

from pydantic import Field

from pipeline.config import Options

Auto = Literal["auto"]


class ExecutorOptions(Options):
    """Where the blocks run, and on how many workers."""

    kind: Literal["auto", "local", "ray"] = "auto"
    """``local`` is this process; ``auto`` is Ray when it is installed and there is more than one
    worker or a cluster address."""
    workers: Auto | Annotated[int, Field(ge=1)] = "auto"
    """Worker processes; ``auto`` takes what cores, GPUs and memory allow."""
    threads: Auto | Annotated[int, Field(ge=1)] = "auto"
    """Computing threads of one worker; ``auto`` divides the cores among the workers."""
    address: str | None = None
    """Ray cluster to join (``auto``, ``host:port`` or ``ray://host:port``); without one, the
    environment's ``RAY_ADDRESS``, and without that a cluster of this machine alone."""
    gpus_per_worker: Auto | Annotated[float, Field(ge=0, le=8)] = "auto"
    """GPUs of one worker, parts of one allowed; ``auto`` is one where there are any."""
    max_retries_per_block: int = Field(3, ge=1)
    """Attempts of one block (its first included) before the job stops."""
    block_timeout: Annotated[float, Field(gt=0)] | None = None
    """Seconds a block may take before its Ray worker is replaced and the block tried again;
    without it blocks may take any time."""
    decode_timeout: float = Field(300.0, gt=0)
    """Seconds a batch of samples may take to load before its block counts as failed."""
    decoders: int = Field(0, ge=0, le=256)
    """Ray actors on CPUs, of one core each, that load and preprocess for the workers; with 0 each
    worker does it in a thread of its own."""
    ahead: int = Field(2, ge=1, le=64)
    """Batches that one worker has asked its decoders for and not taken yet."""
