import pytest
import torch
from torch import Tensor, nn

from pipeline.jacobian.costs import sample_costs

# The training step's count: forward, backward to the inputs, products for the parameters.
PASSES = 3


@pytest.mark.parametrize(
    ("options", "size", "multiplications"),
    [
        # outputs (channels × height × width) × inputs that each one sums over
        ({"kernel_size": 3, "padding": 1}, (5, 7), 8 * 5 * 7 * 4 * 3 * 3),
        ({"kernel_size": 3, "stride": 2}, (9, 8), 8 * 4 * 3 * 4 * 3 * 3),
        ({"kernel_size": 1}, (5, 7), 8 * 5 * 7 * 4),
        ({"kernel_size": 3, "padding": 1, "groups": 4}, (5, 7), 8 * 5 * 7 * 1 * 3 * 3),
        ({"kernel_size": 3, "dilation": 2}, (7, 6), 8 * 3 * 2 * 4 * 3 * 3),
    ],
)
@pytest.mark.parametrize("n", [1, 3])
def test_a_convolution_costs_two_operations_a_multiplication(
    options: dict[str, int], size: tuple[int, int], multiplications: int, n: int
) -> None:
    costs = sample_costs(nn.Conv2d(4, 8, **options), torch.randn(n, 4, *size))
    assert costs.flops == PASSES * 2 * multiplications


def test_layers_add_up_and_tokens_multiply() -> None:
    model = nn.Sequential(nn.Linear(6, 10), nn.GELU(), nn.Linear(10, 3))
    costs = sample_costs(model, torch.randn(2, 5, 6))
    assert costs.flops == PASSES * 2 * 5 * (6 * 10 + 10 * 3)


def test_a_layer_used_twice_costs_twice() -> None:
    layer = nn.Linear(6, 6)
    once = sample_costs(nn.Sequential(layer), torch.randn(2, 6))
    twice = sample_costs(nn.Sequential(layer, layer), torch.randn(2, 6))
    assert twice.flops == 2 * once.flops
    assert twice.bytes == 2 * once.bytes


class Described(nn.Module):
    """Takes named inputs, as text networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(11, 6)
        self.head = nn.Linear(6, 2)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        weights = attention_mask / attention_mask.sum(1, keepdim=True)
        return self.head((self.table(input_ids) * weights[..., None]).sum(1))


def test_named_inputs_are_counted_per_sample() -> None:
    inputs = {"input_ids": torch.randint(0, 11, (3, 7)), "attention_mask": torch.ones(3, 7)}
    costs = sample_costs(Described(), inputs)
    assert costs.flops == PASSES * 2 * 6 * 2
    # Outputs of the table and of the head, four copies of float32 each.
    assert costs.bytes == 4 * 4 * (7 * 6 + 2)


def test_working_memory_follows_the_dtype_and_not_the_batch() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    single = sample_costs(model, torch.randn(1, 3, 6, 5))
    several = sample_costs(model, torch.randn(5, 3, 6, 5))
    double = sample_costs(model.double(), torch.randn(1, 3, 6, 5, dtype=torch.float64))
    # Two layers' outputs, four copies of float32 each.
    assert single.bytes == several.bytes == 4 * 4 * 2 * (4 * 4 * 3)
    assert double.bytes == 2 * single.bytes


def test_counting_leaves_the_network_as_it_was() -> None:
    model = nn.Sequential(nn.Linear(3, 2)).eval()
    sample_costs(model, torch.randn(2, 3))
    assert not any(module._forward_hooks for module in model.modules())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
