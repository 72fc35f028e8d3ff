"""Gaussian processes with an RBF kernel, on inputs or on learned features, for comparison.

Hyperparameters come from a source task and are kept (transfer), or from every task by itself
(independent). On features they are learned together with the kernel: deep kernel transfer
(Patacchiola et al. 2019).
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.gp.exact_fit import ExactFit, fit_exact
from pipeline.gp.predictive import Predictive
from pipeline.types import MissingExtraError

try:
    import gpytorch
except ImportError:
    raise MissingExtraError("gpytorch", "gp", "an RBF process") from None


class RadialGP(gpytorch.models.ExactGP):
    """s·RBF(φ(x), φ(x′)) with a constant mean, in float64."""

    def __init__(
        self,
        x: Float[Tensor, "n d"],
        y: Float[Tensor, " n"],
        features: nn.Module | None = None,
    ) -> None:
        super().__init__(x.double(), y.double(), gpytorch.likelihoods.GaussianLikelihood())
        self.mean_module = gpytorch.means.ConstantMean()
        self.covar_module = gpytorch.kernels.ScaleKernel(gpytorch.kernels.RBFKernel())
        self.features = features or nn.Identity()
        self.double()

    def forward(self, x: Tensor) -> Any:
        """The prior at some inputs."""
        inner = self.features(x)
        return gpytorch.distributions.MultivariateNormal(
            self.mean_module(inner), self.covar_module(inner)
        )

    def fit(self) -> ExactFit:
        """Learn the hyperparameters, and the features if there are any."""
        return fit_exact(self)

    def conditioned(self, x: Float[Tensor, "n d"], y: Float[Tensor, " n"]) -> "RadialGP":
        """The same hyperparameters on another task's data."""
        other = RadialGP(x, y, None if isinstance(self.features, nn.Identity) else self.features)
        other.load_state_dict(self.state_dict())
        return other.eval()

    def predict(self, x: Float[Tensor, "m d"]) -> Predictive:
        """f at new inputs."""
        self.eval()
        with torch.no_grad():
            found = self(x.double())
            noise = self.likelihood.noise.item()
            return Predictive(found.mean[:, None], found.variance[:, None], noise)
