"""How the ridges of an eigensystem are scored: on validation rows, left out in turn, or by GCV."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.solvers.cross_validation import leave_one_out_predictions, spectral_gcv
from pipeline.solvers.eigensystem import CrossRows, Eigensystem, filtered_chunks
from pipeline.solvers.select import Grade, Score
from pipeline.solvers.spectrum import Spectrum

Scorer = Callable[[Sequence[float], Float[Tensor, "q s"]], list[Grade]]
"""Grades ridges (absolute) by their filters.

The filters' dtype is the precision of the predictions: a plane's thousand points are scored in
float32 where ``tol`` is no finer, for half the time."""

SystemJudge = Callable[[Eigensystem], Scorer]


def validation_judge(rows: CrossRows, score: Score) -> SystemJudge:
    """Scores of the predictions on validation rows."""

    def judge(system: Eigensystem) -> Scorer:
        projected = rows.on(system)

        def scorer(ridges: Sequence[float], filters: Tensor) -> list[Grade]:
            chunks = filtered_chunks(projected.to(filters), filters, system.coordinates)
            return [score(predictions) for chunk in chunks for predictions in chunk]

        return scorer

    return judge


def leave_one_out_judge(Y: Float[Tensor, "n k"], score: Score) -> SystemJudge:
    """Scores of the leave-one-out predictions of the training rows; exact systems only."""

    def judge(system: Eigensystem) -> Scorer:
        return lambda ridges, filters: [
            score(leave_one_out_predictions(system, Y, row)) for row in filters
        ]

    return judge


def gcv_judge(spectrum: Spectrum, n: int) -> SystemJudge:
    """Minus the GCV; a ridge that leaves nothing free scores minus infinity."""

    def judge(system: Eigensystem) -> Scorer:
        def scorer(ridges: Sequence[float], filters: Tensor) -> list[Grade]:
            risks = spectral_gcv(system, spectrum, ridges, filters, n)
            return [gcv_grade(risk) for risk in risks]

        return scorer

    return judge


def gcv_grade(risk: float | None) -> Grade:
    """Minus the risk, of which there is one number and no spread."""
    return Grade(torch.tensor([-float("inf") if risk is None else -risk], dtype=torch.float64))
