"""Rates at places from a table: one survey or year is the source, another the target.

Maddox et al. 2021, figure 7: malaria prevalence over longitude and latitude. Any raster with
longitude, latitude, year and rate serves, and any table of surveys.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.csv
import pyarrow.parquet as pq
import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from pipeline.config import Options
from pipeline.types import InputError


class RateColumns(Options):
    """Names of the table's columns."""

    longitude: str = "lon"
    """Degrees."""
    latitude: str = "lat"
    """Degrees."""
    rate: str = "rate"
    """What is regressed."""
    group: str = "year"
    """What tells source rows from target rows."""


class TableOptions(Options):
    """Where the rates come from."""

    path: Path
    """A CSV or Parquet table, one row a place."""
    columns: RateColumns = RateColumns()
    source: str = Field(min_length=1)
    """Value of the group column of the source's rows, as text."""
    target: str = Field(min_length=1)
    """That of the target's rows."""


@dataclass(frozen=True)
class Places:
    """Standardized places and rates; the moments are those of the source."""

    x: Float[Tensor, "n 2"]
    y: Float[Tensor, " n"]

    def first(self, count: int) -> "Places":
        """The first rows, or all where there are fewer."""
        return Places(self.x[:count], self.y[:count])


def read_places(options: TableOptions, *, seed: int = 0) -> tuple[Places, Places]:
    """Source and target rows in random order, float32."""
    if not options.path.is_file():
        raise InputError(f"{options.path} does not exist. Give a table of places.", "data.path")
    parquet = options.path.suffix == ".parquet"
    table = pq.read_table(options.path) if parquet else pyarrow.csv.read_csv(options.path)
    names = options.columns
    wanted = [names.longitude, names.latitude, names.rate, names.group]
    absent = [name for name in wanted if name not in table.column_names]
    if absent:
        raise InputError(
            f"{options.path} lacks {', '.join(absent)}; it has {', '.join(table.column_names)}.",
            "data.columns",
        )
    table = table.select(wanted).drop_null()
    groups = np.array([str(value) for value in table[names.group].to_pylist()])
    values = np.stack([table[name].to_numpy().astype(np.float64) for name in wanted[:3]], axis=1)
    rng = np.random.default_rng(seed)
    parts = []
    for value in (options.source, options.target):
        rows = np.flatnonzero(groups == value)
        if len(rows) < 2:
            raise InputError(
                f"{len(rows)} rows of {names.group} are {value!r}; there are "
                f"{', '.join(sorted(set(groups))[:20])}."
            )
        parts.append(torch.from_numpy(values[rng.permutation(rows)]))
    mean, spread = parts[0].mean(dim=0), parts[0].std(dim=0)
    scaled = [((part - mean) / spread).float() for part in parts]
    return Places(scaled[0][:, :2], scaled[0][:, 2]), Places(scaled[1][:, :2], scaled[1][:, 2])


def tanh_network(hidden: int, seed: int) -> nn.Sequential:
    """2-h-h-2, tanh: mean and s."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = [nn.Linear(2, hidden), nn.Tanh(), nn.Linear(hidden, hidden), nn.Tanh()]
        return nn.Sequential(*layers, nn.Linear(hidden, 2)).eval()
