import multiprocessing
from pathlib import Path

import numpy as np
import psutil
import pytest

from pipeline.gram import gram, gram_bytes

N, P = 3000, 20_000


def _peak_of_a_pass(_):
    """Most bytes held during one pass, above what the process held before it."""
    x = np.random.default_rng(0).standard_normal((N, P), dtype=np.float32).astype(np.float16)
    gram(x[:64, :64])
    before = psutil.Process().memory_info().rss
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
    gram(x)
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0]) - before


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
def test_pass_needs_no_more_memory_than_is_stated():
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        peak = pool.map(_peak_of_a_pass, [None])[0]
    stated = gram_bytes(N, p=P)
    assert 0.7 * stated < peak <= stated
