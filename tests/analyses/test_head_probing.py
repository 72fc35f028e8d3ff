import pytest
import torch
from small_kernels import one_hot
from small_networks import points, tanh_network
from torch import nn

from pipeline.analyses.full_kernel import power_law
from pipeline.analyses.head_probing import predicted_feature_change, start_of_tuning

N, H, K_OUT = 6, 4, 3


@pytest.fixture(params=["linear", "mlp"])
def parts(request):
    backbone = tanh_network(k=H)
    if request.param == "linear":
        head = nn.Linear(H, K_OUT).double()
    else:
        head = nn.Sequential(nn.Linear(H, 7), nn.Tanh(), nn.Linear(7, K_OUT)).double()
    return backbone, head.eval(), points(N), points(5, seed=2), one_hot(N, K_OUT)


def test_the_pull_is_minus_the_gradient_of_the_loss_in_the_features(parts):
    backbone, head, x, _, Y = parts
    z = backbone(x).detach().requires_grad_()
    loss = -(Y * head(z).log_softmax(1)).sum()
    (gradient,) = torch.autograd.grad(loss, z)
    found = start_of_tuning(head, z, Y)
    torch.testing.assert_close(found.pull, -gradient, rtol=1e-10, atol=1e-12)
    q = head(z).softmax(1)
    assert found.energy == pytest.approx(float((Y - q).norm(dim=1).mean().detach()))


def test_features_move_as_predicted_up_to_the_square_of_the_step(parts):
    backbone, head, x, watched, Y = parts
    pull = start_of_tuning(head, backbone(x), Y).pull
    step_sizes, errors = [1e-3, 1e-2, 1e-1], []
    before = backbone(watched).detach()
    loss = -(Y * head(backbone(x)).log_softmax(1)).sum(1).mean()
    gradients = torch.autograd.grad(loss, list(backbone.parameters()))
    start = [p.detach().clone() for p in backbone.parameters()]
    for step in step_sizes:
        predicted = predicted_feature_change(backbone, watched, x, pull, step)
        for p, s, g in zip(backbone.parameters(), start, gradients, strict=True):
            p.data = s - step * g
        errors.append(float((backbone(watched) - before - predicted).norm().detach()))
        for p, s in zip(backbone.parameters(), start, strict=True):
            p.data = s
    assert power_law(step_sizes, errors).exponent == pytest.approx(2, abs=0.05)


def test_a_head_that_knows_the_classes_has_less_energy_and_pulls_towards_them():
    z = torch.eye(2).double().repeat_interleave(4, dim=0) + 0.05 * points(8, 2)
    Y = torch.eye(2).double().repeat_interleave(4, dim=0)
    good, bad = nn.Linear(2, 2).double(), nn.Linear(2, 2).double()
    with torch.no_grad():
        for head, weight in ((good, 5 * torch.eye(2)), (bad, -torch.eye(2))):
            head.weight.copy_(weight)
            head.bias.zero_()
    assert start_of_tuning(good, z, Y).energy < start_of_tuning(bad, z, Y).energy
    assert start_of_tuning(good, z, Y).direction > 0.9
    assert start_of_tuning(bad, z, Y).direction < -0.9
