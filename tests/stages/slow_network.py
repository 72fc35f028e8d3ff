"""A small network whose batches take time, so that what befalls a job finds it at work."""

import os
import time

from torch import nn

SECONDS = "SECONDS_OF_A_BATCH"
"""Environment variable of the processes that should be slow."""


class SlowNetwork(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 16, 3)
        self.head = nn.Linear(16, 10)

    def forward(self, x):
        time.sleep(float(os.environ.get(SECONDS, "0")))
        return self.head(self.conv(x).tanh().mean((2, 3)))


def network():
    return SlowNetwork(), "head"
