"""Adaptive Bayesian linear regression (Perrone et al. 2018): a linear model on learned features.

    y ~ N(φ_ψ(x) w, σ²),   w ~ N(0, s I)

ψ, s and σ² maximize the marginal likelihood of a source task; every target task then has its own s
and σ², with ψ as it is.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.gp.condition import condition
from pipeline.gp.evidence import Evidence
from pipeline.gp.hyperparameters import fit_hyperparameters
from pipeline.gp.predictive import Predictive


def learn_features(
    features: nn.Module,
    x: Float[Tensor, "n d"],
    y: Float[Tensor, " n"],
    *,
    steps: int = 2_000,
    learning_rate: float = 1e-3,
) -> float:
    """Fit ψ in place by Adam on the source's marginal likelihood; its last value, in nats."""
    log_s = torch.zeros((), dtype=torch.float64, requires_grad=True)
    log_noise = torch.tensor(-2.0, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([*features.parameters(), log_s, log_noise], lr=learning_rate)
    value = float("-inf")
    for _ in range(steps):
        phi = features(x).double()
        K = log_s.exp() * phi @ phi.T + log_noise.exp() * torch.eye(len(x), dtype=torch.float64)
        prior = torch.distributions.MultivariateNormal(torch.zeros(len(x)).double(), K)
        evidence = prior.log_prob(y.double())
        adam.zero_grad()
        (-evidence).backward()
        adam.step()
        value = float(evidence.detach())
    return value


def predict_tasks(
    features: nn.Module,
    tasks: Sequence[tuple[Float[Tensor, "n d"], Float[Tensor, " n"]]],
    queries: Sequence[Float[Tensor, "m d"]],
) -> list[Predictive]:
    """Every task's predictions at its queries, at its own likeliest s and σ²."""
    found = []
    with torch.no_grad():
        for (x, y), query in zip(tasks, queries, strict=True):
            rows, residuals = features(x).double(), y.double()[:, None]
            best = fit_hyperparameters([Evidence.of_rows(rows, residuals)])
            posterior = condition(rows, residuals, best.outputscale, best.noise[0])
            new = features(query).double()
            variance = posterior.variance(new).clamp(min=0)[:, None]
            found.append(Predictive(posterior.mean(new), variance, best.noise[0]))
    return found
