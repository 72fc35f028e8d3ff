"""What many networks say about the pseudo-NTK: means over seeds, fitted exponents, plots."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.analyses.full_kernel import PowerLaw, power_law
from pipeline.report.plots import Panel, Plot, Series

Row = dict[str, Any]
Value = Callable[[Row], float | None]
"""A figure of one network, epoch and kind; None where it is infinite."""


def _key(name: str) -> Value:
    return lambda row: row[name]


def _missed(name: str) -> Value:
    """|pseudo − full| / full of a figure that both kernels have."""

    def value(row: Row) -> float | None:
        pseudo, full = row[f"{name}_pseudo"], row[f"{name}_full"]
        return None if pseudo is None or full is None else abs(pseudo / full - 1)

    return value


COLUMNS: dict[str, Value] = {
    "error": _key("relative_error"),
    "norms differ": _key("norm_difference"),
    "bound": _key("bound"),
    "drift": _key("drift"),
    "λ_max differs": _missed("lambda_max"),
    "λ_min differs": _missed("lambda_min"),
    "condition differs": _missed("condition"),
    "outputs differ, raw": _key("regression_difference_raw"),
    "outputs differ": _key("regression_difference_matched"),
    "accuracy pseudo": _key("accuracy_pseudo"),
    "accuracy full": _key("accuracy_full_matched"),
    "times faster": lambda row: row["full_seconds"] / row["seconds"],
    "times smaller": lambda row: row["full_bytes"] / row["bytes"],
}
"""Of the table: relative differences, accuracies as shares, costs as ratios."""


@dataclass(frozen=True)
class Summary:
    """All rows of a study, one a network, seed, epoch and kind."""

    rows: Sequence[Row]
    networks: Sequence[str]
    widths: Mapping[Any, Sequence[int]]
    epochs: Sequence[int]
    kinds: Sequence[str]

    def table(self) -> list[Row]:
        """Means over seeds, at every network, width, epoch and kind."""
        return [
            self._row({"network": name, "width": width, "epoch": epoch, "kind": kind})
            for name in self.networks
            for width in self.widths[name]
            for epoch in self.epochs
            for kind in self.kinds
        ]

    def _row(self, at: Row) -> Row:
        figures = {name: self.mean(value, at)[0] for name, value in COLUMNS.items()}
        finite = {name: value if np.isfinite(value) else None for name, value in figures.items()}
        return {**at, **finite, "stderr of error": self.mean(COLUMNS["error"], at)[1]}

    def mean(self, value: Value, at: Row) -> tuple[float, float]:
        """Mean and standard error over seeds of the rows at these coordinates."""
        found = [value(row) for row in self.rows if at.items() <= row.items()]
        values = [np.inf if each is None else each for each in found]
        if not np.all(np.isfinite(values)):
            return np.inf, 0.0
        spread = float(np.std(values, ddof=1) / len(values) ** 0.5) if len(values) > 1 else 0.0
        return float(np.mean(values)), spread

    def exponents(self) -> dict[str, PowerLaw]:
        """How the first kind's error goes with width, by network and first or last epoch."""
        laws = {}
        for name, at in self._networks():
            if len(self.widths[name]) < 3:
                continue
            for epoch in (self.epochs[0], self.epochs[-1]):
                place = {**at, "epoch": epoch}
                errors = [self._over_width("error", place, w) for w in self.widths[name]]
                laws[f"{name}, epoch {epoch}"] = power_law(self.widths[name], errors)
        return laws

    def gains(self) -> dict[str, float]:
        """Accuracy of the pseudo-NTK's regression minus the full one's, mean over all networks."""
        gain = {}
        for kind in self.kinds:
            pseudo = self.mean(COLUMNS["accuracy pseudo"], {"kind": kind})[0]
            full = self.mean(COLUMNS["accuracy full"], {"kind": kind})[0]
            gain[f"gain in accuracy, {kind}"] = pseudo - full
        return gain

    def bound(self) -> str:
        """How far above the error the talk's bound lies."""
        above = [row["bound"] / row["relative_error"] for row in self.rows if row["bound"]]
        if not above:
            return "the bound says nothing: no trace between the first two images is positive"
        return (
            f"the bound (one pair of images, 95 %) lies {min(above):.0f} to {max(above):.0f} times "
            "above the error"
        )

    def _over_width(self, column: str, at: Row, width: int) -> float:
        return self.mean(COLUMNS[column], {**at, "width": width})[0]

    def plots(self, caption: str) -> list[Plot]:
        """One plot an idea; the first and the last epoch below each other."""
        last = f"epoch {self.epochs[-1]}"
        return [
            Plot(
                "error", "Relative error of the pseudo-NTK", caption,
                self._panels("error", "‖Θ − Θ̂⊗I‖ / ‖Θ‖"),
            ),
            Plot(
                "norms", "Relative difference of the kernels' norms", caption,
                self._panels("norms differ", "|‖Θ‖ − ‖Θ̂⊗I‖| / ‖Θ‖"),
            ),
            Plot(
                "spectrum", "Largest eigenvalue and condition number, pseudo against full",
                f"{caption} {last}.",
                [
                    self._panel(f"{name} differs", "relative difference", self.epochs[-1], name)
                    for name in ("λ_max", "condition")
                ],
            ),
            Plot(
                "regression", "Relative difference of the regressions' outputs", caption,
                self._panels("outputs differ", "relative difference"),
            ),
            Plot(
                "accuracy", "Accuracy of both regressions", f"{caption} {last}.",
                [
                    self._panel(f"accuracy {kind}", "accuracy", self.epochs[-1], kind, ylog=False)
                    for kind in ("pseudo", "full")
                ],
            ),
            Plot("drift", "How far training moves the full kernel", caption, [self._drift()]),
            Plot(
                "cost", "Time of the full kernel over time of the pseudo-NTK", caption,
                [self._panel("times faster", "times faster", self.epochs[0], "")],
            ),
        ]  # fmt: skip

    def _panels(self, column: str, label: str) -> list[Panel]:
        ends = (self.epochs[0], self.epochs[-1])
        return [self._panel(column, label, epoch, f"epoch {epoch}") for epoch in ends]

    def _panel(
        self, column: str, label: str, epoch: int, title: str, *, ylog: bool = True
    ) -> Panel:
        lines = {
            name: {
                float(width): self.mean(COLUMNS[column], {**at, "width": width})
                for width in self.widths[name]
            }
            for name, at in self._networks(epoch=epoch)
        }
        return Panel("width", label, _series(lines), xlog=True, ylog=ylog, title=title)

    def _drift(self) -> Panel:
        """Over epochs, at the largest width of each network."""
        lines = {
            name: {
                float(epoch): self.mean(
                    COLUMNS["drift"], {**at, "epoch": epoch, "width": self.widths[name][-1]}
                )
                for epoch in self.epochs
            }
            for name, at in self._networks()
        }
        return Panel("epoch", "‖K_t − K_0‖ / ‖K_0‖", _series(lines))

    def _networks(self, **at: Any) -> Iterator[tuple[str, Row]]:
        """Every network with its coordinates for the first kind."""
        for name in self.networks:
            yield name, {"network": name, "kind": self.kinds[0], **at}


def _series(lines: Mapping[str, Mapping[float, tuple[float, float]]]) -> list[Series]:
    """A line a network through (mean, standard error) over x; infinite means are left out."""
    series = []
    for name, points in lines.items():
        drawn = [(x, mean, error) for x, (mean, error) in points.items() if np.isfinite(mean)]
        if drawn:
            xs, means, errors = (list(values) for values in zip(*drawn, strict=True))
            series.append(Series(name.replace("_", " "), xs, means, errors))
    return series
