"""The fit stage: the converged eNTK machine and the early-stopped one, chosen on validation.

Selection reads the labels of the training and the selection split and no other. Predictions and
the curves over ridges and iterations, on every split, are made after the choice is on disk.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.artefact import digest, read_json, write_json
from pipeline.runs import RunFolder
from pipeline.solvers import KernelRidge
from pipeline.solvers.certificate import Certificate, certify
from pipeline.solvers.early_stopping import early_stopping
from pipeline.solvers.nesterov import nesterov_iterates
from pipeline.solvers.operator import DenseKernel, product
from pipeline.solvers.path_result import PathResult
from pipeline.solvers.ridge_path import fit_path
from pipeline.solvers.ridge_scale import ridge_unit
from pipeline.solvers.select import Score, accuracy, squared_error
from pipeline.solvers.solution import Solution
from pipeline.solvers.spectrum import Spectrum, spectrum_of
from pipeline.solvers.targets import CenteredTargets, centered_targets, class_targets
from pipeline.stages.job import Job, stage_provenance
from pipeline.stages.kernel import KernelBlocks
from pipeline.stages.stage import run_stage

logger = logging.getLogger(__name__)

CONVERGED = "entk"
STOPPED = "entk_early_stopping"

PLANE_SOLVERS = ("auto", "lanczos", "eigh")
"""Solvers that see every stopping time of every ridge at once."""


@dataclass(frozen=True)
class Fitted:
    """A fit on disk, as predictions and curves need it."""

    dual_weights: Tensor
    """float64 (n, k)"""
    mean: Tensor
    """Added back to predictions (k,)."""
    record: dict[str, Any]
    """``fit.json``"""

    @classmethod
    def open(cls, folder: RunFolder, method: str) -> "Fitted":
        """The finished fit of a method."""
        path = folder.fit(method)
        with np.load(path / "dual.npz") as arrays:
            dual, mean = torch.from_numpy(arrays["dual"]), torch.from_numpy(arrays["mean"])
        return cls(dual, mean, read_json(path / "fit.json"))

    def scores(self, K_cross: np.ndarray) -> np.ndarray:
        """Scores (m, k) in float64 from a cross-kernel (m, n)."""
        return (product(as_rows(K_cross), self.dual_weights) + self.mean).numpy()


def fit_entk(job: Job) -> None:
    """Fit both machines, each unless it is there."""
    blocks = KernelBlocks.open(job.folder.kernel)
    for method, make in ((CONVERGED, _fit_converged), (STOPPED, _fit_stopped)):
        provenance = fit_provenance(job, method)

        def fit(folder: Path, make: Any = make) -> Mapping[str, Any]:
            selected: Mapping[str, Any] = make(job, blocks, folder)
            return selected

        run_stage(job.folder, f"fit {method}", job.folder.fit(method), provenance, fit)


def fit_provenance(job: Job, method: str) -> Mapping[str, Any]:
    """What a fit depends on: K, the labels it may read, and the solver's options."""
    return stage_provenance(
        "fit",
        method=method,
        kernel=digest(read_json(job.folder.kernel / "provenance.json")),
        labels=job.labels_digest("train", job.config.selection),
        solver=job.config.solver.model_dump(mode="json"),
    )


def _fit_converged(job: Job, blocks: KernelBlocks, folder: Path) -> Mapping[str, Any]:
    """The ridge of the best validation score, solved to convergence."""
    targets = targets_of(job, "train")
    path = _path(job, blocks, targets, plane=False)
    dual, certificate, mean = path.dual_weights, path.certificate, targets.mean
    if job.config.refit:
        targets = targets_of(job, "train", job.config.selection)
        machine = KernelRidge(
            path.ridge, tol=job.config.solver.tol, ridge_scale=job.config.solver.ridge_scale
        ).fit(blocks.refit(), targets.matrix.numpy())
        assert isinstance(machine.certificate_, Certificate), "one ridge for all targets"
        certificate = machine.certificate_
        dual, mean = torch.from_numpy(machine.dual_coef_), targets.mean
    selected = {
        "ridge": path.ridge,
        "stopping": "converged",
        "iterations": certificate.iterations,
    }
    _write(folder, dual, mean, _record(job, path, selected, asdict(certificate)))
    _write_selection_dual(folder, path.dual_weights)
    return selected


def _fit_stopped(job: Job, blocks: KernelBlocks, folder: Path) -> Mapping[str, Any]:
    """The (ridge, stopping time) of the best validation score, by Nesterov's method."""
    targets = targets_of(job, "train")
    path = _path(job, blocks, targets, plane=job.config.solver.kind in PLANE_SOLVERS)
    if path.plane is not None:
        ridge, steps = path.plane.selected_ridge, path.plane.selected_iterations
        scored: dict[str, Any] = {"plane": asdict(path.plane)}
    else:
        ridge = path.ridge
        steps, scored = _stopping_time(job, blocks, targets, ridge)
    dual, certificate = _stopped(job, blocks.train(), targets, ridge, steps)
    _write_selection_dual(folder, dual)
    mean = targets.mean
    if job.config.refit:
        targets = targets_of(job, "train", job.config.selection)
        dual, certificate = _stopped(job, blocks.refit(), targets, ridge, steps)
        mean = targets.mean
    selected = {"ridge": ridge, "stopping": "early", "iterations": steps}
    _write(folder, dual, mean, {**_record(job, path, selected, certificate), **scored})
    return selected


def _path(job: Job, blocks: KernelBlocks, targets: CenteredTargets, *, plane: bool) -> PathResult:
    options = job.config.solver
    ridges = (options.ridge,) if isinstance(options.ridge, float) else options.ridge
    return fit_path(
        blocks.train(),
        targets.matrix,
        blocks.cross(job.config.selection),
        selection_score(job, targets),
        solver=options.kind,
        ridges=ridges,
        ridge_scale=options.ridge_scale,
        tol=options.tol,
        dynamics="nesterov" if plane else None,
        last_iteration=options.max_iterations,
    )


def _stopping_time(
    job: Job, blocks: KernelBlocks, targets: CenteredTargets, ridge: float
) -> tuple[int, dict[str, Any]]:
    """The iteration of one ridge that scores best, where the solver sees no plane."""
    options = job.config.solver
    found = early_stopping(
        blocks.train(),
        targets.matrix,
        ridge,
        blocks.cross(job.config.selection),
        selection_score(job, targets),
        max_iterations=options.max_iterations,
        solver="plain" if options.kind == "nesterov" else "auto",
        ridge_scale=options.ridge_scale,
        tol=options.tol,
    )
    return found.iteration, {"stopping": {"times": found.iterations, "scores": found.values}}


@dataclass(frozen=True)
class Descent:
    """Nesterov's method on one kernel at one ridge."""

    operator: DenseKernel
    spectrum: Spectrum
    ridge: float
    """Absolute."""

    @classmethod
    def of(cls, job: Job, K: np.ndarray, ridge: float) -> "Descent":
        """The method for a ridge in the config's unit."""
        operator = DenseKernel(as_rows(K))
        spectrum = spectrum_of(operator)
        unit = ridge_unit(operator, job.config.solver.ridge_scale, spectrum.lambda_max)
        return cls(operator, spectrum, ridge * unit)

    def iterates(
        self, targets: CenteredTargets, times: Sequence[int]
    ) -> Iterator[tuple[int, Tensor]]:
        """(t, α_t) at the times asked for."""
        largest = self.spectrum.lambda_max
        return nesterov_iterates(self.operator, targets.matrix, self.ridge, largest, times)


def _stopped(
    job: Job, K: np.ndarray, targets: CenteredTargets, ridge: float, steps: int
) -> tuple[Tensor, dict[str, Any]]:
    """Nesterov's iterate at a stopping time, and its certificate."""
    descent = Descent.of(job, K, ridge)
    [(_, alpha)] = descent.iterates(targets, [steps])
    found = certify(
        descent.operator,
        targets.matrix,
        descent.ridge,
        Solution(alpha, iterations=steps, converged=True),
        descent.spectrum,
        solver="nesterov",
        tol=job.config.solver.tol,
    )
    # It was stopped on purpose: its residual is a fact about it, not a failure.
    return alpha, {**asdict(found), "converged": None}


def targets_of(job: Job, *names: str) -> CenteredTargets:
    """Centred targets of some splits' rows, one under the other."""
    labels = np.concatenate([job.split(name).labels for name in names])
    if job.benchmark.classes:
        return class_targets(labels, len(job.benchmark.classes))
    return centered_targets(torch.from_numpy(labels.reshape(len(labels), -1)))


def selection_score(job: Job, targets: CenteredTargets) -> Score:
    """What is maximized on the selection split: the one place that reads its labels."""
    labels = job.split(job.config.selection).labels
    if job.benchmark.classes:
        return accuracy(labels, targets.mean)
    return squared_error(torch.from_numpy(labels.reshape(len(labels), -1)), targets.mean)


def as_rows(K: np.ndarray) -> Tensor:
    """A block of K as a tensor, memory-mapped where it is."""
    return torch.from_numpy(np.asarray(K))


def _record(
    job: Job, path: PathResult, selected: Mapping[str, Any], certificate: Mapping[str, Any]
) -> dict[str, Any]:
    notes = []
    if path.at_edge:
        notes.append("the best ridge lies at an edge of those tried")
    if certificate["converged"] is False:
        residual, tol = certificate["residual"], certificate["tol"]
        notes.append(f"not converged: residual {residual:.1e}, asked for {tol:.0e}")
    return {
        "selected": dict(selected),
        "certificate": dict(certificate),
        "solver": path.solver,
        "reason_for_solver": path.reason,
        "ridge_path": [
            {
                "ridge": point.ridge,
                job.config.selection: {
                    job.metric: point.value if job.benchmark.classes else -point.value,
                    "stderr": point.stderr,
                },
                "converged": point.converged,
                "gcv": point.gcv,
            }
            for point in path.points
        ],
        "notes": notes,
    }


def _write(folder: Path, dual: Tensor, mean: Tensor, record: Mapping[str, Any]) -> None:
    np.savez(folder / "dual.npz", dual=dual.numpy(), mean=mean.numpy())
    write_json(folder / "fit.json", record)


def _write_selection_dual(folder: Path, dual: Tensor) -> None:
    """Weights of the machine that has not seen the selection split: what is scored on it."""
    np.save(folder / "selection_dual.npy", dual.numpy())
