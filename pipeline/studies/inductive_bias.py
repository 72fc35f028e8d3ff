"""What a linearized network believes between its data: bands over width, untrained and trained."""

import itertools
import math
from functools import partial
from typing import Annotated, Any

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from pipeline.gp import Linearization, adapt
from pipeline.gp.adapt import Task
from pipeline.report.plots import Panel, Plot, Series
from pipeline.studies.study import Findings, Sizes, Study, StudyOptions, Work

REACH = 3.0
"""Ends of the inputs that are drawn."""
INSIDE = (0.5, 1.5)
"""Distances from zero of the two clusters that data come from."""

Hidden = Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)]
"""Widths of hidden layers."""


class InductiveBiasOptions(StudyOptions):
    """One-dimensional regression by linearized networks (Maddox et al. 2021, figure 3)."""

    points: int = Field(default=20, ge=4)
    """Data, half in each of two clusters."""
    noise: float = Field(default=0.05, gt=0)
    """Their standard deviation around sin(2x)."""
    widths: Sizes = (50, 500, 5_000)
    """Of one hidden layer of ReLU, untrained and trained."""
    tanh: tuple[Hidden, ...] = ((100, 100, 100), (200, 90, 20), (20, 90, 200))
    """Hidden layers of trained tanh networks; the defaults have about 21,000 parameters each."""
    steps: int = Field(default=2_000, ge=1)
    """Of Adam at 1e-3 on all data."""
    seed: int = 0
    """Of data and networks."""


def run(options: InductiveBiasOptions, work: Work) -> Findings:
    """One row a network: how sure it is among the data and away from them."""
    cases: list[tuple[type[nn.Module], tuple[int, ...], bool]] = [
        (nn.ReLU, (width,), trained) for width in options.widths for trained in (False, True)
    ]
    cases += [(nn.Tanh, tuple(hidden), True) for hidden in options.tanh]
    makers = {}
    for activation, hidden, trained in cases:
        name = f"{activation.__name__.lower()} {'-'.join(map(str, hidden))}"
        cell = f"{name.replace(' ', '_')}_{'trained' if trained else 'untrained'}"
        makers[cell] = partial(_cell, options, activation, hidden, trained, name)
    found = list(work.cells(makers, axes=("widths", "tanh")).values())
    return Findings([cell["row"] for cell in found], [_plot(cell) for cell in found])


def _cell(
    options: InductiveBiasOptions,
    activation: type[nn.Module],
    hidden: tuple[int, ...],
    trained: bool,
    name: str,
) -> dict[str, Any]:
    x, y = _data(options)
    network = _network(activation, hidden, options.seed)
    if trained:
        _fit(network, x, y, options.steps)
    gp = adapt(Linearization(network, mean="zero"), [Task(x, y)]).tasks[0]
    grid = torch.linspace(-REACH, REACH, 121, dtype=torch.float64)[:, None]
    found = gp.predict(grid, allow_unconverged=True)
    deviation = found.variance[:, 0].sqrt()
    with torch.no_grad():
        function = network(grid)[:, 0]
    among = (grid[:, 0].abs() >= INSIDE[0]) & (grid[:, 0].abs() <= INSIDE[1])
    truth = (2 * grid[:, 0]).sin()
    row = {
        "network": name,
        "trained": trained,
        "parameters": sum(p.numel() for p in network.parameters()),
        "RMSE inside": float((found.mean[among, 0] - truth[among]).square().mean().sqrt()),
        "deviation inside": float(deviation[among].mean()),
        "deviation outside": float(deviation[~among].mean()),
        "noise": math.sqrt(gp.noise),
    }
    curves = {
        "mean": found.mean[:, 0].tolist(),
        "low": (found.mean[:, 0] - 2 * deviation).tolist(),
        "high": (found.mean[:, 0] + 2 * deviation).tolist(),
        "network": function.tolist(),
    }
    return {"row": row, "grid": grid[:, 0].tolist(), "curves": curves,
            "x": x[:, 0].tolist(), "y": y.tolist()}  # fmt: skip


def _data(options: InductiveBiasOptions) -> tuple[Float[Tensor, "n 1"], Float[Tensor, " n"]]:
    generator = torch.Generator().manual_seed(options.seed)
    low, high = INSIDE
    distance = low + (high - low) * torch.rand(
        options.points, generator=generator, dtype=torch.float64
    )
    x = torch.where(torch.arange(options.points) % 2 == 0, distance, -distance)
    noise = torch.randn(options.points, generator=generator, dtype=torch.float64)
    return x[:, None], (2 * x).sin() + options.noise * noise


def _network(activation: type[nn.Module], hidden: tuple[int, ...], seed: int) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers: list[nn.Module] = []
        for left, right in itertools.pairwise((1, *hidden)):
            layers += [nn.Linear(left, right), activation()]
        return nn.Sequential(*layers, nn.Linear(hidden[-1], 1)).double().eval()


def _fit(network: nn.Module, x: Tensor, y: Tensor, steps: int) -> None:
    adam = torch.optim.Adam(network.parameters(), lr=1e-3)
    for _ in range(steps):
        loss = (network(x)[:, 0] - y).square().mean()
        adam.zero_grad()
        loss.backward()
        adam.step()


def _plot(cell: dict[str, Any]) -> Plot:
    row, grid = cell["row"], cell["grid"]
    state = "trained" if row["trained"] else "untrained"
    curves = cell["curves"]
    band = Series(
        "± 2 deviations", grid + grid[::-1], curves["low"] + curves["high"][::-1], style="band"
    )
    lines = [
        Series("mean", grid, curves["mean"]),
        band,
        Series("network", grid, curves["network"]),
        Series("data", cell["x"], cell["y"], style="points"),
    ]
    name = f"{row['network'].replace(' ', '_')}_{state}"
    title = f"Finite NTK of {row['network']}, {state}"
    return Plot(name, title, "Mean and band of the function, beside the network.",
                [Panel("x", "y", lines)])  # fmt: skip


STUDY = Study(InductiveBiasOptions, run)
