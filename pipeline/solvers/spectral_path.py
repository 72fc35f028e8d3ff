"""The path from one eigensystem: all ridges of a grid and all stopping times, then refined twice.

With ``lanczos`` the basis grows until the selection is settled: at two successive sizes the same
ridge is best and the same is selected, both agree to ``tol``, and so does every point of the plane
of stopping times. Ridges whose predictions still change are reported as not converged and do not
count. ``eigh`` is the exact twin.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from pipeline.solvers.agreement import Filters, Probe, ProbedSystem, agreeing
from pipeline.solvers.eigensystem import Eigensystem
from pipeline.solvers.filters import ridge_filter
from pipeline.solvers.grid import refined
from pipeline.solvers.judge import Scorer, SystemJudge
from pipeline.solvers.plane import PlaneRequest, StoppingPlane, stopping_plane
from pipeline.solvers.select import Grade, best_of, one_standard_error


@dataclass(frozen=True)
class Scored:
    """Ridges (absolute, descending) and how they scored."""

    ridges: list[float]
    grades: list[Grade]
    agreed: list[bool]

    def selected(self) -> int:
        """Index of the selected ridge; only agreeing ones count, if there are any."""
        counted = self.agreed if any(self.agreed) else None
        return one_standard_error(self.grades, counted)

    def standing(self) -> tuple[int, int]:
        """Best and selected index were every point to count."""
        best = best_of([grade.value for grade in self.grades])
        return best, one_standard_error(self.grades)

    def merged(self, other: "Scored") -> "Scored":
        """Both sets of ridges, descending."""
        rows = [*self._rows(), *other._rows()]
        rows.sort(key=lambda row: -row[0])
        return Scored(*(list(column) for column in zip(*rows, strict=True)))

    def _rows(self) -> list[tuple[float, Grade, bool]]:
        return list(zip(self.ridges, self.grades, self.agreed, strict=True))


@dataclass(frozen=True)
class Stage:
    """One basis size: its system beside the previous one's, and everything scored on it."""

    steps: int
    previous: ProbedSystem | None
    current: ProbedSystem
    scorer: Scorer
    tol: float

    def score(self, ridges: Sequence[float]) -> Scored:
        """The ridges, scored and compared with the previous size."""
        if not ridges:
            return Scored([], [], [])
        filters = ridge_filters(ridges)
        grades = self.scorer(ridges, filters(self.current.system.eigenvalues))
        agreed = agreeing(self.previous, self.current, filters, self.tol).tolist()
        return Scored(list(ridges), grades, agreed)

    def plane_agrees(self, request: PlaneRequest, ridges: Sequence[float]) -> bool:
        """Whether every stopping time of every ridge is the previous size's."""
        agreed = agreeing(self.previous, self.current, request.filters(ridges), self.tol)
        return bool(agreed.all())


@dataclass(frozen=True)
class SpectralPath:
    """The scored ridges, the selected one, and the system that gave them."""

    scored: Scored
    system: Eigensystem
    steps: int
    plane: StoppingPlane | None


def spectral_path(
    systems: Iterable[tuple[int, Eigensystem]],
    probe: Probe,
    judge: SystemJudge,
    ridges: Sequence[float],
    *,
    unit: float,
    tol: float,
    request: PlaneRequest | None,
    refinements: int,
) -> SpectralPath:
    """All ridges (absolute, descending) and the plane asked for, scored by ``judge``."""
    stage, scored = _settled(systems, probe, judge, ridges, tol, request)
    plane = None
    if request is not None:
        pair = (stage.previous, stage.current)
        plane = stopping_plane(request, pair, stage.scorer, ridges, unit, tol)
    for _ in range(refinements):
        extra = refined(scored.ridges, scored.selected())
        scored = scored.merged(stage.score(extra))
    return SpectralPath(scored, stage.current.system, stage.steps, plane)


def ridge_filters(ridges: Sequence[float]) -> Filters:
    """Filters of the ridge solutions, one row a ridge."""
    return lambda eigenvalues: torch.stack([ridge_filter(eigenvalues, r) for r in ridges])


def _settled(
    systems: Iterable[tuple[int, Eigensystem]],
    probe: Probe,
    judge: SystemJudge,
    ridges: Sequence[float],
    tol: float,
    request: PlaneRequest | None,
) -> tuple[Stage, Scored]:
    """The first system on which the selection stands, or the last there is."""
    found: tuple[Stage, Scored] | None = None
    for steps, system in systems:
        previous, before = (found[0].current, found[1]) if found else (None, None)
        current = ProbedSystem(system, probe(system))
        stage = Stage(steps, previous, current, judge(system), tol)
        scored = stage.score(ridges)
        found = (stage, scored)
        if system.exact:
            break
        if not _stands(before, scored):
            continue
        if request is None or stage.plane_agrees(request, ridges):
            break
    assert found is not None, "there is always one system"
    return found


def _stands(before: Scored | None, now: Scored) -> bool:
    """Whether best and selected ridge are the previous size's, and both agree with it."""
    if before is None:
        return False
    best, selected = now.standing()
    return (best, selected) == before.standing() and now.agreed[best] and now.agreed[selected]
