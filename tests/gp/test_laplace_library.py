"""The last Gauss–Newton step beside laplace-torch 0.3, whose values were recorded from

    la = FullLaplace(model, "classification", prior_precision=2.0, backend=CurvlinopsGGN)
    la.fit(DataLoader(TensorDataset(x, y), batch_size=8))
    la._glm_predictive_distribution(x_test)[1]

in float64. Its FunctionalLaplace (n_subset=8, independent_outputs=False) should be the same matrix
by Woodbury's identity, and gave others (1.084 for 1.423 in the first entry): its full form is the
one that the inverse Hessian confirms.
"""

import pytest
import torch
from torch import nn

from pipeline.gp.categorical import one_hot
from pipeline.gp.class_probabilities import sample_blocks
from pipeline.gp.laplace import FunctionSpaceLaplace, ParameterSpaceLaplace
from pipeline.gp.linearization import Linearization
from pipeline.gp.regression import LinearizedGP

RECORDED = [
    [1.422612102328081, 0.21861307934011015, 0.7702747548913604],
    [0.21861307934011015, 1.8943781338194021, 0.2512462515970098],
    [0.7702747548913607, 0.25124625159700986, 2.033709641498434],
]


FUNCTIONAL = [
    [0.08813702176981497, -0.01092133382588377, 0.014099799589652823],
    [-0.01092133382588377, 0.12272371058370535, -0.012128394773251738],
    [0.014099799589652823, -0.012128394773251738, 0.16325063392684624],
]
"""Of the regression at noise 0.25, its first test sample:
``FunctionalLaplace(model, "regression", n_subset=8, prior_precision=2.0, sigma_noise=0.5)``, fitted
as above, called with ``pred_type="gp"``."""


def drawn(*shapes):
    """The recorded network, and inputs of these shapes."""
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 3)).double().eval()

    def draw(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(draw(*parameter.shape))
    return model, *(draw(*shape) for shape in shapes)


@pytest.mark.parametrize("space", [FunctionSpaceLaplace, ParameterSpaceLaplace])
def test_covariances_at_the_networks_outputs_are_laplace_torchs(space):
    model, x, x_test = drawn((8, 2), (3, 2))
    linearization = Linearization(model, mean="network")
    found, Y = linearization(x), one_hot(torch.arange(8) % 3, 3)
    posterior = space.of(found.rows, found.offsets, Y, 0.5, max_iterations=0)
    blocks = sample_blocks(posterior.covariance(linearization.rows(x_test)), 3)
    wanted = torch.tensor(RECORDED, dtype=torch.float64)
    torch.testing.assert_close(blocks[0], wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("space", ["function", "parameter"])
def test_covariances_of_a_regression_are_those_of_its_functional_form(space):
    model, x, x_test, y = drawn((8, 2), (3, 2), (8, 3))
    linearization = Linearization(model, mean="network")
    gp = LinearizedGP.of(linearization, x, y, outputscale=0.5, noise=0.25, space=space)
    found = gp.predict(x_test, covariance=True).covariance
    wanted = torch.tensor(FUNCTIONAL, dtype=torch.float64)
    torch.testing.assert_close(found[:3, :3], wanted, rtol=1e-9, atol=1e-9)
