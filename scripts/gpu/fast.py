"""Is it fast: the benchmarks of this folder on the device, and what the store reads and writes."""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.store import FeatureStore

SCRIPTS = Path(__file__).parents[1]

BENCHES = (
    "bench_features.py --model resnet50 --dtype bfloat16 --channels-last --repeats 3",
    "bench_features.py --model resnet50 --dtype tf32 --channels-last --repeats 3",
    "bench_features.py --model resnet50 --dtype float32 --channels-last --repeats 3",
    "bench_features.py --model vit_b16 --dtype bfloat16 --repeats 3",
    "bench_features.py --model cifar_resnet20 --dtype bfloat16 --channels-last --repeats 3",
    "bench_features.py --model bert --dtype bfloat16 --repeats 3",
    "bench_gram.py --n 20000 --p 500000 --repeats 2",
    "bench_solve.py --n 20000 --k 17 --repeats 1",
    "bench_solve.py --n 44200 --k 17 --repeats 1 --leave-out eigh",
)
QUICK = ("bench_features.py --quick", "bench_gram.py --quick", "bench_solve.py --quick")
STORE_SHAPE = (4_096, 500_000)
QUICK_SHAPE = (256, 20_000)


def rows(device: str, quick: bool) -> list[dict[str, Any]]:
    """A row for each benchmark, its figures as it printed them, and one for the store."""
    benches = QUICK if quick else BENCHES
    return [
        *(bench(line, device) for line in benches),
        store(QUICK_SHAPE if quick else STORE_SHAPE),
    ]


def bench(line: str, device: str) -> dict[str, Any]:
    name, *options = line.split()
    command = [sys.executable, str(SCRIPTS / name), "--device", device, *options]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return {"what": line, "ok": False, "error": last}
    return {"what": line, "ok": True, "figures": json.loads(done.stdout.strip().splitlines()[-1])}


def store(shape: tuple[int, int]) -> dict[str, Any]:
    """Rates of a float16 store in the temporary folder, in GB/s, the file cache warm."""
    n, p = shape
    with tempfile.TemporaryDirectory() as folder:
        made = FeatureStore.create(
            Path(folder) / "store", n=n, p=p, dtype="float16", scale=16.0, provenance={}
        )
        phi = torch.randn((made.samples(0).stop, p))
        started = time.perf_counter()
        for shard in range(made.shards):
            part = made.samples(shard)
            count = part.stop - part.start
            made.write_rows(
                shard,
                phi[:count],
                f0=np.zeros((count, 1)),
                labels=np.zeros(count, int),
                ids=[str(row) for row in range(part.start, part.stop)],
            )
        written = time.perf_counter() - started
        started = time.perf_counter()
        opened = FeatureStore.open(Path(folder) / "store")
        width = min(p, 16_384)
        out = torch.empty((n, width), dtype=opened.dtype)
        for start in range(0, p, width):
            columns = slice(start, min(start + width, p))
            opened.read(columns, out.view(-1)[: n * (columns.stop - start)].view(n, -1))
        read = time.perf_counter() - started
    size = n * p * 2 / 1e9
    return {
        "what": f"store, {n} × {p} float16",
        "write_GB_s": size / written,
        "read_GB_s": size / read,
    }
