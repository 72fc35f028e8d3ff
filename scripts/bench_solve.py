"""The ridge path beside its yardsticks: scikit-learn over the ridges, one eigendecomposition.

    python scripts/bench_solve.py [--run runs/cifar100_superclasses] [--n 4000]
                                  [--device cpu|cuda] [--quick] [--out FILE]

Ours is 40 ridges × 24 stopping times of Nesterov's method from one block Krylov basis, scored on
validation rows. Without ``--run`` K has the spectrum measured on a ResNet-20 (CIFAR-10). All
contenders run in turn in one process, warm; the last line is JSON with medians and ratios.
Then conjugate gradients at ridge 1e-6 λ_max: target by target, in blocks, and deflated.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import scipy.fft
import torch
from sklearn.kernel_ridge import KernelRidge as SklearnKernelRidge
from torch import Tensor

from pipeline.solvers.cg import cg
from pipeline.solvers.cholesky import cholesky
from pipeline.solvers.early_stopping import early_stopping
from pipeline.solvers.operator import DenseKernel, product
from pipeline.solvers.path_result import PathResult
from pipeline.solvers.ridge_path import fit_path
from pipeline.solvers.select import Score, accuracy
from pipeline.solvers.solution import Solution
from pipeline.solvers.solve import default_deflation
from pipeline.solvers.spectrum import spectrum_of
from pipeline.solvers.targets import class_targets
from pipeline.store import FeatureStore

MEASURED_SPECTRUM = {1: 1.0, 2: 0.12, 11: 0.027, 101: 2.4e-3, 1001: 2.2e-4, 4000: 1.9e-5}
"""λᵢ/λ₁ of the eNTK of a ResNet-20 on 4,000 CIFAR-10 images."""


@dataclass(frozen=True)
class Problem:
    K: Tensor
    K_val: Tensor
    Y: Tensor
    score: Score


def main() -> None:
    arguments = parsed()
    problem = loaded(arguments) if arguments.run else synthetic(arguments)
    figures = path_figures(problem, arguments)
    figures |= deflation_figures(problem, arguments)
    for name, value in figures.items():
        print(f"{name:>34}: {value:.4g}")
    device = torch.cuda.get_device_name() if arguments.device == "cuda" else "cpu"
    n, k = problem.Y.shape
    source = "synthetic" if arguments.run is None else arguments.run.name
    facts = {"bench": "solve", "device": device, "kernel": source, "n": n, "k": k}
    threads = {"threads": torch.get_num_threads(), "torch": torch.__version__}
    line = json.dumps({**facts, **threads, **figures})
    if arguments.out:
        arguments.out.write_text(line + "\n")
    print(line)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="n = 1,500, one repeat")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--n", type=int, default=4_000)
    parser.add_argument("--m", type=int, default=2_000, help="validation rows")
    parser.add_argument("--k", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--leave-out", nargs="*", default=[], choices=["eigh", "sklearn"], help="slow yardsticks"
    )
    parser.add_argument("--run", type=Path, help="finished run whose kernel is taken")
    parser.add_argument("--out", type=Path, help="file for the JSON as well")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.n, arguments.m, arguments.repeats = 1_500, 500, 1
    return arguments


def loaded(arguments: argparse.Namespace) -> Problem:
    """The first n rows of a finished run's kernel."""
    n = arguments.n
    K, K_val = (np.load(arguments.run / f"kernel/{s}.npy", mmap_mode="r") for s in ("train", "val"))
    stores = json.loads((arguments.run / "features.json").read_text())
    labels, labels_val = (FeatureStore.open(stores[s]["store"]).labels() for s in ("train", "val"))
    return prepared(np.array(K[:n, :n]), np.array(K_val[:, :n]), labels[:n], labels_val, arguments)


def synthetic(arguments: argparse.Namespace) -> Problem:
    """A kernel with the measured spectrum and mixed cosines as eigenvectors."""
    if arguments.device == "cuda":
        return synthetic_on_gpu(arguments)
    total = arguments.n + arguments.m
    rng = np.random.default_rng(0)
    root = np.diag(np.sqrt(spectrum(total)))
    for _ in range(2):
        root = scipy.fft.dct(rng.choice([-1.0, 1.0], total)[:, None] * root, axis=0, norm="ortho")
    # The targets' energy follows the eigenvalues, as a network's features make it.
    coordinates = rng.normal(size=(total, arguments.k)) * np.sqrt(spectrum(total))[:, None]
    labels = (root @ coordinates + 2e-3 * rng.normal(size=(total, arguments.k))).argmax(axis=1)
    whole = (root @ root.T).astype(np.float32)
    n = arguments.n
    return prepared(whole[:n, :n], whole[n:, :n], labels[:n], labels[n:], arguments)


def synthetic_on_gpu(arguments: argparse.Namespace) -> Problem:
    """Large kernels from random features of decaying scale: made where they are used."""
    total = arguments.n + arguments.m
    generator = torch.Generator(device="cuda").manual_seed(0)
    scales = torch.from_numpy(np.sqrt(spectrum(total))).float().cuda()
    whole = torch.zeros((total, total), device="cuda")
    scores = torch.zeros((total, arguments.k), device="cuda")
    for start in range(0, total, 4096):
        part = scales[start : start + 4096]
        phi = torch.randn((total, len(part)), generator=generator, device="cuda") * part
        whole.addmm_(phi, phi.T)
        weights = torch.randn((len(part), arguments.k), generator=generator, device="cuda")
        scores.addmm_(phi, weights * part[:, None])
    labels = scores.argmax(dim=1).cpu().numpy()
    n = arguments.n
    K, K_val = whole[:n, :n].contiguous(), whole[n:, :n].contiguous()
    return prepared(K, K_val, labels[:n], labels[n:], arguments)


def spectrum(n: int) -> np.ndarray:
    """The measured eigenvalues, interpolated and extended in log-log."""
    places = np.log([*MEASURED_SPECTRUM])
    values = np.log([*MEASURED_SPECTRUM.values()])
    wanted = np.log(np.arange(1, n + 1) * 4000 / max(n, 4000))
    return np.exp(np.interp(np.maximum(wanted, 0), places, values))


def prepared(
    K: Any, K_val: Any, labels: np.ndarray, labels_val: np.ndarray, arguments: argparse.Namespace
) -> Problem:
    targets = class_targets(labels, arguments.k)
    return Problem(
        K=torch.as_tensor(K).to(arguments.device),
        K_val=torch.as_tensor(K_val).to(arguments.device),
        Y=targets.matrix.to(arguments.device),
        score=accuracy(labels_val, targets.mean),
    )


def in_turn(
    contenders: dict[str, Callable[[], Any]], repeats: int
) -> tuple[dict[str, float], dict[str, Any]]:
    """Median seconds and last result of each contender, run in turn after a warm round."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    results: dict[str, Any] = {}
    for repeat in range(repeats + 1):
        for name, run in contenders.items():
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            started = time.perf_counter()
            results[name] = run()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if repeat > 0:
                seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}, results


def path_figures(problem: Problem, arguments: argparse.Namespace) -> dict[str, float]:
    path = partial(fit_path, problem.K, problem.Y, problem.K_val, problem.score)
    stopped = partial(early_stopping, problem.K, problem.Y, 0.0, problem.K_val, problem.score)
    contenders: dict[str, Callable[[], Any]] = {
        "ours": partial(path, solver="lanczos", dynamics="nesterov"),
        "early_stopping_1000": partial(stopped, max_iterations=1000),
    }
    if "eigh" not in arguments.leave_out:
        contenders["eigh"] = partial(path, solver="eigh", dynamics="nesterov")
    if "sklearn" not in arguments.leave_out and arguments.device == "cpu":
        contenders["sklearn"] = partial(sklearn_path, problem)
    if arguments.device == "cuda":
        ridge = 1e-6 * spectrum_of(DenseKernel(problem.K)).lambda_max
        contenders["cholesky"] = partial(cholesky, DenseKernel(problem.K), problem.Y, ridge)
    seconds, results = in_turn(contenders, arguments.repeats)
    ours: PathResult = results["ours"]
    figures = {f"{name}_seconds": value for name, value in seconds.items()}
    figures["ours_block_steps"] = ours.certificate.iterations
    figures["ours_residual"] = ours.certificate.residual
    figures["ours_ridge"] = ours.ridge
    for name in ("eigh", "sklearn"):
        if name in seconds:
            figures[f"speedup_over_{name}"] = seconds[name] / seconds["ours"]
    if "eigh" in results:
        figures |= agreement(problem, ours, results["eigh"])
    return figures


def agreement(problem: Problem, ours: PathResult, exact: PathResult) -> dict[str, float]:
    """How far apart the two answers are: ridges, and validation predictions."""
    found, wanted = (product(problem.K_val, path.dual_weights) for path in (ours, exact))
    return {
        "ridge_ratio_to_eigh": ours.ridge / exact.ridge,
        "prediction_difference": float((found - wanted).norm() / wanted.norm()),
    }


def sklearn_path(problem: Problem) -> float:
    """Best validation score over 40 ridges, one float64 solve each."""
    K, K_val, Y = (array.double().numpy() for array in (problem.K, problem.K_val, problem.Y))
    largest = spectrum_of(DenseKernel(problem.K)).lambda_max
    best = 0.0
    for ridge in np.geomspace(largest, 1e-7 * largest, 40):
        machine = SklearnKernelRidge(alpha=ridge, kernel="precomputed").fit(K, Y)
        best = max(best, problem.score(torch.from_numpy(machine.predict(K_val))).value)
    return best


def deflation_figures(problem: Problem, arguments: argparse.Namespace) -> dict[str, float]:
    """CG at ridge 1e-6 λ_max: target by target, in blocks, and deflated, deflation included."""
    operator = DenseKernel(problem.K)
    ridge = 1e-6 * spectrum_of(operator).lambda_max
    block = partial(cg, operator, problem.Y, ridge)

    def deflated() -> Any:
        deflation = default_deflation(operator, problem.Y.shape[1])
        return block(root=deflation.root(operator, ridge))

    single = partial(single_cg, operator, problem.Y, ridge)
    contenders = {"single_cg": single, "block_cg": block, "deflated_cg": deflated}
    seconds, results = in_turn(contenders, arguments.repeats)
    iterations = {name: result.iterations for name, result in results.items()}
    figures = {f"{name}_seconds": value for name, value in seconds.items()}
    figures |= {f"{name}_iterations": value for name, value in iterations.items()}
    for name in ("single_cg", "block_cg"):
        figures[f"deflation_fewer_than_{name}"] = iterations[name] / iterations["deflated_cg"]
        figures[f"deflation_speedup_over_{name}"] = seconds[name] / seconds["deflated_cg"]
    return figures


def single_cg(operator: DenseKernel, Y: Tensor, ridge: float, tol: float = 1e-6) -> Solution:
    """Conjugate gradients as in the textbook, every target by itself, products shared."""
    X, R, P = torch.zeros_like(Y), Y.clone(), Y.clone()
    norms, energy = Y.norm(dim=0), R.square().sum(dim=0)
    for t in range(5_000):
        if bool((energy.sqrt() <= tol * norms).all()):
            return Solution(X, iterations=t, converged=True)
        AP = operator.matvec(P) + ridge * P
        step = energy / (P * AP).sum(dim=0)
        X += P * step
        R -= AP * step
        energy, before = R.square().sum(dim=0), energy
        P = R + P * (energy / before)
    return Solution(X, iterations=t, converged=False)


if __name__ == "__main__":
    main()
