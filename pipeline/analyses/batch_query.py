"""Batches of queries that do not ask the same thing twice, without reading a label.

Candidates are chosen one after the other, each supposed to get its most likely label. What one
would teach is then known when the next is chosen: with e = y − f(x) and the kernel C given all that
is labelled or supposed (:mod:`pipeline.analyses.lookahead`),

    f ← f + C(·, x) (C(x, x) + λI)⁻¹ e,   C ← C − C(·, x) (C(x, x) + λI)⁻¹ C(x, ·)

a downdate of the candidates' columns, so that a batch costs little more than its first query.
"""

from collections.abc import Sequence

import torch

from pipeline.analyses.lookahead import LookAhead, Strategy, gain_of, rows_of, scores_of
from pipeline.types import InputError


def query_batch(
    state: LookAhead,
    candidates: Sequence[int],
    size: int,
    strategy: Strategy = "mlmoc",
    temperature: float = 1.0,
) -> list[int]:
    """``size`` of the candidates, the most telling first; the changes of all are held at once."""
    if not 1 <= size <= len(candidates):
        raise InputError(f"a batch holds 1 … {len(candidates)} of the candidates, found {size}.")
    samples = torch.as_tensor(list(candidates))
    state.refuse_labelled(samples)
    q, k = state.kernel.rows_per_sample, state.base.shape[1]
    rows, outputs = rows_of(samples, q), state.outputs()
    C = state.conditional(samples)
    unmoved = torch.zeros(len(C), k // q, dtype=torch.float64)
    left, chosen = torch.ones(len(samples), dtype=torch.bool), list[int]()
    while len(chosen) < size:
        gain, now = gain_of(C, rows, q, state.ridge), outputs[samples]
        scores = scores_of(gain, now, now / temperature, unmoved, strategy)
        best = int(scores.where(left, torch.tensor(-torch.inf)).argmax())
        chosen.append(int(samples[best]))
        left[best] = False
        error = torch.nn.functional.one_hot(now[best].argmax(), k).double() - now[best]
        outputs = outputs + (gain[:, best] @ error.reshape(q, -1)).reshape(outputs.shape)
        C = C - gain[:, best] @ C[rows[best * q : (best + 1) * q]]
    return chosen
