"""Where the time of per-sample features goes, kind by kind, beside each kind's floor.

    python scripts/profile_features.py [--model resnet50|cifar_resnet20|…] [--sketch uniform]
                                       [--out FILE]

One pass over a batch is split by what its operations are for; a kind's seconds are those of its
operations alone, Python's between them are a kind of their own. Floors are measured in the same
process, in turn:

| kind | floor |
|---|---|
| forward pass | the plain forward pass |
| backward pass to the inputs | the plain passes to the input, less the forward |
| weight products | the kept entries' multiplications at the rate of this machine's matrix product |
| gathering, writing, permuting | as many bytes read and written by a plain copy |

``bound``: samples/s of a plain forward and backward pass to the input, which every road needs.
Where TRAK is installed, ``needed_for_goal`` is 2.7 times its gradient computer's speed. The last
line is JSON.
"""

import argparse
import contextlib
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from feature_roads.roads import forward, logits, rivals, to_input, train_step
from feature_roads.settings import Setting, add_arguments, made, precision
from torch import Tensor, nn
from torch.autograd.profiler_util import FunctionEvent

from pipeline.distributed.worker import kept_memory
from pipeline.jacobian import FeatureExtractor
from pipeline.sketch import make_sketch
from pipeline.types import batch_size

GOAL = 2.7
"""Times the speed of TRAK's gradient computer that features are to be computed at."""

PRODUCTS = ("convolution_backward", "bmm", "mm", "addmm", "sparse_sampled_addmm", "baddbmm")
GATHERS = ("index_select", "gather", "index", "embedding")
WRITES = ("copy_", "cat")
BETWEEN = "between operations"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    parser.add_argument("--sketch", default="uniform")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", help="write the figures here, too")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    setting = made(arguments)
    memory = contextlib.nullcontext() if arguments.plain_memory else kept_memory()
    with precision(arguments), memory:
        figures = measured(setting, arguments)
    print(table(figures))
    if arguments.out:
        Path(arguments.out).write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps(figures))


def measured(setting: Setting, arguments: argparse.Namespace) -> dict[str, Any]:
    """The kinds, their floors and the speeds that follow."""
    model, inputs, n = setting.model, setting.inputs, batch_size(setting.inputs)
    sketch = make_sketch(arguments.sketch, model, size=setting.size)
    extract = FeatureExtractor(model, sketch, compute_dtype=arguments.dtype)
    roads: dict[str, Callable[[], Any]] = {
        "forward": lambda: forward(model, inputs),
        "forward_backward_to_input": lambda: to_input(model, inputs),
        "train_step": lambda: train_step(model, inputs),
        "ours": lambda: extract(inputs).phi,
        "copy": copied(n * setting.size),
        "matrix_product": multiplied(),
    }
    indices = getattr(sketch, "indices", torch.arange(setting.size))
    trak = rivals(model, inputs, indices).get("trak")
    if trak is not None:
        roads["trak"] = trak
    seconds = medians(roads, arguments.repeats)
    kinds = kinds_of(roads["ours"], arguments.repeats)
    floors = {
        "forward pass": seconds["forward"],
        "backward pass to the inputs": seconds["forward_backward_to_input"] - seconds["forward"],
        "weight products": flops(model, inputs, extract, n)
        / (PRODUCT_FLOPS / seconds["matrix_product"]),
        "gathering": seconds["copy"],
        "writing": seconds["copy"],
        "permuting": seconds["copy"],
    }
    figures = {
        "bench": "features_profile",
        "model": arguments.model,
        "sketch": arguments.sketch,
        "batch": n,
        "p": setting.size,
        "dtype": arguments.dtype,
        "threads": torch.get_num_threads(),
        "kept_memory": not arguments.plain_memory,
        "kinds": {
            kind: {"seconds": taken, "floor": floors.get(kind, 0.0)}
            for kind, taken in kinds.items()
        },
        "seconds": seconds["ours"],
        "samples_per_second": n / seconds["ours"],
        "ratio_to_train_step": seconds["train_step"] / seconds["ours"],
        "bound": n / seconds["forward_backward_to_input"],
    }
    if trak is not None:
        figures["trak"] = n / seconds["trak"]
        figures["needed_for_goal"] = GOAL * n / seconds["trak"]
    return rounded(figures)


# --- kinds of operations -------------------------------------------------------------------------


def kinds_of(run: Callable[[], Any], repeats: int) -> dict[str, float]:
    """Seconds a run spends in each kind of operation."""
    run()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        started = time.perf_counter()
        for _ in range(repeats):
            run()
        whole = time.perf_counter() - started
    taken: dict[str, float] = defaultdict(float)
    passed_backward = False
    for event in sorted(profile.events(), key=lambda event: event.time_range.start):
        above = ancestors(event)
        in_backward = any(name.startswith("autograd::engine") for name in above)
        # The last operations of a run come after its backward pass, the next run's before its own.
        if in_backward:
            passed_backward = True
        elif event.name in FIRST_OF_RUN:
            passed_backward = False
        taken[kind_of(above, in_backward, passed_backward)] += event.self_cpu_time_total / 1e6
    found = {kind: seconds / repeats for kind, seconds in taken.items()}
    found[BETWEEN] = found.get(BETWEEN, 0.0) + whole / repeats - sum(found.values())
    return dict(sorted(found.items(), key=lambda item: -item[1]))


FIRST_OF_RUN = ("aten::conv2d", "aten::embedding")
"""Operations with which networks begin, and that nothing after a backward pass calls."""


def ancestors(event: FunctionEvent) -> list[str]:
    """Names of an event and of those that it runs in, inner ones first."""
    names = []
    at: FunctionEvent | None = event
    while at is not None:
        names.append(at.name)
        at = at.cpu_parent
    return names


def kind_of(above: list[str], in_backward: bool, passed_backward: bool) -> str:
    """What an operation is for, by where it runs and its name.

    A layer's own backward runs inside its node (``ConvolutionBackward0``), the rules' work in the
    hooks beside it.
    """
    calls = [name.removeprefix("aten::") for name in above]
    if above[0].startswith("autograd::engine"):
        return BETWEEN  # the hooks' own time, between the operations that they call
    if in_backward:
        if any(name.endswith("Backward0") and ":" not in name for name in above):
            return "backward pass to the inputs"
        if any(call in PRODUCTS for call in calls):
            return "weight products"
        if any(call in GATHERS for call in calls):
            return "gathering"
        if any(call in WRITES for call in calls):
            return "writing"
        return "biases and norms"
    if not passed_backward:
        return "forward pass"
    if any(call in GATHERS for call in calls):
        return "permuting"
    return "check that all is finite"


# --- floors --------------------------------------------------------------------------------------

SIDE = 1536
PRODUCT_FLOPS = 2 * SIDE**3


def multiplied() -> Callable[[], Tensor]:
    """A square matrix product, at which this machine's arithmetic runs fastest."""
    a, b = torch.randn(SIDE, SIDE), torch.randn(SIDE, SIDE)
    return lambda: a @ b


def copied(numbers: int) -> Callable[[], Tensor]:
    """A plain copy of as many float32 numbers."""
    source, target = torch.randn(numbers), torch.empty(numbers)
    return lambda: target.copy_(source)


def flops(model: nn.Module, inputs: Any, extract: FeatureExtractor, n: int) -> float:
    """Multiplications and additions of the kept weight entries, one dot product each."""
    positions: dict[str, int] = {}

    def note(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, _: Any, output: Tensor) -> None:
            axes = output.shape[2:] if "Conv" in type(module).__name__ else output.shape[1:-1]
            positions[f"{name}.weight"] = axes.numel()

        return hook

    handles = [
        module.register_forward_hook(note(name))
        for name, module in model.named_modules()
        if isinstance(module, (nn.Conv2d, nn.Linear))
    ]
    with torch.no_grad():
        logits(model, inputs)
    for handle in handles:
        handle.remove()
    kept = {name: sum(p.keep.size for p in parts) for name, parts in extract.plan.pieces.items()}
    return 2.0 * n * sum(positions[name] * size for name, size in kept.items() if name in positions)


def medians(roads: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median seconds of each, all in turn, round after round."""
    seconds: dict[str, list[float]] = {name: [] for name in roads}
    for round_ in range(repeats + 1):
        for name, run in roads.items():
            started = time.perf_counter()
            result = run()
            taken = time.perf_counter() - started
            del result
            if round_:
                seconds[name].append(taken)
    return {name: statistics.median(times) for name, times in seconds.items()}


# --- printing ------------------------------------------------------------------------------------


def table(figures: dict[str, Any]) -> str:
    """The figures, to read."""
    lines = [f"{'milliseconds a batch':>30}      ours     floor"]
    for kind, found in figures["kinds"].items():
        lines.append(f"{kind:>30} {1e3 * found['seconds']:9.1f} {1e3 * found['floor']:9.1f}")
    rates = {key: figures.get(key) for key in ("samples_per_second", "bound", "trak")}
    rates["needed_for_goal"] = figures.get("needed_for_goal")
    lines += [f"{name:>30} {rate:9.1f}" for name, rate in rates.items() if rate is not None]
    return "\n".join(lines)


def rounded(value: Any) -> Any:
    """Numbers to five digits."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return float(f"{value:.5g}") if isinstance(value, float) else value


if __name__ == "__main__":
    main()
