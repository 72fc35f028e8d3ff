"""Per-sample features beside the plain batched training step, and other roads to them.

    python scripts/bench_features.py [--model resnet50|cifar_resnet20|vit_b16|bert]
                                     [--device cpu|cuda] [--quick] [--dtype float32|tf32|bfloat16]

All contenders run in turn in one process, warm, on the same batch, dtype and memory format, and
with the memory switches that workers set (``kept_memory``). The yardstick is one training step:
forward and backward of the batch's summed loss to all parameters. The last line is JSON: samples/s,
``ratio_to_train_step`` (of medians; its quartiles over the rounds beside it) and peak bytes above
the model's own.
``--profile CONTENDER`` prints where that contender's time goes instead.
"""

import argparse
import contextlib
import ctypes
import gc
import importlib.util
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.distributed.worker import kept_memory
from pipeline.jacobian import FeatureExtractor
from pipeline.sketch import make_sketch
from pipeline.types import Inputs, batch_size, slice_inputs


@dataclass(frozen=True)
class Setting:
    """A network, a batch of inputs for it, and how many columns a sketch keeps."""

    model: nn.Module
    inputs: Inputs
    size: int


MODELS = {
    "resnet50": (8, 256, 500_000),
    "cifar_resnet20": (128, 2048, 100_000),
    "vit_b16": (4, 128, 500_000),
    "bert": (4, 128, 500_000),
}
"""Batch on a CPU, batch on a GPU, kept parameters."""

SLOW = {"vmap_grad", "loop", "trak", "opacus"}


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
    parser.add_argument("--model", choices=list(MODELS), default="cifar_resnet20")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--dtype", choices=["float32", "tf32", "bfloat16"], default="float32")
    parser.add_argument("--quick", action="store_true", help="2 repeats, no slow contenders")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument(
        "--plain-memory", action="store_true", help="let the C library give freed memory back"
    )
    parser.add_argument("--batch", type=int)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--size", type=int, help="kept parameters")
    parser.add_argument("--sketches", default="uniform,block,kronecker")
    parser.add_argument("--only", help="contenders to run, comma-separated")
    parser.add_argument("--profile", metavar="CONTENDER")
    parser.add_argument("--out", help="write the figures here, too")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.repeats = min(arguments.repeats, 3)
    return arguments


# --- settings --------------------------------------------------------------------------------


def made(arguments: argparse.Namespace) -> Setting:
    on_cpu, on_gpu, size = MODELS[arguments.model]
    n = arguments.batch or (on_gpu if arguments.device == "cuda" else on_cpu)
    torch.manual_seed(0)
    model = network(arguments.model).eval().to(arguments.device)
    if arguments.model == "bert":
        ids = torch.randint(1000, 30000, (n, 128))
        inputs: Inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        inputs = {name: tensor.to(arguments.device) for name, tensor in inputs.items()}
        return Setting(model, inputs, arguments.size or size)
    side = 32 if arguments.model == "cifar_resnet20" else 224
    images = torch.randn(n, 3, side, side, device=arguments.device)
    if arguments.channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
        model = model.to(memory_format=torch.channels_last)
    return Setting(model, images, arguments.size or size)


def network(name: str) -> nn.Module:
    """The network with random weights and one output."""
    if name == "resnet50":
        from pipeline.models.head import with_head
        from pipeline.models.resnet import ResNetOptions, build

        return with_head(build(ResNetOptions()), "random", 1, 0).module
    if name == "cifar_resnet20":
        from pipeline.models import cifar_resnet
        from pipeline.models.head import with_head

        options = cifar_resnet.CifarResNetOptions()
        return with_head(cifar_resnet.build(options), "random", 1, 0).module
    import transformers

    if name == "vit_b16":
        return transformers.ViTForImageClassification(transformers.ViTConfig(num_labels=1))
    return transformers.BertForSequenceClassification(transformers.BertConfig(num_labels=1))


@contextlib.contextmanager
def precision(arguments: argparse.Namespace) -> Iterator[None]:
    """The same number format for everybody; ours sets it by itself, to the same."""
    fast = arguments.dtype != "float32"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = fast
    torch.backends.cudnn.benchmark = True
    with torch.autocast(arguments.device, torch.bfloat16, arguments.dtype == "bfloat16"):
        yield


# --- contenders ------------------------------------------------------------------------------


def logits(model: nn.Module, inputs: Inputs) -> Tensor:
    result = model(inputs) if isinstance(inputs, Tensor) else model(**inputs)
    return getattr(result, "logits", result)


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
    contenders["vmap_grad"] = lambda: vmap_grad(model, inputs, indices)
    contenders["loop"] = lambda: loop(model, inputs, indices)
    if importlib.util.find_spec("trak"):
        contenders["trak"] = trak(model, inputs, indices)
    if importlib.util.find_spec("opacus"):
        contenders["opacus"] = opacus(model, inputs, indices)
    if arguments.only:
        wanted = {"train_step", *arguments.only.split(",")}
        return {name: run for name, run in contenders.items() if name in wanted}
    if arguments.quick:
        return {name: run for name, run in contenders.items() if name not in SLOW}
    return contenders


def forward(model: nn.Module, inputs: Inputs) -> Tensor:
    with torch.no_grad():
        return logits(model, inputs)


def to_input(model: nn.Module, inputs: Inputs) -> None:
    """Forward, and backward through every layer without weight gradients."""
    parameters = list(model.parameters())
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        if isinstance(inputs, Tensor):
            leaf = inputs.detach().requires_grad_()
            torch.autograd.grad(logits(model, leaf).sum(), leaf)
        else:
            table = model.get_input_embeddings().weight.requires_grad_()
            torch.autograd.grad(logits(model, inputs).sum(), table)
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


def train_step(model: nn.Module, inputs: Inputs) -> None:
    """All parameters' summed gradients, set anew."""
    model.zero_grad(set_to_none=True)
    logits(model, inputs).sum().backward()
    model.zero_grad(set_to_none=True)


def as_call(
    tensors: list[Tensor], names: list[str]
) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
    """Arguments of a call: by name where there are names."""
    return ((), dict(zip(names, tensors, strict=True))) if names else (tuple(tensors), {})


def vmap_grad(model: nn.Module, inputs: Inputs, indices: Tensor) -> Tensor:
    parameters = {name: p.detach() for name, p in model.named_parameters()}

    names = [] if isinstance(inputs, Tensor) else list(inputs)

    def of_sample(values: dict[str, Tensor], sample: Inputs) -> Tensor:
        tensors = [sample] if isinstance(sample, Tensor) else list(sample.values())
        args, kwargs = as_call([tensor[None] for tensor in tensors], names)
        result = torch.func.functional_call(model, values, args, kwargs)
        return getattr(result, "logits", result)[0, 0]

    gradients = torch.func.vmap(torch.func.grad(of_sample), in_dims=(None, 0))(parameters, inputs)
    flat = torch.cat([gradient.flatten(1) for gradient in gradients.values()], 1)
    return flat.index_select(1, indices)


def loop(model: nn.Module, inputs: Inputs, indices: Tensor) -> Tensor:
    rows = []
    for i in range(batch_size(inputs)):
        model.zero_grad(set_to_none=True)
        logits(model, slice_inputs(inputs, slice(i, i + 1)))[0, 0].backward()
        flat = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        rows.append(flat[indices.clamp(max=len(flat) - 1)])
    model.zero_grad(set_to_none=True)
    return torch.stack(rows)


def trak(model: nn.Module, inputs: Inputs, indices: Tensor) -> Callable[[], Tensor]:
    """TRAK's functional gradient computer without projection, and the gather."""
    from trak.gradient_computers import FunctionalGradientComputer
    from trak.modelout_functions import AbstractModelOutput
    from trak.utils import vectorize

    class FirstLogit(AbstractModelOutput):
        def __init__(self) -> None:
            pass

        @staticmethod
        def get_output(
            net: nn.Module, weights: dict[str, Tensor], buffers: dict[str, Tensor], *sample: Tensor
        ) -> Tensor:
            args, kwargs = as_call([tensor[None] for tensor in sample], names)
            result = torch.func.functional_call(net, (weights, buffers), args, kwargs)
            return getattr(result, "logits", result)[0, 0]

        def get_out_to_loss_grad(self, *_: Any) -> None:
            return None

    names = [] if isinstance(inputs, Tensor) else list(inputs)
    batch = [inputs] if isinstance(inputs, Tensor) else list(inputs.values())
    size = sum(parameter.numel() for parameter in model.parameters())
    computer = FunctionalGradientComputer(model, FirstLogit(), size, torch.float32, indices.device)

    def run() -> Tensor:
        whole = vectorize(computer.compute_per_sample_grad(batch), device=str(indices.device))
        return whole.index_select(1, indices)

    return run


def opacus(model: nn.Module, inputs: Inputs, indices: Tensor) -> Callable[[], Tensor]:
    """Opacus's per-sample hooks, and the gather; it refuses BatchNorm."""
    from opacus import GradSampleModule

    def run() -> Tensor:
        wrapped = GradSampleModule(model, strict=True)
        try:
            logits(wrapped, inputs).sum().backward()
            parts = [p.grad_sample.flatten(1) for p in model.parameters()]
            return torch.cat(parts, 1).index_select(1, indices)
        finally:
            wrapped.to_standard_module()

    return run


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
