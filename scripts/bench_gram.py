"""The Gram beside its yardsticks: the machine's own GEMM rate, and a plain ``X @ X.T`` in memory.

    python scripts/bench_gram.py [--quick] [--device cpu|cuda] [--n 4000] [--p 200000]

Features are float16 in a feature store on disk, page cache warm; ours reads, converts and
multiplies them. All contenders run in turn in one process; the last line is JSON with medians,
ratios and peak memory. Useful rates count the triangle's n²p operations, a GEMM's rate all 2nmp.
"""

import argparse
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from pipeline.gram import PANEL_COLUMNS, gram
from pipeline.store import FeatureStore

GEMMS = 4
"""Products per measurement of the machine's GEMM rate."""


def main() -> None:
    arguments = parsed()
    n, p = arguments.n, arguments.p
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        started = time.perf_counter()
        store = synthetic_store(Path(folder) / "store", n, p)
        print(f"store of {n} × {p} float16 written in {time.perf_counter() - started:.1f} s")
        measure = on_cuda if arguments.device == "cuda" else on_cpu
        figures = measure(store, arguments.repeats)
    for name, value in figures.items():
        print(f"{name:>34}: {value:.4g}")
    device = torch.cuda.get_device_name() if arguments.device == "cuda" else "cpu"
    print(json.dumps({"bench": "gram", "device": device, "n": n, "p": p, **figures}))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="n = 1,500, p = 50,000, 2 repeats")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--n", type=int, default=4_000)
    parser.add_argument("--p", type=int, default=200_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", help="where the features are written (default: temporary)")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.n, arguments.p, arguments.repeats = 1_500, 50_000, 2
    return arguments


def synthetic_store(path: Path, n: int, p: int) -> FeatureStore:
    """Features like a ReLU network's gradients: half of them zero, the rest of all sizes."""
    store = FeatureStore.create(path, n=n, p=p, dtype="float16", scale=16.0, provenance={})
    for shard in range(store.shards):
        rows = store.samples(shard)
        count = rows.stop - rows.start
        generator = torch.Generator().manual_seed(shard)
        phi = torch.randn((count, p), generator=generator).relu_()
        ids = [str(i) for i in range(rows.start, rows.stop)]
        store.write_rows(shard, phi, f0=np.zeros((count, 1)), labels=np.zeros(count, int), ids=ids)
    return FeatureStore.open(path)


def in_turn(contenders: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median seconds of each contender, run in turn, after one warm round."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, run in contenders.items():
            started = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def on_cpu(store: FeatureStore, repeats: int) -> dict[str, float]:
    n, p = store.shape
    peak = peak_bytes_of_ours(store.path)
    X = store.panel(slice(0, p))
    width = min(PANEL_COLUMNS, p)
    left, right = X[:, :width].copy(), X[::-1, :width].copy()
    tensor, left_tensor, right_tensor = (torch.from_numpy(a) for a in (X, left, right))
    gram(store, panel_columns=width)  # warm: page cache, BLAS threads
    times = in_turn(
        {
            # Before and after ours, several at a time: neighbours on the machine come and go.
            "gemm_numpy": lambda: repeated(lambda: left @ right.T),
            "gemm_torch": lambda: repeated(lambda: left_tensor @ right_tensor.T),
            "ours": lambda: gram(store),
            "gemm_numpy_after": lambda: repeated(lambda: left @ right.T),
            "plain": lambda: tensor @ tensor.T,
            # NumPy sees that both factors are one array and calls SYRK by itself.
            "numpy_syrk": lambda: X @ X.T,
            "read_only": lambda: read_through(store, width),
        },
        repeats,
    )
    numpy_gemm = (times["gemm_numpy"] + times["gemm_numpy_after"]) / 2
    gemm = GEMMS * 2 * n * n * width / min(numpy_gemm, times["gemm_torch"])
    ours = n * n * p / times["ours"]
    panels = 2 * n * width * 4
    return {
        "gemm_gflops": gemm / 1e9,
        "ours_seconds": times["ours"],
        "ours_useful_gflops": ours / 1e9,
        "ratio_to_gemm": ours / gemm,
        "plain_seconds": times["plain"],
        "speedup_over_plain": times["plain"] / times["ours"],
        "numpy_syrk_seconds": times["numpy_syrk"],
        "read_only_seconds": times["read_only"],
        "read_gigabytes_per_second": n * p * 2 / times["read_only"] / 1e9,
        "peak_bytes": peak,
        "peak_to_kernel_and_two_panels": peak / (4 * n * n + panels),
    }


def repeated(run: Callable[[], Any]) -> None:
    for _ in range(GEMMS):
        run()


def read_through(store: FeatureStore, width: int) -> None:
    n, p = store.shape
    panel = torch.empty((n, width), dtype=store.dtype)
    for start in range(0, p, width):
        columns = slice(start, min(start + width, p))
        store.read(columns, panel.view(-1)[: n * (columns.stop - start)].view(n, -1))


def peak_bytes_of_ours(path: Path) -> float:
    """Peak memory of one Gram above the process's own, in a process that does nothing else."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_peak, (str(path),))


def _peak(path: str) -> float:
    gram(np.ones((64, 64), np.float32))
    store = FeatureStore.open(path)
    before = psutil.Process().memory_info().rss
    gram(store)
    return high_water_mark() - before


def high_water_mark() -> float:
    """Most bytes this process ever held; getrusage would count its parent's, too."""
    status = Path("/proc/self/status").read_text()
    return 1024.0 * int(status.split("VmHWM:")[1].split()[0])


def on_cuda(store: FeatureStore, repeats: int) -> dict[str, float]:
    """From device memory and from disk, beside one large 16-bit product and a plain X @ X.T."""
    n, p = store.shape
    X = torch.empty((n, p), dtype=torch.float16, device="cuda")
    X.normal_().relu_()
    width = min(8 * PANEL_COLUMNS, p)
    left, right = X[:, :width].contiguous(), X[:, -width:].contiguous()

    def synchronized(run: Callable[[], Any]) -> Callable[[], Any]:
        def timed() -> None:
            run()
            torch.cuda.synchronize()

        return timed

    contenders = {
        "gemm": lambda: torch.mm(left, right.T, out_dtype=torch.float32),
        "resident": lambda: gram(X),
        "plain": lambda: X @ X.T,
        "disk": lambda: gram(store, device="cuda"),
    }
    warmed = {name: synchronized(run) for name, run in contenders.items()}
    for run in warmed.values():
        run()
    torch.cuda.reset_peak_memory_stats()
    times = in_turn(warmed, repeats)
    gemm = 2 * n * n * width / times["gemm"]
    return {
        "gemm_tflops": gemm / 1e12,
        "resident_seconds": times["resident"],
        "resident_useful_tflops": n * n * p / times["resident"] / 1e12,
        "resident_ratio_to_gemm": n * n * p / times["resident"] / gemm,
        "plain_16_bit_seconds": times["plain"],
        "disk_seconds": times["disk"],
        "disk_gigabytes_per_second": n * p * 2 / times["disk"] / 1e9,
        "peak_device_bytes": float(torch.cuda.max_memory_allocated()),
    }


if __name__ == "__main__":
    main()
