"""J v and Jᵀ u for blocks of m vectors: vectors carried together (vmap) beside one after the other.

    python scripts/bench_operators.py [--repeats 3] [--vectors 1,8,64] [--out FILE]

For every network and product: seconds of a block of m vectors with chunk 1, chunk 8 and chunk 64,
in turn in one process, and what ``default_chunk`` takes. The last line is JSON; ``speedup`` is the
time in turn over the time together, so that 1 and less speaks for one vector at a time.
"""

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from bench_features import OthersWatch
from torch import Tensor, nn

from pipeline.distributed.worker import kept_memory
from pipeline.jacobian import JacobianOperator
from pipeline.jacobian.operators import default_chunk
from pipeline.models.cifar_resnet import CifarResNet
from pipeline.types import Inputs

CHUNKS = (1, 8, 64)


def multilayer_perceptron() -> tuple[nn.Module, Inputs]:
    """Three tanh layers of the few-shot experiments' size."""
    widths = [64, 256, 256, 10]
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        layers += [nn.Linear(before, after), nn.Tanh()]
    return nn.Sequential(*layers[:-1]).eval(), torch.randn(64, 64)


def cifar_resnet() -> tuple[nn.Module, Inputs]:
    """A CIFAR ResNet-20."""
    return CifarResNet(20, "A").eval(), torch.randn(32, 3, 32, 32)


def small_bert() -> tuple[nn.Module, Inputs]:
    """Four layers of width 256 on 32 tokens."""
    import transformers

    config = transformers.BertConfig(
        vocab_size=1000, hidden_size=256, num_hidden_layers=4, num_attention_heads=4,
        intermediate_size=1024, num_labels=10,
    )  # fmt: skip
    ids = torch.randint(0, 1000, (8, 32))
    model = transformers.BertForSequenceClassification(config).eval()
    return model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


NETWORKS: dict[str, Callable[[], tuple[nn.Module, Inputs]]] = {
    "mlp": multilayer_perceptron,
    "cifar_resnet20": cifar_resnet,
    "bert_small": small_bert,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--vectors", default="1,8,64")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", help="write the figures here, too")
    arguments = parser.parse_args()
    counts = [int(m) for m in arguments.vectors.split(",")]
    watch = OthersWatch()
    with kept_memory():
        figures = {
            name: measured(*NETWORKS[name](), counts, arguments.repeats)
            for name in arguments.networks.split(",")
        }
    facts = {
        "bench": "operators",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "repeats": arguments.repeats,
        "cores_busy_with_others": watch.cores(),
        "networks": figures,
    }
    if arguments.out:
        Path(arguments.out).write_text(json.dumps(facts, indent=2) + "\n")
    print(json.dumps(facts))


def measured(
    model: nn.Module, inputs: Inputs, counts: list[int], repeats: int
) -> dict[str, dict[str, Any]]:
    """Median seconds by product, m and chunk."""
    J = {chunk: JacobianOperator(model, inputs, chunk=chunk) for chunk in CHUNKS}
    rows, columns = J[1].shape
    found: dict[str, dict[str, Any]] = {"default_chunk": {"": default_chunk(model)}}
    for product, size in (("matmul", columns), ("t_matmul", rows)):
        for m in counts:
            block = torch.randn(size, m)
            runs = {c: getattr(J[c], product) for c in CHUNKS if c <= m or c == 1}
            seconds = in_turn(runs, block, repeats)
            found.setdefault(product, {})[str(m)] = {
                str(c): {"seconds": round(s, 4), "speedup": round(seconds[1] / s, 2)}
                for c, s in seconds.items()
            }
            print(product, m, {c: round(s, 4) for c, s in seconds.items()}, flush=True)
    return found


def in_turn(
    runs: dict[int, Callable[[Tensor], Tensor]], block: Tensor, repeats: int
) -> dict[int, float]:
    """Median seconds of each, one round after the other; the first round is not counted."""
    seconds: dict[int, list[float]] = {chunk: [] for chunk in runs}
    for round_ in range(repeats + 1):
        for chunk, run in runs.items():
            started = time.perf_counter()
            run(block)
            if round_:
                seconds[chunk].append(time.perf_counter() - started)
    return {chunk: statistics.median(times) for chunk, times in seconds.items()}


if __name__ == "__main__":
    main()
