"""Processes that add up and gather tensors: torch.distributed, gloo on CPUs and NCCL on GPUs.

What is sent is counted as the ring algorithms send it: a gather passes every worker's rows on to
the w − 1 others, a sum of N numbers sends 2(w − 1)N in all. Both give every worker the same bits.
"""

import os
import socket
from collections.abc import Sequence
from datetime import timedelta

import psutil
import torch
import torch.distributed as dist
from torch import Tensor

TIMEOUT = timedelta(minutes=30)
"""Wait for the other workers in one call; a dead one is noticed at once, this is for a hung one."""


class TorchGroup:
    """This process among the workers of the default process group."""

    def __init__(self, rank: int, size: int, device: torch.device) -> None:
        self.rank = rank
        self.size = size
        self.device = device
        self.sent = 0

    @classmethod
    def join(cls, rank: int, size: int, address: str, device: torch.device) -> "TorchGroup":
        """Meet the other workers at ``address`` (host:port, where rank 0 listens)."""
        host, _, _ = address.rpartition(":")
        interface = interface_towards(host)
        if interface is not None:
            # Gloo would take whatever the host's name resolves to: often the loopback.
            os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
        dist.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            init_method=f"tcp://{address}",
            rank=rank,
            world_size=size,
            timeout=TIMEOUT,
        )
        return cls(rank, size, device)

    def gather(self, V: Tensor, heights: Sequence[int]) -> Tensor:
        """The workers' rows one under the other; ``heights`` are how many each of them has."""
        # Collectives take equal sizes: the shorter shares are filled up with rows of zeros.
        height = max(heights)
        own = V.new_zeros((height, V.shape[1]))
        own[: len(V)] = V
        everyone = V.new_empty((self.size * height, V.shape[1]))
        dist.all_gather_into_tensor(everyone, own)
        self.sent += (self.size - 1) * own.numel() * own.element_size()
        if min(heights) == height:
            return everyone
        blocks = everyone.split(height)
        return torch.cat([block[:rows] for block, rows in zip(blocks, heights, strict=True)])

    def sum(self, T: Tensor) -> Tensor:
        """The sum of the workers' T, which may be overwritten."""
        T = T.contiguous()
        dist.all_reduce(T)
        self.sent += 2 * (self.size - 1) * T.numel() * T.element_size() // self.size
        return T


def interface_towards(host: str) -> str | None:
    """The network interface of this machine that others at ``host`` can reach."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((host, 9))  # a datagram socket: nothing is sent
            own = probe.getsockname()[0]
    except OSError:
        return None
    for name, addresses in psutil.net_if_addrs().items():
        if any(address.address == own for address in addresses):
            return name
    return None


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        port: int = probe.getsockname()[1]
        return port
