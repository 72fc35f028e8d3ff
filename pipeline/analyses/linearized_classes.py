"""A classifier beside its linearizations, on the same held-out samples.

| method | probabilities |
|---|---|
| ``network`` | the network's own |
| ``finite_ntk`` | Laplace, mean 0, all outputs sharing one θ′ |
| ``linearized`` | Laplace around the network's linearization, prior N(0, sI) of the weights |
| ``network_gp`` | Laplace around the network's function |
| ``variational`` | mean-field q(θ′), mean 0 |

Outputscales maximize Laplace's evidence; probabilities are means over draws of the logits.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pipeline.analyses.methods import refuse_unknown_methods
from pipeline.gp.categorical import one_hot
from pipeline.gp.class_probabilities import class_probabilities
from pipeline.gp.classification import LogitPosterior, best_outputscale, logit_moments
from pipeline.gp.laplace import laplace
from pipeline.gp.linearization import Linearization, LinearRows
from pipeline.gp.variational import VariationalFit, VariationalOptions
from pipeline.metrics import classification_metrics
from pipeline.types import InputError

MEANS = {
    "finite_ntk": "zero",
    "linearized": "linearized",
    "network_gp": "network",
}

METHODS = ("network", *MEANS, "variational")

DRAWS = 500
"""Of the logits, for probabilities."""

BATCH = 32
"""Samples whose logits' covariance is formed at once."""


@dataclass(frozen=True)
class Split:
    """Images and classes."""

    x: Float[Tensor, "n *image"]
    labels: Int[Tensor, " n"]


@dataclass(frozen=True)
class Jacobian:
    """J of some samples with every mean function: they differ in their offsets only."""

    rows: Float[Tensor, "n*k p"]
    offsets: dict[str, Float[Tensor, "n k"]]

    @classmethod
    def of(cls, module: nn.Module, sketch: Any, x: Float[Tensor, "n *image"]) -> Self:
        """From an element sketch of the network's parameters."""
        found = Linearization(module, sketch, mean="network")(x)
        theta = torch.cat([p.detach().flatten() for p in module.parameters()]).double()
        kept = theta[sketch.indices] / sketch.column_weights
        moved = (found.rows.double() @ kept).reshape(found.offsets.shape)
        offsets = {
            "zero": torch.zeros_like(found.offsets),
            "linearized": found.offsets - moved,
            "network": found.offsets,
        }
        return cls(found.rows, offsets)

    def around(self, mean: str) -> LinearRows:
        """J and μ."""
        return LinearRows(self.rows, self.offsets[mean])


def linearized_rows(
    module: nn.Module,
    sketch: Any,
    train: Split,
    test: Split,
    methods: Sequence[str] = METHODS,
    *,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """One row a method: accuracy, NLL and ECE on the held-out samples.

    ``variational`` uses the outputscale of ``finite_ntk``, which must be among the methods.
    """
    refuse_unknown_methods(methods, METHODS)
    if "variational" in methods and "finite_ntk" not in methods:
        raise InputError("variational takes the outputscale of finite_ntk: name both.")
    J, J_test = (Jacobian.of(module, sketch, split.x) for split in (train, test))
    Y = one_hot(train.labels, J.offsets["network"].shape[1])
    scales: dict[str, float] = {}
    rows = []
    for method in methods:
        converged = True
        if method == "network":
            p = J_test.offsets["network"].softmax(1)
        elif method == "variational":
            found = J.around("zero")
            fit = VariationalFit.of(
                found.rows, found.offsets, Y, scales["finite_ntk"], VariationalOptions(seed=seed)
            )
            p, converged = _drawn(fit.posterior, J_test.around("zero"), seed), fit.converged
        else:
            found = J.around(MEANS[method])
            scales[method] = best_outputscale(found, Y)
            posterior = laplace(found.rows, found.offsets, Y, scales[method])
            p = _drawn(posterior, J_test.around(MEANS[method]), seed)
            converged = posterior.search.converged
        rows.append({"method": method, **_scores(p, test.labels), "converged": converged})
    return rows


def _drawn(posterior: LogitPosterior, test: LinearRows, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    k = test.offsets.shape[1]
    parts = []
    for offsets, rows in zip(test.offsets.split(BATCH), test.rows.split(BATCH * k), strict=True):
        moments = logit_moments(posterior, LinearRows(rows, offsets))
        parts.append(class_probabilities(*moments, generator=generator, draws=DRAWS))
    return torch.cat(parts)


def _scores(p: Float[Tensor, "m k"], labels: Tensor) -> dict[str, float]:
    log_p = p.clamp(min=torch.finfo(torch.float64).tiny).log().cpu().numpy()
    found = classification_metrics(log_p, labels.numpy(), 1.0)
    return {
        "accuracy, %": 100 * found["accuracy"],
        "stderr": 100 * found["stderr"],
        "NLL": found["nll"],
        "ECE": found["ece"],
    }
