import sys

import pytest
import torch

from pipeline.jacobian import jacobian_features
from pipeline.models import factory
from pipeline.models.factory import FactoryOptions
from pipeline.models.head import with_head
from pipeline.sketch import make_sketch
from pipeline.types import InputError

SOURCE = """
from torch import nn

class Mine(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.body = nn.Linear(3, width)
        self.score = nn.Linear(width, 2)
        self.unused = nn.Linear(1, 1)

    def forward(self, x):
        return self.score(self.body(x).tanh())

def network(width=4):
    return Mine(width), "score"

def plain():
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double().train()

def wrong():
    return "no network"

constant = 3
"""


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(SOURCE)
    return path


def test_a_file_and_a_package_give_the_same_network(source, monkeypatch):
    monkeypatch.syspath_prepend(source.parent)
    from_file = factory.build(FactoryOptions(path=f"{source}:network", kwargs={"width": 6}))
    from_package = factory.build(FactoryOptions(path="mine:network", kwargs={"width": 6}))
    assert from_file.provenance() == from_package.provenance()
    assert (from_file.head, from_file.width) == ("score", 6)
    sys.modules.pop("mine")


def test_without_a_name_the_last_linear_layer_is_the_head(source):
    network = factory.build(FactoryOptions(path=f"{source}:plain"))
    assert network.head == "2"
    assert not network.module.training
    assert network.module[0].weight.dtype == torch.float32


def test_the_initialization_is_a_function_of_the_seed(source):
    path = f"{source}:network"
    digests = [factory.build(FactoryOptions(path=path, seed=s)).state_digest() for s in (0, 0, 1)]
    assert digests[0] == digests[1] != digests[2]


def test_the_provenance_changes_with_the_source_and_the_arguments(source):
    path = f"{source}:network"
    first = factory.build(FactoryOptions(path=path)).provenance()["architecture"]
    wider = factory.build(FactoryOptions(path=path, kwargs={"width": 5})).provenance()
    assert wider["architecture"] != first
    source.write_text(SOURCE.replace(".tanh()", ".sin()"))
    edited = factory.build(FactoryOptions(path=path))
    assert edited.architecture["source_sha256"] != first["source_sha256"]
    x = torch.ones(1, 3)
    expected = edited.module.score(edited.module.body(x).sin())
    assert torch.equal(edited.module(x), expected)


def test_weights_load_into_what_the_function_returns(source, tmp_path):
    path = f"{source}:network"
    first = factory.build(FactoryOptions(path=path, seed=7))
    torch.save(first.module.state_dict(), tmp_path / "w.pt")
    second = factory.build(FactoryOptions(path=path, weights=tmp_path / "w.pt"))
    assert second.state_digest() == first.state_digest()


@pytest.mark.parametrize("path", ["mine", ":network", "mine.py:", "mine:not-a-name"])
def test_a_path_that_names_no_function_is_refused(path):
    with pytest.raises(ValueError, match=r"expected package\.module:function"):
        FactoryOptions(path=path)


@pytest.mark.parametrize(
    ("path", "kwargs", "message"),
    [
        ("absent_package.inner:f", {}, r"model\.path: cannot import absent_package\.inner"),
        ("{folder}/absent.py:f", {}, r"model\.path: no file at .*absent\.py"),
        ("{folder}/mine.py:absent", {}, r"model\.path: .*mine\.py has no function 'absent'"),
        ("{folder}/mine.py:constant", {}, "has no function 'constant'"),
        ("{folder}/mine.py:wrong", {}, "returned str, expected an nn.Module"),
        ("{folder}/mine.py:network", {"wdth": 1}, r"model\.kwargs: .*wdth"),
    ],
)
def test_mistakes_are_named(source, path, kwargs, message):
    options = FactoryOptions(path=path.format(folder=source.parent), kwargs=kwargs)
    with pytest.raises(InputError, match=message):
        factory.build(options)


def test_a_file_that_fails_to_import_is_tried_again_after_a_repair(source):
    broken = source.with_name("broken.py")
    broken.write_text("def network(:\n")
    with pytest.raises(InputError, match=r"cannot import .*broken\.py: invalid syntax"):
        factory.build(FactoryOptions(path=f"{broken}:network"))
    broken.write_text("import absent_dependency\n")
    with pytest.raises(InputError, match="absent_dependency"):
        factory.build(FactoryOptions(path=f"{broken}:network"))
    broken.write_text(SOURCE)
    assert factory.build(FactoryOptions(path=f"{broken}:network")).width == 4


def test_the_version_of_an_installed_package_is_part_of_the_provenance(source):
    options = FactoryOptions(
        path="torch.nn:TransformerEncoderLayer", kwargs={"d_model": 4, "nhead": 2}
    )
    installed = factory.build(options)
    mine = factory.build(FactoryOptions(path=f"{source}:network"))
    assert f"torch {torch.__version__}" in installed.provenance()["architecture"]["package"]
    assert "package" not in mine.provenance()["architecture"]


@pytest.mark.parametrize(
    ("path", "kwargs"),
    [
        ("timm:create_model", {"model_name": "resnet18", "num_classes": 5}),
        ("timm:create_model", {"model_name": "vit_tiny_patch16_224", "num_classes": 5}),
        ("torchvision.models:resnet18", {"num_classes": 5}),
        ("torchvision.models:swin_t", {"num_classes": 5}),
    ],
)
def test_backbones_of_timm_and_torchvision_give_autograd_s_features(path, kwargs):
    pytest.importorskip(path.partition(".")[0].partition(":")[0])
    module = with_head(factory.build(FactoryOptions(path=path, kwargs=kwargs)), "random", 1, 0)
    network = module.module.double()
    images = torch.randn(1, 3, 224, 224, dtype=torch.float64)
    sketch = make_sketch("uniform", network, size=2000, seed=0)
    found = jacobian_features(network, images, sketch)
    gradients = torch.autograd.grad(network(images).sum(), list(network.parameters()))
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    expected = flat[sketch.indices][None]
    torch.testing.assert_close(
        found, expected, rtol=1e-10, atol=1e-10 * float(expected.abs().max())
    )
