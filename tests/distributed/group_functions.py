"""What the workers of a group do in the tests, imported by name."""

import os
import signal
from dataclasses import dataclass

import torch

from pipeline.distributed.torch_group import TorchGroup
from pipeline.solvers.group import heights_of, shares
from pipeline.types import InputError


@dataclass(frozen=True)
class Part:
    rows: torch.Tensor
    heights: list[int]
    group: TorchGroup


def hold_rows(n: int, group: TorchGroup) -> Part:
    """This worker's share of 0 … n−1, as a column."""
    parts = shares(n, group.size)
    everything = torch.arange(n, dtype=torch.float64)[:, None]
    return Part(everything[parts[group.rank]], heights_of(parts), group)


def gather_and_add(part: Part, task: float) -> tuple[torch.Tensor, float, int]:
    gathered = part.group.gather(task * part.rows, part.heights)
    total = part.group.sum(part.rows.sum(dim=0))
    return gathered, float(total), part.group.sent


def second_worker_dies(part: Part, task: None) -> None:
    if part.group.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    part.group.sum(part.rows.sum(dim=0))


def refuse(part: Part, task: str) -> None:
    raise InputError(task, "kernel.size")
