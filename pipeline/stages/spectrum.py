"""K's spectrum and the effective dimension over the ridges that were tried, for the report."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.artefact import digest, read_json, write_json
from pipeline.solvers.auto import EIGH_ROWS
from pipeline.solvers.operator import DenseKernel, SharedKernel
from pipeline.solvers.ridge_scale import ridge_unit
from pipeline.solvers.spectrum import Spectrum, exact_spectrum, spectrum_of
from pipeline.stages.fit import CONVERGED
from pipeline.stages.job import Job, stage_provenance
from pipeline.stages.road import KernelRoad
from pipeline.stages.stage import run_stage
from pipeline.stages.views import KernelView

RANKS = 200
"""Eigenvalues that are kept, at ranks spaced evenly in logarithm."""


def draw_spectrum(job: Job, road: KernelRoad) -> None:
    """Write ``spectrum/spectrum.json`` unless it is there."""
    fit = job.folder.fit(CONVERGED)
    provenance = stage_provenance("spectrum", fit=digest(read_json(fit / "provenance.json")))

    def make(folder: Path) -> Mapping[str, Any]:
        path = read_json(fit / "fit.json")["ridge_path"]
        ridges = sorted(point["ridge"] for point in path)
        scale = job.config.solver.ridge_scale
        write_json(folder / "spectrum.json", road.run(measured_spectrum, ridges, scale))
        return road.take_work()

    run_stage(job.folder, "spectrum", job.folder.spectrum, provenance, make)


def measured_spectrum(view: KernelView, ridges: list[float], ridge_scale: Any) -> dict[str, Any]:
    """Eigenvalues by rank, and tr K(K + ridge·I)⁻¹ at every ridge, in the config's unit."""
    operator = view.operator()
    spectrum = _spectrum(operator)
    unit = ridge_unit(operator, ridge_scale, spectrum.lambda_max)
    dimensions = [spectrum.effective_dimension(ridge * unit) for ridge in ridges]
    ranks, eigenvalues = eigenvalues_by_rank(spectrum)
    return {
        "exact": spectrum.exact,
        "n": operator.n,
        "unit": unit,
        "ranks": ranks,
        "eigenvalues": eigenvalues,
        "ridges": ridges,
        "effective_dimension": [value for value, _ in dimensions],
        "effective_dimension_stderr": [stderr for _, stderr in dimensions],
    }


def eigenvalues_by_rank(spectrum: Spectrum, most: int = RANKS) -> tuple[list[float], list[float]]:
    """(rank, eigenvalue) pairs, largest first, at most so many.

    An estimated spectrum has a quadrature node for a cluster of eigenvalues; it stands at the
    middle of the ranks that its weight covers.
    """
    nodes = spectrum.nodes.flip(0)
    weights = spectrum.weights.mean(dim=1).flip(0)
    ranks = weights.cumsum(0) - weights / 2 + 0.5
    spaced = np.geomspace(1, len(nodes), min(most, len(nodes))).round().astype(int) - 1
    kept = torch.from_numpy(np.unique(spaced))
    return ranks[kept].tolist(), nodes[kept].tolist()


def _spectrum(operator: SharedKernel) -> Spectrum:
    if isinstance(operator, DenseKernel) and operator.n <= EIGH_ROWS["cpu"]:
        return exact_spectrum(torch.linalg.eigvalsh(operator.K.double()))
    return spectrum_of(operator)
