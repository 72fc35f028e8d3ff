from types import SimpleNamespace

import pytest
import torch
from torch import nn

from pipeline.models.network import (
    as_network,
    check_forward,
    copied,
    last_linear,
    state_digest,
)
from pipeline.types import InputError


def two_layers(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))


def test_a_network_is_in_eval_mode_and_float32_whatever_it_was_before():
    network = as_network(nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2)).double().train())
    assert not any(module.training for module in network.module.modules())
    assert {p.dtype for p in network.module.parameters()} == {torch.float32}
    assert (network.head, network.width, network.outputs) == ("1", 3, 2)


def test_the_digest_depends_on_every_byte_name_and_shape():
    module = two_layers()
    before = state_digest(module)
    assert before == state_digest(two_layers())
    with torch.no_grad():
        module[2].bias[1] += 1e-7
    assert state_digest(module) != before
    renamed = nn.Sequential(nn.Tanh(), nn.Linear(3, 5), nn.Linear(5, 2))
    renamed[1].load_state_dict(two_layers()[0].state_dict())
    renamed[2].load_state_dict(two_layers()[2].state_dict())
    assert state_digest(renamed) != before


def test_the_digest_sees_buffers_and_scalar_entries():
    module = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2))
    before = state_digest(module)
    module[0].num_batches_tracked += 1
    assert state_digest(module) != before


def test_a_copy_may_be_changed_without_touching_the_first():
    network = as_network(two_layers(), notes=("note",))
    other = copied(network)
    with torch.no_grad():
        other.head_module.weight.zero_()
    assert network.head_module.weight.abs().sum() > 0
    assert other.notes == ("note",)


def test_the_last_registered_linear_layer_is_the_head_by_default():
    assert last_linear(two_layers()) == "2"
    with pytest.raises(InputError, match=r"needs a final nn\.Linear"):
        last_linear(nn.Sequential(nn.Conv2d(1, 1, 1)))
    with pytest.raises(InputError, match=r"needs a final nn\.Linear"):
        last_linear(nn.Linear(2, 2))


def test_a_head_that_is_no_linear_layer_is_refused_with_the_linear_layers():
    with pytest.raises(InputError, match=r"'1' is no nn.Linear .* 0, 2"):
        as_network(two_layers(), "1")


def test_nan_weights_are_refused_by_name():
    module = two_layers()
    with torch.no_grad():
        module[2].weight[0, 0] = torch.nan
    with pytest.raises(InputError, match=r"2\.weight"):
        as_network(module)


def test_parameters_without_shape_are_refused_by_name():
    with pytest.raises(InputError, match=r"0\.weight .* no shape yet"):
        as_network(nn.Sequential(nn.LazyLinear(3), nn.Linear(3, 1)))


def test_the_provenance_is_plain_json_and_changes_with_the_weights():
    first = as_network(two_layers(0), architecture={"kind": "mine"}).provenance()
    second = as_network(two_layers(1), architecture={"kind": "mine"}).provenance()
    assert first["architecture"] == {"kind": "mine"}
    assert first["head"] == "2"
    assert first["state"] != second["state"]


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 3)

    def forward(self, x):
        return self.fc(self.fc(x))


class Unpooled(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 2)

    def forward(self, x):
        return self.fc(x)


class Keyword(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 2)

    def forward(self, *, values):
        return self.fc(values)


class Answering(nn.Module):
    """Scores every position, and returns what ``answer`` makes of the scores."""

    def __init__(self, answer):
        super().__init__()
        self.fc, self.answer = nn.Linear(3, 2), answer

    def forward(self, x):
        return self.answer(self.fc(x))


def test_logits_may_lie_in_an_object_or_a_tuple():
    for answer in (lambda y: (y, None), lambda y: SimpleNamespace(logits=y)):
        check_forward(as_network(Answering(answer)), torch.ones(2, 3))


def test_scores_of_one_position_pass_where_pooling_is_not_asked_for():
    network = as_network(Answering(lambda y: y[:, -1]))
    check_forward(network, torch.randn(2, 4, 3), pooled=False)
    with pytest.raises(InputError, match="Pool the positions"):
        check_forward(network, torch.randn(2, 4, 3))


def test_scores_that_are_not_finite_are_not_taken_for_other_numbers():
    check_forward(as_network(two_layers()), torch.full((1, 3), torch.nan))


def test_a_network_whose_output_is_its_heads_passes_the_check():
    check_forward(as_network(two_layers()), torch.ones(2, 3))
    check_forward(as_network(Keyword()), {"values": torch.ones(2, 3)})


@pytest.mark.parametrize(
    ("module", "inputs", "message"),
    [
        (nn.Sequential(nn.Linear(3, 2), nn.Softmax(dim=1)), torch.ones(2, 3), "raw logits"),
        (Twice(), torch.ones(2, 3), "ran 2 times"),
        (Unpooled(), torch.ones(2, 4, 3), r"given \(2, 4, 3\)"),
        (Answering(lambda y: {"scores": y}), torch.ones(2, 3), "returns a dict; expected"),
        (Answering(lambda y: y.sum(1)), torch.ones(2, 3), r"\(2, 2\): it returns \(2,\)"),
        (Answering(lambda y: 2 * y), torch.ones(2, 3), "it returns other numbers"),
        (two_layers(), torch.ones(2, 4), r"does not run on a batch \(2, 4\): mat1 and mat2"),
        (Keyword(), {"x": torch.ones(2, 3)}, r"does not run on x \(2, 3\): .*'x'"),
    ],
)
def test_a_head_that_is_not_the_end_is_refused(module, inputs, message):
    with pytest.raises(InputError, match=message):
        check_forward(as_network(module), inputs)


def test_a_network_that_checks_its_image_size_itself_is_refused_with_its_words():
    class Sized(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(3, 2)

        def forward(self, x):
            if x.shape[-1] != 16:
                raise ValueError("expected images of 16 pixels")
            return self.head(x.mean((2, 3)))

    with pytest.raises(InputError, match=r"does not run on a batch .* expected images of 16"):
        check_forward(as_network(Sized()), torch.zeros(2, 3, 32, 32))
