import copy
import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from jacobian_helpers import Indices, kept_share, noise, relative_error
from reference import autograd_jacobian
from torch import Tensor, nn

from pipeline.jacobian import FeatureExtractor, NonFiniteSamplesError, jacobian_features
from pipeline.sketch import make_sketch
from pipeline.types import InputError


@pytest.mark.parametrize("n", [1, 2, 3])
def test_any_batch_size_gives_each_samples_gradient(
    convnet: nn.Module, images: Tensor, n: int
) -> None:
    found = jacobian_features(convnet, images[:n])
    assert relative_error(found, autograd_jacobian(convnet, images[:n])) < 1e-12


def test_features_do_not_depend_on_neighbours(convnet: nn.Module, images: Tensor) -> None:
    extract = FeatureExtractor(convnet, kept_share(convnet, 0.3))
    together = extract(images).phi
    alone = torch.cat([extract(images[i : i + 1]).phi for i in range(len(images))])
    assert relative_error(together, alone) < 1e-12


def test_columns_follow_the_sketch_in_any_order_and_may_repeat(
    convnet: nn.Module, images: Tensor
) -> None:
    sketch = Indices(torch.tensor([100, 3, 250, 3, 7]))
    wanted = autograd_jacobian(convnet, images)[:, sketch.indices]
    assert relative_error(jacobian_features(convnet, images, sketch), wanted) < 1e-12


@pytest.mark.parametrize(
    ("output", "weights"),
    [
        (1, [0.0, 1.0, 0.0]),
        (-1, [0.0, 0.0, 1.0]),
        ("sum", [3**-0.5] * 3),
        (lambda f: f[:, 0] - 2 * f[:, 2], [1.0, 0.0, -2.0]),
    ],
)
def test_outputs_are_combinations_of_the_logits(
    convnet: nn.Module, images: Tensor, output: Any, weights: list[float]
) -> None:
    wanted = sum(w * autograd_jacobian(convnet, images, j) for j, w in enumerate(weights))
    assert relative_error(jacobian_features(convnet, images, output=output), wanted) < 1e-12


def test_random_direction_is_a_unit_vector_that_follows_the_seed(
    convnet: nn.Module, images: Tensor
) -> None:
    every = jacobian_features(convnet, images, output="all")
    first = jacobian_features(convnet, images, output="random_direction", seed=1)
    again = jacobian_features(convnet, images, output="random_direction", seed=1)
    other = jacobian_features(convnet, images, output="random_direction", seed=2)
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)
    rows = every.transpose(1, 2).reshape(-1, 3)
    direction = torch.linalg.lstsq(rows, first.reshape(-1, 1)).solution
    assert float(direction.norm()) == pytest.approx(1.0)
    assert relative_error(rows @ direction, first.reshape(-1, 1)) < 1e-10


@pytest.mark.parametrize("share", [1.0, 0.2])
def test_all_outputs_stack_the_single_ones(
    convnet: nn.Module, images: Tensor, share: float
) -> None:
    sketch = kept_share(convnet, share)
    found = jacobian_features(convnet, images, sketch, output="all")
    wanted = torch.stack(
        [autograd_jacobian(convnet, images, j)[:, sketch.indices] for j in range(3)], 1
    )
    assert found.shape == (3, 3, len(sketch.indices))
    assert relative_error(found, wanted) < 1e-12


def test_logits_and_penultimate_activations_come_along(convnet: nn.Module, images: Tensor) -> None:
    features = FeatureExtractor(convnet, capture="7")(images)
    assert features.captured is not None
    assert relative_error(features.f0, convnet(images)) < 1e-12
    assert relative_error(features.captured, convnet[:-1](images)) < 1e-12


def test_kernel_of_all_parameters_equals_torch_func(convnet: nn.Module, images: Tensor) -> None:
    parameters = {name: p.detach() for name, p in convnet.named_parameters()}

    def logit(values: dict[str, Tensor], image: Tensor) -> Tensor:
        return torch.func.functional_call(convnet, values, (image[None],))[0, 0]

    gradients = torch.func.vmap(torch.func.grad(logit), (None, 0))(parameters, images)
    K = sum(g.flatten(1) @ g.flatten(1).T for g in gradients.values())
    phi = jacobian_features(convnet, images)
    assert relative_error(phi @ phi.T, K) < 1e-12


def test_float32_features_are_close_to_float64(convnet: nn.Module, images: Tensor) -> None:
    wanted = autograd_jacobian(convnet, images)
    found = jacobian_features(convnet.float(), images.float())
    errors = (found.double() - wanted).norm(dim=1) / wanted.norm(dim=1)
    assert found.dtype == torch.float32
    assert float(errors.median()) < 1e-5


def test_bfloat16_passes_are_close(convnet: nn.Module, images: Tensor) -> None:
    wanted = autograd_jacobian(convnet, images)
    sketch = kept_share(convnet, 0.5)
    found = jacobian_features(convnet.float(), images.float(), sketch, compute_dtype="bfloat16")
    assert found.dtype == torch.float32
    assert relative_error(found.double(), wanted[:, sketch.indices]) < 0.05


def test_bfloat16_passes_of_a_normalized_input_times_a_weight_are_close() -> None:
    """Autocast leaves the norm's output in float32 and gives the product's gradient in bfloat16."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.LayerNorm(16)
            self.weight = nn.Parameter(noise(16, 12).float())
            self.bias = nn.Parameter(noise(12).float())

        def forward(self, x: Tensor) -> Tensor:
            product = torch.addmm(self.bias, self.norm(x).flatten(0, 1), self.weight)
            return product.unflatten(0, x.shape[:2]).tanh().mean(1)

    model, x = Block().eval(), noise(3, 5, 16)
    wanted = autograd_jacobian(copy.deepcopy(model).double(), x)
    sketch = kept_share(model, 0.1)
    found = jacobian_features(model, x.float(), sketch, compute_dtype="bfloat16")
    assert relative_error(found.double(), wanted[:, sketch.indices]) < 0.05


def test_a_model_of_another_dtype_is_refused(convnet: nn.Module) -> None:
    with pytest.raises(InputError, match="needs a model in float32, found float64"):
        FeatureExtractor(convnet, compute_dtype="float32")


def test_training_mode_batch_norm_is_refused_by_name(convnet: nn.Module) -> None:
    convnet[1].train()
    with pytest.raises(InputError, match="1 is a BatchNorm2d"):
        FeatureExtractor(convnet)


def test_active_dropout_is_refused_by_name() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5), nn.Linear(3, 1))
    with pytest.raises(InputError, match="1 is an active Dropout"):
        FeatureExtractor(model)
    FeatureExtractor(model.eval())


def test_switching_to_training_mode_later_is_refused(convnet: nn.Module, images: Tensor) -> None:
    extract = FeatureExtractor(convnet)
    convnet.train()
    with pytest.raises(InputError, match="batch's statistics"):
        extract(images)


class InPlace(nn.Module):
    """Scales, adds and activates in place; a bare scale's input is overwritten by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.scale = nn.Parameter(torch.randn(4))
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(x).relu_()
        x = self.first(x)
        x *= self.scale
        x += y
        x -= self.scale
        return self.head(x.relu_())


class Overwriting(InPlace):
    """Overwrites what autograd would need, too."""

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.first(x))
        y = self.second(x)
        x *= 2
        return self.head(x + y)


@pytest.mark.parametrize("share", [1.0, 0.3])
def test_inputs_overwritten_in_place_are_kept(share: float) -> None:
    model = InPlace().double()
    x = torch.randn(3, 4, dtype=torch.float64)
    sketch = kept_share(model, share)
    wanted = autograd_jacobian(model, x)[:, sketch.indices]
    assert relative_error(jacobian_features(model, x, sketch), wanted) < 1e-12


def test_networks_that_autograd_cannot_differentiate_are_refused() -> None:
    with pytest.raises(InputError, match="modified by an inplace operation"):
        jacobian_features(Overwriting(), torch.randn(3, 4))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_samples_are_named(convnet: nn.Module, images: Tensor, value: float) -> None:
    # Few entries: the sampled product, which reads beyond a channel's end and multiplies by zero.
    extract = FeatureExtractor(convnet, kept_share(convnet, 0.1))
    extract(images)
    images[1, 0, 3, 4] = value
    with pytest.raises(NonFiniteSamplesError, match="sample 1 of this batch of 3") as refused:
        extract(images)
    assert refused.value.samples == (1,)


def test_unused_and_frozen_parameters_give_zero_columns_and_values() -> None:
    model = nn.ModuleDict({"used": nn.Linear(3, 2), "unused": nn.Linear(3, 2)})
    model.forward = lambda x: model["used"](x)  # type: ignore[method-assign]
    model["used"].requires_grad_(False)
    x = torch.randn(2, 3)
    phi = jacobian_features(model, x)
    assert float(phi[:, 8:].abs().sum()) == 0
    assert torch.allclose(phi[:, :3], x)
    assert not model["used"].weight.requires_grad


def test_sum_of_logits_warns_when_the_head_rows_cancel(
    caplog: pytest.LogCaptureFixture,
) -> None:
    head = nn.Linear(4, 3).double()
    with torch.no_grad():
        head.weight -= head.weight.mean(0)
    with caplog.at_level(logging.WARNING, "pipeline.jacobian"):
        jacobian_features(head, torch.randn(2, 4, dtype=torch.float64), output="sum")
    assert "nearly cancel" in caplog.text


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, x: jacobian_features(m, x, output=7), "expected a logit in 0 … 2"),
        (lambda m, x: jacobian_features(m, x, Indices(torch.tensor([10**6]))), "must lie in 0"),
        (lambda m, x: jacobian_features(m, x, object()), "is no sketch"),
        (lambda m, x: jacobian_features(m, x, torch.arange(5)), "a Tensor is no sketch"),
        (lambda m, x: jacobian_features(m, x, make_sketch("sjlt", nn.Linear(9, 9), 5)), "of 90 p"),
        (lambda m, x: jacobian_features(m, x, output=True), "output True is not known"),
        (lambda m, x: jacobian_features(m, x, output=lambda f: None), "returned None"),
        (lambda m, x: FeatureExtractor(m, capture="nowhere"), "is no module"),
        (lambda m, x: jacobian_features(m, x, output=lambda f: f.sum()), "output function"),
        (lambda m, x: jacobian_features(nn.ReLU(), x), "has no parameters"),
    ],
)
def test_mistakes_are_explained(
    convnet: nn.Module, images: Tensor, call: Callable[..., Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        call(convnet, images)
