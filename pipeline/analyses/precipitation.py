"""Precipitation of Nebraska's stations: one station's year, carried to the others.

Maddox et al. 2019, section 3: the mean of each day of the year over all years, standardized; a
1-400-1 tanh network is trained on days 1–300 of one station; every other station conditions on its
own days 1–300 and is tested on days 301–365.
"""

from pathlib import Path

import numpy as np
import torch
from pydantic import Field
from torch import nn

from pipeline.analyses.few_shot import USUAL_METHODS, ShotTask, Source, Training, train
from pipeline.artefact import read_arrays
from pipeline.config import Options
from pipeline.types import InputError

DAYS = 365
"""29 February is left out."""
CONTEXT_DAYS = 300
COLUMNS = ("station", "yyyymmdd", "prcp_hundredths_inch", "qc_flagged")
"""What the file of stations holds, one entry a station and day."""
CUMULATIVE = np.cumsum([0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30])
"""Days before each month of a common year."""


class StationOptions(Options):
    """Few-shot regression of precipitation over the year."""

    path: Path
    """Archive with station, yyyymmdd, prcp_hundredths_inch, qc_flagged."""
    source: int = Field(default=0, ge=0)
    """Place of the source among the stations, by number."""
    stations: int | None = Field(default=None, ge=2)
    """Stations, the source among them; all of them when left out."""
    hidden: int = Field(default=400, ge=1)
    """Width of the network."""
    epochs: int = Field(default=1_000, ge=1)
    """Of training on the source, in batches of 100."""
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)
    """Of the network. The study repeats for each."""
    methods: tuple[str, ...] = USUAL_METHODS
    """What is compared."""


def station_tasks(options: StationOptions) -> list[ShotTask]:
    """One task a station, in float64; the source first, the others by their number.

    Inputs and targets are standardized with the context days' moments of each station.
    """
    stations, means = day_means(options.path)
    if options.source >= len(stations):
        raise InputError(f"station {options.source} of {len(stations)} does not exist.", "source")
    chosen = [options.source, *(i for i in range(len(stations)) if i != options.source)]
    days = torch.arange(1, DAYS + 1, dtype=torch.float64)
    context = days[:CONTEXT_DAYS]
    x = ((days - context.mean()) / context.std())[:, None]
    tasks = []
    for i in chosen[: options.stations]:
        values = torch.from_numpy(means[i])
        known = values[:CONTEXT_DAYS]
        y = (values - known.mean()) / known.std()
        n = CONTEXT_DAYS
        tasks.append(ShotTask(x[:n], y[:n], x[n:], y[n:], f"station {stations[i]}"))
    return tasks


def day_means(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Station numbers (s,) and mean precipitation (s, 365) of every day, in hundredths of an inch.

    Flagged and missing values are left out; a station without any value on some day is refused.
    """
    station, date, value, flagged = _columns(path)
    month, day = date // 100 % 100, date % 100
    kept = ~flagged & (value >= 0) & ~((month == 2) & (day == 29))
    stations, place = np.unique(station[kept], return_inverse=True)
    of_year = CUMULATIVE[month[kept] - 1] + day[kept] - 1
    flat = place * DAYS + of_year
    counts = np.bincount(flat, minlength=len(stations) * DAYS)
    if not counts.all():
        missing = int(np.flatnonzero(counts == 0)[0])
        raise InputError(
            f"station {stations[missing // DAYS]} has no value on day {missing % DAYS + 1}."
        )
    totals = np.bincount(flat, weights=value[kept], minlength=len(counts))
    return stations, (totals / counts).reshape(len(stations), DAYS)


def _columns(path: Path) -> list[np.ndarray]:
    """The four arrays of the file; any other file is refused."""
    found = read_arrays(path)
    lacking = [name for name in COLUMNS if name not in found]
    if lacking:
        raise InputError(f"{path} holds no stations: it lacks {', '.join(lacking)}.", "path")
    return [found[name] for name in COLUMNS]


def precipitation_source(options: StationOptions, task: ShotTask, seed: int) -> Source:
    """The network of METHODS' schedule, trained on the source station."""

    def network() -> nn.Sequential:
        torch.manual_seed(seed)
        layers = [nn.Linear(1, options.hidden), nn.Tanh(), nn.Linear(options.hidden, 1)]
        return nn.Sequential(*layers).double()

    training = Training(1e-4, 0.9, 100, options.epochs, seed)
    return Source(task, train(network(), task.x, task.y, training), network())
