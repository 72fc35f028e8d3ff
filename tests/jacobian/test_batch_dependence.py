"""What mixes or randomizes samples, or does not run, is refused with the module's name."""

import pytest
import torch.nn.functional as F  # noqa: N812
from jacobian_helpers import noise
from torch import Tensor, nn

from pipeline.jacobian import FeatureExtractor, JacobianOperator, jacobian_features
from pipeline.types import InputError


class Layer(nn.Module):
    """A layer with a linear map of its own, which is not to blame."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(3, 16)


class Dropping(Layer):
    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(self.map(x), 0.5)


class Centred(Layer):
    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        y = self.map(x)
        return y - y.mean(0, keepdim=True), None


class Normalized(Layer):
    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(self.map(x), None, None, training=True)


class Averaged(Layer):
    def forward(self, x: Tensor) -> Tensor:
        return self.map(x) / len(x)


class Network(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.stem, self.odd, self.head = nn.Linear(3, 3), layer, nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.odd(self.stem(x))
        return self.head(y[0] if isinstance(y, tuple) else y)


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (Dropping(), "gives another output when it runs again"),
        (Centred(), "mixes the samples"),
        (Averaged(), "mixes the samples"),
        (Normalized(), "runs on two samples and not on one alone"),
    ],
)
def test_the_module_to_blame_is_named_although_it_has_children(
    layer: nn.Module, reason: str
) -> None:
    model = Network(layer).double()
    with pytest.raises(InputError, match=f"^odd {reason}"):
        jacobian_features(model, noise(4, 3))
    with pytest.raises(InputError, match=f"^odd {reason}"):
        JacobianOperator(model, noise(4, 3))


def test_samples_are_compared_on_the_first_batch_that_has_two() -> None:
    extract, x = FeatureExtractor(Network(Centred()).double()), noise(4, 3)
    extract(x[:1])
    with pytest.raises(InputError, match="odd mixes the samples"):
        extract(x)


def test_an_output_function_that_mixes_samples_is_refused() -> None:
    with pytest.raises(InputError, match="the output function mixes the samples"):
        jacobian_features(
            nn.Linear(3, 2).double(), noise(4, 3), output=lambda f: f[:, 0] - f[:, 0].mean()
        )


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (noise(4, 5), r"stem does not run on these inputs, \(2, 5\) float64"),
        (noise(4, 3).long(), r"stem does not run on these inputs, \(2, 3\) int64"),
        ({"y": noise(4, 3)}, "Network does not run on these inputs, y .*unexpected keyword"),
    ],
)
def test_inputs_that_a_module_does_not_take_name_it(
    inputs: Tensor | dict[str, Tensor], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        jacobian_features(Network(Layer()).double(), inputs)


def test_an_integer_output_is_refused() -> None:
    class Class(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).argmax(1, keepdim=True)

    with pytest.raises(InputError, match="the network returns int64"):
        jacobian_features(Class(3, 2).double(), noise(4, 3))
