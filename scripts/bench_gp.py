"""A Gaussian process of a linearized network over n, by several roads.

    python scripts/bench_gp.py [--sizes 125 250 500] [--widths 200 2000 200] [--device cpu|cuda]
                               [--repeats 1] [--roads implicit_function …]
                               [--hidden 2000 20000] [--clock wall|cpu] [--out FILE] [--quick]

The network of Maddox et al. 2019, figure 4 (5-200-2000-200-1, about 800,000 parameters, float32).
Each road gives the log marginal likelihood, and means and variances at ``--tests`` points: explicit
features in function space, products with J in function and in parameter space, GPyTorch on the
explicitly stacked Jacobian, and laplace-torch where it is installed. The last line is JSON:
seconds by road and size, the slope of the log-log curve, and how far the other roads' variances
are from those of explicit features, whose products are float64. ``--hidden`` adds the curve over
parameters at the first size, by products in function space, for networks 5-200-H-200-1.
On a machine that does other work, too, ``--clock cpu`` counts the process's own seconds; with one
thread they are what an idle core would take.
"""

import argparse
import importlib.util
import itertools
import json
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gpytorch
import numpy as np
import torch
from linear_operator import to_linear_operator
from torch import Tensor, nn

from pipeline.gp import Linearization, LinearizedGP
from pipeline.gp.implicit import ImplicitOptions

INPUTS = 5
RELATIVE_NOISE = 1e-2
"""σ²/s over n k(x, x), about the largest eigenvalue: float32 products can solve that."""


LAPLACE_BATCH = 125
"""Samples whose Jacobians laplace-torch makes at a time."""


@dataclass(frozen=True)
class Answer:
    evidence: float
    mean: Tensor
    variance: Tensor


@dataclass(frozen=True)
class Problem:
    linearization: Linearization
    x: Tensor
    y: Tensor
    x_test: Tensor
    outputscale: float
    noise: float
    tol: float

    def fitted(self, **options: Any) -> Answer:
        gp = LinearizedGP.of(
            self.linearization,
            self.x,
            self.y,
            outputscale=self.outputscale,
            noise=self.noise,
            **options,
        )
        evidence = gp.posterior.log_marginal_likelihood()
        found = gp.predict(self.x_test, allow_unconverged=True)
        value = evidence[0] if isinstance(evidence, tuple) else evidence
        return Answer(value, found.mean[:, 0], found.variance[:, 0])


def main() -> None:
    arguments = parsed()
    torch.manual_seed(0)
    model = network(arguments.widths).to(arguments.device)
    roads = {name: ROADS[name] for name in arguments.roads}
    seconds: dict[str, list[float]] = {name: [] for name in roads}
    errors: dict[str, list[float]] = {name: [] for name in roads}
    warm = made(model, 8, arguments)
    for road in roads.values():
        road(warm)
    over_parameters: list[dict[str, float]] = []
    for n in arguments.sizes:
        problem = made(model, n, arguments)
        answers = {}
        for name, road in roads.items():
            spent, answers[name] = timed(road, problem, arguments)
            seconds[name].append(spent)
            print(f"n = {n:>7} {name:>20}: {spent:8.2f} s", flush=True)
        if "explicit_function" in answers:
            exact = answers["explicit_function"]
            for name, answer in answers.items():
                errors[name].append(relative(answer.variance, exact.variance))
        record(arguments, model, seconds, errors, over_parameters)
    for hidden in arguments.hidden:
        over_parameters.append(by_parameters(hidden, arguments))
        record(arguments, model, seconds, errors, over_parameters)


def record(
    arguments: argparse.Namespace,
    model: nn.Module,
    seconds: dict[str, list[float]],
    errors: dict[str, list[float]],
    over_parameters: list[dict[str, float]],
) -> None:
    """What was measured so far, as JSON: a run that is cut off leaves its finished part."""
    done = len(next(iter(seconds.values()), []))
    sizes = arguments.sizes[:done]
    slopes = {name: slope(sizes, values) for name, values in seconds.items()}
    figures = {
        "bench": "gp",
        "device": arguments.device,
        "clock": arguments.clock,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "parameters": sum(p.numel() for p in model.parameters()),
        "tests": arguments.tests,
        "sizes": sizes,
        "seconds": seconds,
        "slope": slopes,
        "largest_relative_variance_error": errors,
        "over_parameters": over_parameters,
    }
    line = json.dumps(figures)
    if arguments.out:
        arguments.out.write_text(line + "\n")
    print(line)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[125, 250, 500])
    parser.add_argument("--widths", type=int, nargs="+", default=[200, 2000, 200])
    parser.add_argument("--hidden", type=int, nargs="*", default=[], help="for the curve over p")
    parser.add_argument("--roads", nargs="*", choices=list(ROADS), default=list(ROADS))
    parser.add_argument("--tests", type=int, default=32)
    parser.add_argument("--tol", type=float, default=1e-3, help="of conjugate gradients")
    parser.add_argument("--batch", type=int, default=1_000, help="samples of one pass")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--out", type=Path, help="file for the JSON as well")
    parser.add_argument("--quick", action="store_true", help="16 and 32 samples, a small network")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.sizes, arguments.widths, arguments.tests = [16, 32], [20, 50, 20], 4
    return arguments


def by_parameters(hidden: int, arguments: argparse.Namespace) -> dict[str, float]:
    """Seconds of the road by products in function space, for one width of the middle layer."""
    model = network([200, hidden, 200]).to(arguments.device)
    problem = made(model, arguments.sizes[0], arguments)
    spent, _ = timed(ROADS["implicit_function"], problem, arguments)
    parameters = sum(p.numel() for p in model.parameters())
    print(f"p = {parameters:>11,}: {spent:8.2f} s", flush=True)
    return {"parameters": parameters, "n": arguments.sizes[0], "seconds": spent}


def network(widths: list[int]) -> nn.Sequential:
    sizes = [INPUTS, *widths]
    layers: list[nn.Module] = []
    for left, right in itertools.pairwise(sizes):
        layers += [nn.Linear(left, right), nn.Tanh()]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], 1)).eval()


def made(model: nn.Module, n: int, arguments: argparse.Namespace) -> Problem:
    """Random inputs, a smooth target, and the noise in units of the kernel's mean eigenvalue."""
    generator = torch.Generator().manual_seed(n)
    x = torch.randn(n + arguments.tests, INPUTS, generator=generator).to(arguments.device)
    y = (2 * x).sin().sum(1)
    linearization = Linearization(model, batch=arguments.batch)
    one = linearization.rows(x[:1]).square().sum().item()
    noise = RELATIVE_NOISE * one * n
    return Problem(linearization, x[:n], y[:n], x[n:], 1.0, noise, arguments.tol)


def implicit(problem: Problem, space: str) -> Answer:
    return problem.fitted(space=space, implicit=ImplicitOptions(tol=problem.tol))


def gpytorch_explicit(problem: Problem) -> Answer:
    """GPyTorch's linear kernel on the stacked Jacobian, with its exact solver."""
    rows, rows_test = (problem.linearization.rows(x) for x in (problem.x, problem.x_test))
    likelihood = gpytorch.likelihoods.GaussianLikelihood().to(rows.device)

    class Stacked(gpytorch.models.ExactGP):
        def __init__(self) -> None:
            super().__init__(rows, problem.y, likelihood)
            self.mean_module = gpytorch.means.ZeroMean()

        def forward(self, x: Tensor) -> Any:
            covariance = to_linear_operator(x @ x.T)
            return gpytorch.distributions.MultivariateNormal(self.mean_module(x), covariance)

    gp = Stacked()
    likelihood.noise = problem.noise
    marginal = gpytorch.mlls.ExactMarginalLogLikelihood(likelihood, gp)
    with torch.no_grad(), gpytorch.settings.max_cholesky_size(100_000):
        gp.train()
        evidence = marginal(gp(rows), problem.y) * len(rows)
        gp.eval()
        found = gp(rows_test)
        return Answer(evidence.item(), found.mean, found.variance)


def laplace_torch(problem: Problem) -> Answer:
    """laplace-torch's functional form; around the network's own outputs, so with another mean."""
    from laplace import FunctionalLaplace
    from torch.utils.data import DataLoader, TensorDataset

    x, y = problem.x, problem.y[:, None]
    found = FunctionalLaplace(
        problem.linearization.model,
        "regression",
        n_subset=len(x),
        prior_precision=1 / problem.outputscale,
        sigma_noise=math.sqrt(problem.noise),
    )
    found.fit(DataLoader(TensorDataset(x, y), batch_size=LAPLACE_BATCH))
    evidence = found.log_marginal_likelihood()
    mean, variance = found(problem.x_test, pred_type="gp")[:2]
    return Answer(float(evidence), mean[:, 0].detach(), variance.flatten().detach())


ROADS: dict[str, Callable[[Problem], Answer]] = {
    "explicit_function": lambda problem: problem.fitted(space="function"),
    "implicit_function": lambda problem: implicit(problem, "function"),
    "implicit_parameter": lambda problem: implicit(problem, "parameter"),
    "gpytorch_explicit": gpytorch_explicit,
}
if importlib.util.find_spec("laplace"):
    ROADS["laplace_torch"] = laplace_torch


CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}


def timed(
    road: Callable[[Problem], Answer], problem: Problem, arguments: argparse.Namespace
) -> tuple[float, Answer]:
    spent, clock = [], CLOCKS[arguments.clock]
    for _ in range(arguments.repeats):
        start = clock()
        answer = road(problem)
        if problem.x.is_cuda:
            torch.cuda.synchronize()
        spent.append(clock() - start)
    return statistics.median(spent), answer


def relative(found: Tensor, wanted: Tensor) -> float:
    return float(((found.double() - wanted.double()) / wanted.double()).abs().max())


def slope(sizes: list[int], seconds: list[float]) -> float | None:
    """Exponent of the time in n, by least squares on logarithms."""
    if len(sizes) < 2:
        return None
    return float(np.polyfit([math.log(n) for n in sizes], [math.log(s) for s in seconds], 1)[0])


if __name__ == "__main__":
    main()
