import pytest
import torch
from torch import nn

from pipeline.models import resnet
from pipeline.models.resnet import ResNet, ResNetOptions
from pipeline.types import InputError

# torchvision's documented parameter counts, with 1000 classes.
PARAMETERS = {
    18: 11_689_512,
    34: 21_797_672,
    50: 25_557_032,
    101: 44_549_160,
    152: 60_192_808,
}


@pytest.mark.parametrize("depth", PARAMETERS)
def test_the_parameter_count_is_torchvisions(depth):
    with torch.device("meta"):
        module = ResNet(depth)
    assert sum(p.numel() for p in module.parameters()) == PARAMETERS[depth]


def test_the_key_layout_is_torchvisions():
    with torch.device("meta"):
        shapes = {name: tuple(t.shape) for name, t in ResNet(50).state_dict().items()}
    assert len(shapes) == 320
    assert shapes["conv1.weight"] == (64, 3, 7, 7)
    assert shapes["layer1.0.downsample.0.weight"] == (256, 64, 1, 1)
    assert shapes["layer1.0.downsample.1.running_mean"] == (256,)
    assert shapes["layer2.0.conv2.weight"] == (128, 128, 3, 3)
    assert shapes["layer4.2.conv3.weight"] == (2048, 512, 1, 1)
    assert shapes["layer4.2.bn3.num_batches_tracked"] == ()
    assert shapes["fc.weight"] == (1000, 2048)
    with torch.device("meta"):
        assert len(ResNet(18).state_dict()) == 122


def test_the_bottleneck_strides_in_its_middle_convolution():
    block = resnet.Bottleneck(256, 128, 2)
    assert (block.conv1.stride, block.conv2.stride, block.downsample[0].stride) == (
        (1, 1),
        (2, 2),
        (2, 2),
    )


def theirs_to_ours(name: str) -> str:
    """A name in transformers' ResNetModel as torchvision's."""
    if name.startswith("embedder.embedder."):
        return (
            name.replace("embedder.embedder.", "")
            .replace("convolution", "conv1")
            .replace("normalization", "bn1")
        )
    _, _, stage, _, block, *rest = name.split(".")
    start = f"layer{int(stage) + 1}.{block}."
    if rest[0] == "shortcut":
        inner = {"convolution": "0", "normalization": "1"}[rest[1]]
        return f"{start}downsample.{inner}.{rest[2]}"
    kind = {"convolution": "conv", "normalization": "bn"}[rest[2]]
    return f"{start}{kind}{int(rest[1]) + 1}.{rest[3]}"


@pytest.mark.parametrize(
    ("depth", "layer_type", "depths", "sizes"),
    [(18, "basic", [2, 2, 2, 2], [64, 128, 256, 512]), (50, "bottleneck", [3, 4, 6, 3], None)],
)
def test_the_forward_pass_equals_transformers(depth, layer_type, depths, sizes):
    transformers = pytest.importorskip("transformers")
    sizes = sizes or [256, 512, 1024, 2048]
    config = transformers.ResNetConfig(layer_type=layer_type, depths=depths, hidden_sizes=sizes)
    torch.manual_seed(0)
    theirs = transformers.ResNetModel(config).eval().double()
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
    ours = ResNet(depth).eval().double()
    state = {theirs_to_ours(n): t for n, t in theirs.state_dict().items()}
    missing, unexpected = ours.load_state_dict(state, strict=False)
    assert (missing, unexpected) == (["fc.weight", "fc.bias"], [])
    ours.fc = nn.Identity()
    images = torch.randn(2, 3, 65, 64, dtype=torch.float64)
    with torch.no_grad():
        expected = theirs(images).pooler_output.flatten(1)
        torch.testing.assert_close(ours(images), expected, rtol=1e-10, atol=1e-10)


def saved(tmp_path, state):
    torch.save(state, tmp_path / "w.pth")
    return tmp_path / "w.pth"


def test_a_supervised_checkpoint_loads_with_its_head_and_warns_about_seen_labels(tmp_path):
    state = ResNet(18).state_dict()
    network = resnet.build(ResNetOptions(depth=18, weights=saved(tmp_path, state)))
    assert network.seen_target_labels
    assert not network.untrained_head
    assert "has seen the target labels" in network.notes[0]
    assert torch.equal(network.head_module.weight, state["fc.weight"])
    assert torch.equal(network.module.layer3[1].bn2.bias, state["layer3.1.bn2.bias"])


def moco(state):
    encoder = {f"module.encoder_q.{n}": t for n, t in state.items() if not n.startswith("fc.")}
    projection = {
        f"module.encoder_{which}.fc.{layer}.{part}": torch.ones(2, 2)
        for which in "qk"
        for layer in (0, 2)
        for part in ("weight", "bias")
    }
    key = {n.replace("encoder_q", "encoder_k"): torch.zeros_like(t) for n, t in encoder.items()}
    queue = {"module.queue": torch.ones(2, 3), "module.queue_ptr": torch.ones(1)}
    return {"epoch": 800, "arch": "resnet18", "state_dict": encoder | projection | key | queue}


@pytest.mark.parametrize("with_projection", [True, False])
def test_a_moco_checkpoint_loads_its_query_encoder_without_the_head(tmp_path, with_projection):
    state = ResNet(18).state_dict()
    checkpoint = moco(state)
    if not with_projection:
        names = [n for n in checkpoint["state_dict"] if ".encoder_q." in n and ".fc." not in n]
        checkpoint["state_dict"] = {n: checkpoint["state_dict"][n] for n in names}
    network = resnet.build(ResNetOptions(depth=18, weights=saved(tmp_path, checkpoint)))
    assert torch.equal(network.module.layer4[1].conv2.weight, state["layer4.1.conv2.weight"])
    assert network.untrained_head
    assert not network.seen_target_labels
    assert "MoCo" in network.notes[0]


def test_a_checkpoint_of_other_classes_keeps_its_head_and_has_not_seen_imagenet(tmp_path):
    state = ResNet(18, classes=17).state_dict()
    network = resnet.build(ResNetOptions(depth=18, weights=saved(tmp_path, state)))
    assert network.outputs == 17
    assert not network.seen_target_labels


def test_a_checkpoint_without_classifier_leaves_a_random_head_from_the_seed(tmp_path):
    state = {n: t for n, t in ResNet(18).state_dict().items() if not n.startswith("fc.")}
    path = saved(tmp_path, state)
    networks = [resnet.build(ResNetOptions(depth=18, weights=path, seed=s)) for s in (0, 0, 1)]
    assert networks[0].untrained_head
    assert networks[0].state_digest() == networks[1].state_digest()
    assert networks[0].state_digest() != networks[2].state_digest()


def test_a_checkpoint_of_another_depth_is_refused_with_names(tmp_path):
    path = saved(tmp_path, ResNet(34).state_dict())
    with pytest.raises(InputError, match=r"Unexpected .*layer1\.2\.conv1\.weight"):
        resnet.build(ResNetOptions(depth=18, weights=path))


def test_an_untrained_network_is_a_function_of_its_seed_and_leaves_global_randomness_alone():
    before = torch.random.get_rng_state()
    first = resnet.build(ResNetOptions(depth=18, seed=4))
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(99)
    assert resnet.build(ResNetOptions(depth=18, seed=4)).state_digest() == first.state_digest()
    assert first.provenance()["architecture"] == {"kind": "resnet", "depth": 18}
