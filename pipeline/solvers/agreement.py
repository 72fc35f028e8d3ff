"""When a point computed on a growing basis counts: two successive sizes give the same predictions.

Predictions are compared on a few random sign combinations of the rows wanted, so that the test
costs nothing beside the basis; a combination's error is the typical row's.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pipeline.solvers.eigensystem import Eigensystem, filtered_chunks
from pipeline.solvers.operator import KernelOperator, float64_tiles, random_block

PROBE_ROWS = 32

Filters = Callable[[Float[Tensor, " s"]], Float[Tensor, "q s"]]
"""The filters of q points, as functions of the eigenvalues of any basis."""


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


def cross_probe(K_cross: Float[Tensor, "m n"], seed: int = 0) -> Float[Tensor, "d n"]:
    """Random sign combinations of a cross-kernel's rows."""
    generator = torch.Generator().manual_seed(seed)
    signs = torch.randint(0, 2, (PROBE_ROWS, K_cross.shape[0]), generator=generator) * 2.0 - 1.0
    signs = signs.double().to(K_cross.device)
    combined = K_cross.new_zeros((PROBE_ROWS, K_cross.shape[1]), dtype=torch.float64)
    for rows, tile in float64_tiles(K_cross):
        combined.addmm_(signs[:, rows], tile)
    return combined


def train_probe(operator: KernelOperator, seed: int = 0) -> Float[Tensor, "d n"]:
    """Random sign combinations of K's own rows."""
    return operator.matvec(random_block(operator, PROBE_ROWS, seed)).T
