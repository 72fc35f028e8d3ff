"""What the instruments cost beside doing it the plain way, in one process.

    python scripts/bench_analyses.py [--quick]

- the pseudo-NTK against the full eNTK of k = 10 and 100 outputs: k² in memory, about k in time
  for the gradients and k² for their products;
- look-ahead scores of 1,000 candidates on 1,000 pool samples by block updates, against a refit for
  every candidate (timed on some of them), and their difference;
- similarity of two models over 10,000 rows by sketch, against the kernels formed.

The last line is JSON with medians and ratios.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.analyses.full_kernel import kernel_of
from pipeline.analyses.lookahead import DensePool, LookAhead
from pipeline.analyses.similarity import (
    exact_kernel_alignment,
    exact_parameter_cosine,
    kernel_alignment,
    parameter_cosine,
)
from pipeline.analyses.streamed import StreamedFeatures
from pipeline.jacobian import FeatureExtractor
from pipeline.models.small_cnn import SmallCNN
from pipeline.solvers.kernel_ridge import KernelRidge


def main() -> None:
    arguments = parsed()
    figures: dict[str, float] = {}
    for bench in (partial(pseudo_figures, 10), partial(pseudo_figures, 100), lookahead_figures,
                  similarity_figures):  # fmt: skip
        found = bench(arguments)
        figures |= found
        for name, value in found.items():
            print(f"{name:>42}: {value:.4g}", flush=True)
    print(json.dumps({"bench": "analyses", "threads": torch.get_num_threads(), **figures}))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the sizes, one repeat")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rows", type=int, default=10_000, help="of the similarity")
    parser.add_argument("--columns", type=int, default=20_000, help="of the similarity")
    parser.add_argument("--pool", type=int, default=1_000)
    parser.add_argument("--labelled", type=int, default=500)
    parser.add_argument("--refits", type=int, default=40, help="candidates that are refitted")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.repeats, arguments.refits = 1, 5
        arguments.rows, arguments.columns = 1_000, 5_000
        arguments.pool, arguments.labelled = 200, 50
    return arguments


def timed(run: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    """Median seconds after a warm run, and the last result."""
    result, seconds = run(), []
    for _ in range(repeats):
        started = time.perf_counter()
        result = run()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds), result


def pseudo_figures(k: int, arguments: argparse.Namespace) -> dict[str, float]:
    torch.manual_seed(0)
    n = 8 if arguments.quick else 64
    model: nn.Module = SmallCNN(3, (16, 32), "gelu", k).eval()
    images = torch.randn(n, 3, 32, 32)
    full_seconds, full = timed(lambda: kernel_of(model, images), arguments.repeats)
    seconds, pseudo = timed(lambda: kernel_of(model, images, output=0), arguments.repeats)
    rows = {
        output: timed(partial(FeatureExtractor(model, output=output), images), arguments.repeats)[0]
        for output in ("all", 0)
    }
    return {
        f"pseudo_k{k}_n": n,
        f"pseudo_k{k}_gradients_time_ratio": rows["all"] / rows[0],
        f"pseudo_k{k}_full_seconds": full_seconds,
        f"pseudo_k{k}_seconds": seconds,
        f"pseudo_k{k}_time_ratio": full_seconds / seconds,
        f"pseudo_k{k}_memory_ratio": full.nbytes / pseudo.nbytes,
    }


def lookahead_figures(arguments: argparse.Namespace) -> dict[str, float]:
    m, n, k, ridge = arguments.pool, arguments.labelled, 10, 1e-2
    generator = torch.Generator().manual_seed(0)
    rows = m + n
    phi = decaying(rows, 2 * rows, generator).double()
    K = phi @ phi.T
    labels = torch.randint(0, k, (n,), generator=generator).tolist()
    base = torch.full((rows, k), 1 / k, dtype=torch.float64)
    candidates, labelled = list(range(m)), list(range(m, rows))

    def ours() -> Tensor:
        start = LookAhead.start(DensePool(K), base, labelled, labels, ridge)
        return start.scores(candidates)

    seconds, scores = timed(ours, arguments.repeats)
    some = candidates[: arguments.refits]
    refit_seconds, refitted = timed(lambda: refits(K, base, labelled, labels, ridge, some), 1)
    error = ((scores[: len(some)] - refitted).abs() / refitted).max()
    per_candidate = refit_seconds / len(some)
    return {
        "lookahead_candidates": m,
        "lookahead_pool": rows,
        "lookahead_labelled": n,
        "lookahead_seconds": seconds,
        "lookahead_refit_seconds_per_candidate": per_candidate,
        "lookahead_ratio": per_candidate * m / seconds,
        "lookahead_worst_relative_difference": float(error),
    }


def refits(
    K: Tensor, base: Tensor, labelled: list[int], labels: list[int], ridge: float, some: list[int]
) -> Tensor:
    """The same scores from a new kernel ridge regression for every candidate."""

    def outputs(rows: list[int], classes: list[int]) -> Tensor:
        Y = torch.nn.functional.one_hot(torch.tensor(classes), base.shape[1]).double() - base[rows]
        machine = KernelRidge(ridge, ridge_scale="absolute", solver="cholesky")
        machine.fit(K[rows][:, rows], Y)
        return base + K[:, rows] @ torch.as_tensor(machine.dual_coef_)

    now = outputs(labelled, labels)
    found = []
    for x in some:
        changed = outputs([*labelled, x], [*labels, int(now[x].argmax())])
        found.append((changed - now).norm(dim=1).sum())
    return torch.stack(found)


def similarity_figures(arguments: argparse.Namespace) -> dict[str, float]:
    generator = torch.Generator().manual_seed(0)
    n, p = arguments.rows, arguments.columns
    first = decaying(n, p, generator)
    second = first.mul(0.7).add_(decaying(n, p, generator), alpha=0.7)
    A, B = (StreamedFeatures(phi.half().numpy()) for phi in (first, second))
    del first, second
    figures: dict[str, float] = {"similarity_rows": n, "similarity_columns": p}
    pairs = {
        "parameter": (parameter_cosine, exact_parameter_cosine),
        "kernel": (kernel_alignment, exact_kernel_alignment),
    }
    for name, (sketched, exact) in pairs.items():
        seconds, found = timed(lambda run=sketched: run(A, B), arguments.repeats)
        started = time.perf_counter()
        truth = exact(A, B)
        exact_seconds = time.perf_counter() - started
        figures[f"similarity_{name}"] = truth.value
        figures[f"similarity_{name}_seconds"] = seconds
        figures[f"similarity_{name}_time_share"] = seconds / exact_seconds
        figures[f"similarity_{name}_error"] = abs(found.value / truth.value - 1)
        figures[f"similarity_{name}_stderr"] = found.stderr / truth.value
    return figures


def decaying(n: int, p: int, generator: torch.Generator) -> Tensor:
    """Rows of random features with a direction that all share and a slow power decay."""
    scale = torch.from_numpy(np.arange(1, p + 1) ** -0.6).float()
    rows = torch.randn(n, p, generator=generator) * scale
    rows += 2 * torch.randn(p, generator=generator) * scale
    return rows


if __name__ == "__main__":
    main()
