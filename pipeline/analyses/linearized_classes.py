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
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pipeline.gp.classification import LinearizedClassifier
from pipeline.gp.laplace import Laplace
from pipeline.gp.linearization import Linearization, Mean
from pipeline.gp.variational import VariationalOptions, variational_classifier
from pipeline.metrics import classification_metrics
from pipeline.types import InputError

MEANS: dict[str, Mean] = {
    "finite_ntk": "zero",
    "linearized": "linearized",
    "network_gp": "network",
}

METHODS = ("network", *MEANS, "variational")

DRAWS = 500
"""Of the logits, for probabilities."""


@dataclass(frozen=True)
class Split:
    """Images and classes."""

    x: Float[Tensor, "n *image"]
    labels: Int[Tensor, " n"]


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
    unknown = sorted(set(methods) - set(METHODS))
    if unknown:
        raise InputError(f"unknown methods {', '.join(unknown)}; known are {', '.join(METHODS)}.")
    if "variational" in methods and "finite_ntk" not in methods:
        raise InputError("variational takes the outputscale of finite_ntk: name both.")
    rows, scale = [], 0.0
    for method in methods:
        converged = True
        if method == "network":
            p = _softmax(module, test.x)
        elif method == "variational":
            found, fit = variational_classifier(
                Linearization(module, sketch), train.x, train.labels, outputscale=scale,
                options=VariationalOptions(seed=seed),
            )  # fmt: skip
            p, converged = _drawn(found, test.x, seed), fit.converged
        else:
            linearization = Linearization(module, sketch, mean=MEANS[method])
            found = LinearizedClassifier.of(linearization, train.x, train.labels)
            p, converged = _drawn(found, test.x, seed), found.converged
            if method == "finite_ntk":
                assert isinstance(found.posterior, Laplace), "the fit is Laplace's"
                scale = found.posterior.outputscale
        rows.append({"method": method, **_scores(p, test.labels), "converged": converged})
    return rows


def _softmax(module: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.cat([module(part).double().softmax(1) for part in x.split(256)])


def _drawn(classifier: LinearizedClassifier, x: Tensor, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return classifier.probabilities(x, generator=generator, draws=DRAWS, allow_unconverged=True)


def _scores(p: Float[Tensor, "m k"], labels: Tensor) -> dict[str, float]:
    log_p = p.clamp(min=torch.finfo(torch.float64).tiny).log().cpu().numpy()
    found = classification_metrics(log_p, labels.numpy(), 1.0)
    return {
        "accuracy, %": 100 * found["accuracy"],
        "stderr": 100 * found["stderr"],
        "NLL": found["nll"],
        "ECE": found["ece"],
    }
