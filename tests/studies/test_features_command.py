"""``entk features`` as a user calls it: tables, exit codes, memory far below the store's size."""

import re
import subprocess
import sys

import numpy as np
import pytest
import torch

from pipeline.store import FeatureStore

pytest.importorskip("dask.array")

ROWS = 128

IMPORTS = 300
"""MiB of Python and its libraries, as ``--help`` says."""

MEASURED = """
import atexit
from pipeline.cli import main
from pipeline.distributed.worker import peak_resident_bytes
atexit.register(lambda: print("PEAK", peak_resident_bytes()))
main()
"""


def stored(path, n, p, *, revision="a", seed=0, sketch=0, shift=0.0) -> FeatureStore:
    """Rows that repeat one random block, each shard on a scale of its own."""
    provenance = {"model": {"state": revision}, "sketch": {"seed": sketch}}
    store = FeatureStore.create(path, n=n, p=p, rows_per_shard=ROWS, provenance=provenance)
    block = torch.randn(ROWS, p, generator=torch.Generator().manual_seed(seed)) + shift
    for shard in range(store.shards):
        rows = store.samples(shard)
        count = rows.stop - rows.start
        names = [str(i) for i in range(rows.start, rows.stop)]
        labels, f0 = torch.zeros(count, dtype=torch.int64), torch.zeros(count, 1)
        phi = block[:count] / (1 + shard)
        store.write_rows(shard, phi, f0=f0, labels=labels, ids=names)
    return store


def test_columns_drift_and_spectrum_are_printed(entk, tmp_path):
    stored(tmp_path / "before", 64, 300)
    stored(tmp_path / "after", 64, 300, revision="b", shift=0.1)
    steep = stored(tmp_path / "steep", 64, 300, shift=3.0)
    code, printed = entk("features", "stats", "before", "after")
    assert code == 0
    assert "before │ 64 │ 300 │ 0 │ 0" in printed
    code, printed = entk("features", "drift", "before", "after")
    assert code == 0
    assert "mean cosine of a row with itself 0.99" in printed
    code, printed = entk("features", "spectrum", "steep", "--rank", "3")
    largest = np.linalg.norm(steep.as_dask().compute(), 2) ** 2
    assert code == 0
    found = re.search(r"│ ([\d.]+) │ 1 │", printed)
    assert float(found[1]) == pytest.approx(largest, rel=1e-3)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("drift", "before", "other"), "sketch.seed"),
        (("stats", "nowhere"), "nowhere"),
        (("stats", "before", "--memory", "10MiB"), "do not hold one thread's chunks"),
        (("spectrum", "before", "--rank", "65"), "a rank from 1 to 64"),
    ],
)
def test_a_mistake_is_one_message_and_exit_code_2(entk, tmp_path, arguments, said):
    stored(tmp_path / "before", 64, 300)
    stored(tmp_path / "other", 64, 300, sketch=1)
    code, printed = entk("features", *arguments)
    assert code == 2
    assert said in printed
    assert "Traceback" not in printed


def test_stores_are_found_by_url(entk, bucket):
    pytest.importorskip("obstore")
    stored(f"{bucket}/stored", 64, 300)
    code, printed = entk("features", "stats", f"{bucket}/stored")
    assert code == 0
    assert "stored │ 64 │ 300 │ 0 │ 0" in printed


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_memory_stays_far_below_the_size_of_the_store(tmp_path):
    n, p = 20 * ROWS, 400_000
    stored(tmp_path / "before", n, p)
    stored(tmp_path / "after", n, p, revision="b", seed=1)
    assert 4 * n * p > 4e9  # as float32, which the computation takes
    for arguments in (
        ("stats", "before", "after"),
        ("drift", "before", "after"),
        ("spectrum", "before", "--rank", "40"),
    ):
        done = subprocess.run(
            [sys.executable, "-c", MEASURED, "features", *arguments, "--memory", "400MiB"],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        peak = int(done.stdout.split("PEAK")[1])
        assert peak < (400 + IMPORTS) * 2**20, arguments
