"""What each number format costs in accuracy, on a config's own network, sketch and samples.

    python scripts/precision_report.py configs/cifar100_superclasses.yaml
                                       [--set sketch.size=50000] [--samples 64] [--device cpu|cuda]

Features of the first training samples are computed in float64 and in each compute format (TF32
where there is a GPU), and the float32 ones rounded to each stored format. Printed are relative
errors: of a sample's features (median and worst), and of K in the Frobenius norm and in units of
λ₁. Worst samples of ReLU networks are those whose masks flip. The last line is JSON.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from pipeline.data.batches import batch_loader
from pipeline.jacobian.feature_error import FeatureError, feature_error, features_by_precision
from pipeline.registry import RunConfig, build_benchmark, build_network, load_config
from pipeline.sketch.make import build_sketch
from pipeline.store.precision import TORCH_DTYPES, power_of_two_scale
from pipeline.types import move_inputs


def main() -> None:
    arguments = parsed()
    torch.set_num_threads(arguments.threads)
    config = load_config(arguments.config, arguments.set)
    errors = measured(config, arguments)
    for name, error in errors.items():
        print(
            f"{name:>28}: features {error.median:.1e} median, {error.largest:.1e} worst; "
            f"K {error.kernel:.1e}, {error.kernel_spectral:.1e} of its largest eigenvalue"
        )
    device = torch.cuda.get_device_name() if arguments.device == "cuda" else "cpu"
    facts = {
        "report": "precision",
        "config": arguments.config.name,
        "samples": arguments.samples,
        "device": device,
        "torch": torch.__version__,
        "errors": {name: asdict(error) for name, error in errors.items()},
    }
    if arguments.out:
        Path(arguments.out).write_text(json.dumps(facts, indent=2) + "\n")
    print(json.dumps(facts))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", help="write the figures here, too")
    return parser.parse_args()


def measured(config: RunConfig, arguments: argparse.Namespace) -> dict[str, FeatureError]:
    """Errors by compute format, and by stored format of float32 features."""
    module = build_network(config.model).module.to(arguments.device)
    sketch = build_sketch(config.sketch, module)
    split = build_benchmark(config.benchmark).splits["train"]
    samples = batch_loader(config.benchmark.preprocess)(split, slice(0, arguments.samples))
    kinds = ["float32", "bfloat16", "float64"]
    if arguments.device == "cuda":
        kinds.insert(1, "tf32")
    found = dict(
        features_by_precision(
            module,
            move_inputs(samples, torch.device(arguments.device)),
            sketch,
            kinds=kinds,
            output=config.features.output,
            batch=arguments.batch,
        )
    )
    wanted = found.pop("float64")
    found = {f"computed in {kind}": phi for kind, phi in found.items()} | stored(found["float32"])
    weights = sketch.column_weights
    return {name: feature_error(phi, wanted, weights) for name, phi in found.items()}


def stored(phi: torch.Tensor) -> dict[str, Any]:
    """Float32 features as a store gives them back: scaled, rounded, scaled back."""
    scale = power_of_two_scale(phi)
    rounded = {kind: (phi * scale).to(TORCH_DTYPES[kind]) for kind in ("float16", "bfloat16")}
    return {f"float32, stored as {kind}": part.float() / scale for kind, part in rounded.items()}


if __name__ == "__main__":
    main()
