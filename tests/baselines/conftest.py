from collections.abc import Callable

import pytest
import stripes as tiny
from torch import nn

from pipeline.baselines.training import Images


@pytest.fixture
def make_net() -> Callable[[], nn.Module]:
    return tiny.make_net


@pytest.fixture
def splits() -> dict[str, Images]:
    return tiny.stripes()
