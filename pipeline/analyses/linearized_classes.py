"""A classifier beside its linearizations, on the same held-out samples.

| method | probabilities |
|---|---|
| ``network`` | the network's own |
| ``finite_ntk`` | Laplace, mean 0, all outputs sharing one θ′ |
| ``linearized`` | Laplace around the network's linearization, prior N(0, sI) of the weights |
| ``network_gp`` | Laplace around the network's function |
| ``variational`` | mean-field q(θ′), mean 0, at the outputscale of ``finite_ntk`` |
| ``dirichlet`` | regression on Dirichlet labels, mean 0 |

Outputscales maximize the evidence; probabilities are means over draws of the logits. Laplace's own
are also had by the probit approximation (``finite_ntk_probit``) and at the MAP alone
(``finite_ntk_map``), around every mean.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pipeline.analyses.methods import refuse_unknown_methods
from pipeline.gp.categorical import one_hot
from pipeline.gp.class_probabilities import Rule, class_probabilities
from pipeline.gp.classification import LogitPosterior, best_outputscale, logit_moments
from pipeline.gp.dirichlet import dirichlet_posterior
from pipeline.gp.laplace import Laplace, laplace
from pipeline.gp.linearization import Linearization, LinearRows
from pipeline.gp.variational import VariationalFit, VariationalOptions
from pipeline.metrics import classification_metrics

MEANS = {
    "finite_ntk": "zero",
    "linearized": "linearized",
    "network_gp": "network",
}

RULES: dict[str, Rule] = {"": "monte_carlo", "_probit": "probit", "_map": "map"}
"""How probabilities come from Laplace's Gaussian, by the end of a method's name."""

RULED = {name + end: (name, rule) for name in MEANS for end, rule in RULES.items()}

METHODS = ("network", *RULED, "variational", "dirichlet")

DRAWS = 500
"""Of the logits, for probabilities."""

BATCH = 32
"""Samples whose logits' covariance is formed at once."""


@dataclass(frozen=True)
class Split:
    """Images and classes."""

    x: Float[Tensor, " n *image"]
    labels: Int[Tensor, " n"]


@dataclass(frozen=True)
class Jacobian:
    """J of some samples with every mean function: they differ in their offsets only."""

    rows: Float[Tensor, "n*k p"]
    offsets: dict[str, Float[Tensor, "n k"]]

    @classmethod
    def of(cls, module: nn.Module, sketch: Any, x: Float[Tensor, " n *image"]) -> Self:
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


@dataclass(frozen=True)
class Fitted:
    """A Gaussian over logits around one mean function, and how probabilities come from it."""

    mean: str
    posterior: LogitPosterior
    converged: bool
    rule: Rule = "monte_carlo"


class Fits:
    """Posteriors from training rows and one-hot labels, each mean function fitted once."""

    def __init__(self, J: Jacobian, Y: Float[Tensor, "n k"], seed: int) -> None:
        self.J, self.Y, self.seed = J, Y, seed
        self._laplace: dict[str, Laplace] = {}

    def of(self, method: str) -> Fitted:
        """The fit of one method."""
        if method == "dirichlet":
            return Fitted("zero", dirichlet_posterior(self.J.around("zero"), self.Y), True)
        if method == "variational":
            return self._variational()
        name, rule = RULED[method]
        posterior = self.laplace(MEANS[name])
        return Fitted(MEANS[name], posterior, posterior.search.converged, rule)

    def laplace(self, mean: str) -> Laplace:
        """At the outputscale of the largest evidence."""
        if mean not in self._laplace:
            found = self.J.around(mean)
            s = best_outputscale(found, self.Y)
            self._laplace[mean] = laplace(found.rows, found.offsets, self.Y, s)
        return self._laplace[mean]

    def _variational(self) -> Fitted:
        found, s = self.J.around("zero"), self.laplace("zero").outputscale
        options = VariationalOptions(seed=self.seed)
        fit = VariationalFit.of(found.rows, found.offsets, self.Y, s, options)
        return Fitted("zero", fit.posterior, fit.converged)


def linearized_rows(
    module: nn.Module,
    sketch: Any,
    train: Split,
    test: Split,
    methods: Sequence[str] = METHODS,
    *,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """One row a method: accuracy, NLL and ECE on the held-out samples."""
    refuse_unknown_methods(methods, METHODS)
    J, J_test = (Jacobian.of(module, sketch, split.x) for split in (train, test))
    fits = Fits(J, one_hot(train.labels, J.offsets["network"].shape[1]), seed)
    rows = []
    for method in methods:
        p, converged = J_test.offsets["network"].softmax(1), True
        if method != "network":
            fitted = fits.of(method)
            p, converged = _predicted(fitted, J_test, seed), fitted.converged
        rows.append({"method": method, **_scores(p, test.labels), "converged": converged})
    return rows


def _predicted(fitted: Fitted, J_test: Jacobian, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    test = J_test.around(fitted.mean)
    k = test.offsets.shape[1]
    parts = []
    for offsets, rows in zip(test.offsets.split(BATCH), test.rows.split(BATCH * k), strict=True):
        moments = logit_moments(fitted.posterior, LinearRows(rows, offsets))
        found = class_probabilities(*moments, fitted.rule, generator=generator, draws=DRAWS)
        parts.append(found)
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
