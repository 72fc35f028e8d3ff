import torch
from torch import nn

from pipeline.analyses.adaptation_curve import Descent, train_from_starts


def line(start):
    """A network whose first start is dead: no gradient reaches its weights."""
    network = nn.Sequential(nn.Linear(1, 8), nn.ReLU(), nn.Linear(8, 1))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(0.3)
        if start == 0:
            network[0].bias.fill_(-100)
    return network


def test_a_network_that_stays_at_the_mean_starts_again():
    x = torch.linspace(-1, 1, 40)[:, None]
    y = 2 * x[:, 0]
    descent = Descent(0.05, 100, 10)
    carried = train_from_starts(line, x, y, descent)
    assert carried.start == 1
    assert carried.noise < 0.5 * float(y.var())


def test_the_best_of_starts_that_learn_nothing_is_kept():
    x = torch.linspace(-1, 1, 40)[:, None]
    carried = train_from_starts(lambda start: line(0), x, 2 * x[:, 0], Descent(0.05, 2, 10))
    assert carried.start == 0


def test_a_larger_budget_stretches_the_schedule():
    stretched = Descent(1e-3, 500, 200, decay_every=100).stretched(6)
    assert (stretched.epochs, stretched.decay_every) == (3_000, 600)
