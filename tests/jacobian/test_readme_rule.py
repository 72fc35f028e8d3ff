"""The README's layer with a rule of its own, run as it stands there."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from jacobian_helpers import kept_share, relative_error
from reference import autograd_jacobian
from torch import nn

from pipeline.jacobian import FeatureExtractor
from pipeline.jacobian.call import rules_of
from pipeline.sketch import make_sketch

README = Path(__file__).parents[2] / "README.md"


@pytest.fixture(scope="module")
def example() -> dict[str, Any]:
    """The names that the example defines."""
    section = README.read_text().split("## A layer of your own")[1]
    block = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert block is not None
    names: dict[str, Any] = {}
    exec(block[1], names)
    return names


def network(example: dict[str, Any]) -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Linear(3, 6), example["Sine"](6), nn.Flatten(), nn.Linear(12, 1)
    return nn.Sequential(*layers).double()


@pytest.mark.parametrize("share", [1.0, 0.4])
def test_the_readmes_rule_gives_the_layers_gradients(example: Any, share: float) -> None:
    model, x = network(example), torch.randn(3, 2, 3, dtype=torch.float64)
    sketch = kept_share(model, share)
    extract = FeatureExtractor(model, sketch)
    wanted = autograd_jacobian(model, x)[:, sketch.indices]
    assert relative_error(extract(x).phi, wanted) <= 1e-12
    assert not extract.fallback
    assert rules_of(example["Sine"])


def test_the_readmes_rule_serves_projections_too(example: Any) -> None:
    model, x = network(example), torch.randn(3, 2, 3, dtype=torch.float64)
    sketch = make_sketch("kronecker", model, size=20, seed=0)
    extract = FeatureExtractor(model, sketch)
    assert extract(x).phi.shape == (3, sketch.size)
    assert not extract.fallback
