"""Per-sample features beside the plain batched training step, and other roads to them.

    python scripts/bench_features.py [--model resnet50|cifar_resnet20|vit_b16|bert]
                                     [--device cpu|cuda] [--quick] [--dtype float32|tf32|bfloat16]

All contenders run in turn in one process, warm, on the same batch, dtype and memory format, and
with the memory switches that workers set (``kept_memory``). The yardstick is one training step:
forward and backward of the batch's summed loss to all parameters. The last line is JSON: samples/s,
``ratio_to_train_step`` (of medians; its quartiles over the rounds beside it) and peak bytes above
the model's own. TRAK's default projection is run on request only (``--only trak_projected``): on a
CPU it takes far longer than the gradients.
``--profile CONTENDER`` prints where that contender's time goes instead, operation by operation;
``profile_features.py`` says it kind by kind.
"""

import argparse
import contextlib
import ctypes
import gc
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from feature_roads.roads import forward, rivals, to_input, train_step
from feature_roads.settings import Setting, add_arguments, made, precision

from pipeline.distributed.worker import kept_memory
from pipeline.jacobian import FeatureExtractor
from pipeline.sketch import make_sketch
from pipeline.types import batch_size

SLOW = {"vmap_grad", "loop", "trak", "opacus"}
ON_REQUEST = {"trak_projected"}


def main() -> None:
    arguments = parsed()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    setting = made(arguments)
    contenders = all_contenders(setting, arguments)
    memory = contextlib.nullcontext() if arguments.plain_memory else kept_memory()
    with precision(arguments), memory:
        if arguments.profile:
            print(profiled(contenders[arguments.profile], arguments.device))
            return
        watch = OthersWatch()
        figures = compared(contenders, setting, arguments)
    device = torch.cuda.get_device_name() if arguments.device == "cuda" else "cpu"
    facts = {
        "bench": "features",
        "model": arguments.model,
        "device": device,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "dtype": arguments.dtype,
        "channels_last": arguments.channels_last,
        "kept_memory": not arguments.plain_memory,
        "batch": batch_size(setting.inputs),
        "p": setting.size,
        "repeats": arguments.repeats,
        "cores_busy_with_others": watch.cores(),
    }
    if arguments.out:
        Path(arguments.out).write_text(json.dumps({**facts, "contenders": figures}, indent=2))
    print(json.dumps({**facts, "contenders": figures}))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    parser.add_argument("--quick", action="store_true", help="2 repeats, no slow contenders")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--sketches", default="uniform,block,kronecker")
    parser.add_argument("--only", help="contenders to run, comma-separated")
    parser.add_argument("--profile", metavar="CONTENDER")
    parser.add_argument("--out", help="write the figures here, too")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.repeats = min(arguments.repeats, 3)
    return arguments


def all_contenders(setting: Setting, arguments: argparse.Namespace) -> dict[str, Callable[[], Any]]:
    model, inputs = setting.model, setting.inputs
    indices = make_sketch("uniform", model, size=setting.size).indices.to(arguments.device)
    contenders: dict[str, Callable[[], Any]] = {
        "forward": lambda: forward(model, inputs),
        "forward_backward_to_input": lambda: to_input(model, inputs),
        "train_step": lambda: train_step(model, inputs),
    }
    for kind in arguments.sketches.split(","):
        extract = FeatureExtractor(
            model, make_sketch(kind, model, size=setting.size), compute_dtype=arguments.dtype
        )
        contenders[f"ours_{kind}"] = lambda extract=extract: extract(inputs).phi
    contenders.update(rivals(model, inputs, indices))
    if arguments.only:
        wanted = {"train_step", *arguments.only.split(",")}
    else:
        wanted = set(contenders) - ON_REQUEST - (SLOW if arguments.quick else set())
    return {name: run for name, run in contenders.items() if name in wanted}


# --- measuring -------------------------------------------------------------------------------


def compared(
    contenders: dict[str, Callable[[], Any]], setting: Setting, arguments: argparse.Namespace
) -> dict[str, dict[str, Any]]:
    """Every contender warm, then all in turn, repeat after repeat."""
    failed: dict[str, str] = {}
    peaks: dict[str, int] = {}
    for name, run in contenders.items():
        try:
            run()
            peaks[name] = peak_bytes(run, arguments.device)
        except (RuntimeError, ValueError, TypeError, NotImplementedError, AttributeError) as error:
            failed[name] = f"{type(error).__name__}: {str(error)[:200]}"
    seconds: dict[str, list[float]] = {name: [] for name in contenders if name not in failed}
    for round_ in range(arguments.repeats + 1):
        for name in seconds:
            taken = timed(contenders[name], arguments.device)
            if round_:  # before the first, memory was given back to see the peaks
                seconds[name].append(taken)
    n = batch_size(setting.inputs)
    step = statistics.median(seconds["train_step"])
    figures: dict[str, dict[str, Any]] = {}
    for name, times in seconds.items():
        median = statistics.median(times)
        paired = [a / b for a, b in zip(seconds["train_step"], times, strict=True)]
        quartiles = statistics.quantiles(paired, n=4) if len(paired) > 1 else paired
        figures[name] = {
            "samples_per_second": round(n / median, 2),
            "ratio_to_train_step": round(step / median, 3),
            "ratio_quartiles": [round(ratio, 3) for ratio in quartiles],
            "seconds": [round(taken, 4) for taken in times],
            "peak_bytes": peaks[name],
            "peak_to_train_step": round(peaks[name] / max(peaks["train_step"], 1), 3),
        }
        print(f"{name:>26}: {n / median:9.2f} samples/s, {step / median:6.3f} of the step, "
              f"{peaks[name] / 2**20:8.0f} MiB")  # fmt: skip
    for name, reason in failed.items():
        print(f"{name:>26}: {reason}")
        figures[name] = {"failed": reason}
    return figures


class OthersWatch:
    """How many cores other processes kept busy meanwhile: figures count if it is near zero."""

    def __init__(self) -> None:
        self._before = self._now()

    def cores(self) -> float | None:
        """Their average since this was made; None where the system does not tell."""
        now = self._now()
        if now is None or self._before is None:
            return None
        wall, others = (a - b for a, b in zip(now, self._before, strict=True))
        return round(others / wall, 2)

    @staticmethod
    def _now() -> tuple[float, float] | None:
        stat = Path("/proc/stat")
        if not stat.exists():
            return None
        user, nice, system, _, _, irq, soft, steal, *_ = map(
            int, stat.read_text().split("\n", 1)[0].split()[1:]
        )
        busy = (user + nice + system + irq + soft + steal) / os.sysconf("SC_CLK_TCK")
        return time.perf_counter(), busy - time.process_time()


def timed(run: Callable[[], Any], device: str) -> float:
    synchronize(device)
    started = time.perf_counter()
    result = run()
    synchronize(device)
    seconds = time.perf_counter() - started
    del result
    return seconds


def synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def peak_bytes(run: Callable[[], Any], device: str) -> int:
    """Most memory in use while it runs, above what was in use before."""
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    clear = Path("/proc/self/clear_refs")
    if not clear.exists():
        run()
        return 0
    # Memory that the allocator keeps would hide the peak: give it back, and reset the high mark.
    ctypes.CDLL(None).malloc_trim(0)
    clear.write_text("5")
    before = resident("VmRSS")
    run()
    return resident("VmHWM") - before


def resident(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise ValueError(f"/proc/self/status has no {field}")


def profiled(run: Callable[[], Any], device: str) -> str:
    """The operations that take most of one run's time."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    run()
    with torch.profiler.profile(activities=activities) as profile:
        for _ in range(3):
            run()
        synchronize(device)
    order = "self_cuda_time_total" if device == "cuda" else "self_cpu_time_total"
    return profile.key_averages().table(sort_by=order, row_limit=30, max_name_column_width=60)


if __name__ == "__main__":
    main()
