"""When a point computed on a growing basis counts: two successive sizes give the same predictions.

Predictions are compared on a few random sign combinations of the rows wanted, so that the test
costs nothing beside the basis; a combination's error is the typical row's.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pipeline.solvers.cross import ProbeRows
from pipeline.solvers.eigensystem import CrossRows, Eigensystem, filtered_chunks
from pipeline.solvers.operator import KernelOperator, random_block

PROBE_ROWS = 32

Filters = Callable[[Float[Tensor, " s"]], Float[Tensor, "q s"]]
"""The filters of q points, as functions of the eigenvalues of any basis."""

Probe = Callable[[Eigensystem], Float[Tensor, "d s"]]
"""The combinations of rows, in the coordinates of a growing series of systems."""


@dataclass(frozen=True)
class ProbedSystem:
    """An eigensystem and the probe rows in its coordinates."""

    system: Eigensystem
    probe: Float[Tensor, "d s"]


def agreeing(
    previous: ProbedSystem | None, current: ProbedSystem, filters: Filters, tol: float
) -> Bool[Tensor, " q"]:
    """For each point, whether both systems predict alike: ‖f − f′‖ ≤ tol ‖f‖ on the probe."""
    wanted = filters(current.system.eigenvalues)
    if current.system.exact:
        return torch.ones(len(wanted), dtype=torch.bool, device=wanted.device)
    if previous is None:
        return torch.zeros(len(wanted), dtype=torch.bool, device=wanted.device)
    old = filtered_chunks(
        previous.probe, filters(previous.system.eigenvalues), previous.system.coordinates
    )
    new = filtered_chunks(current.probe, wanted, current.system.coordinates)
    agreed = []
    for before, now in zip(old, new, strict=True):
        change = (now - before).flatten(1).norm(dim=1)
        agreed.append(change <= tol * now.flatten(1).norm(dim=1))
    return torch.cat(agreed)


def cross_probe(rows: CrossRows, seed: int = 0) -> Probe:
    """Random sign combinations of a cross-kernel's rows."""
    generator = torch.Generator().manual_seed(seed)
    signs = torch.randint(0, 2, (PROBE_ROWS, rows.m), generator=generator).double() * 2 - 1
    return lambda system: rows.on(system, signs)


def train_probe(operator: KernelOperator, seed: int = 0) -> Probe:
    """Random sign combinations of K's own rows."""
    return CrossRows(ProbeRows(operator, random_block(operator, PROBE_ROWS, seed))).on
