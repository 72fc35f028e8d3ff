import numpy as np
import pytest
import torch

from pipeline.gram import device as gpu
from pipeline.gram import gram, gram_blocks, gram_prefixes
from pipeline.gram.finish import Form, finish
from pipeline.gram.sources import ArraySource, StackedSource
from pipeline.gram.weighting import weighting

CPU = torch.device("cpu")


def features(n, p, dtype=torch.float16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((n, p), generator=generator).to(dtype)


def exact(x, y, weights):
    w = np.ones(x.shape[1]) if weights is None else weights
    return (x.double().numpy() * w**2) @ y.double().numpy().T


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("weights", [None, np.full(50, 3.0), np.linspace(0.5, 9, 50)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_device_pass_equals_the_float64_product(monkeypatch, dtype, weights, streamed):
    # The device's code run on the CPU, in blocks small enough that there are several.
    monkeypatch.setattr(gpu, "TRIANGLE_ROWS", 4)
    train, val = features(11, 50, dtype), features(5, 50, dtype, seed=1)
    sources = [ArraySource(x, weights) for x in (train, val)]
    weightings = [weighting(source) for source in sources]
    ranges = [slice(0, 16), slice(16, 40), slice(40, 50)]
    panels = (
        gpu.streamed_panels(StackedSource(sources), weightings, ranges, CPU)
        if streamed
        else gpu.resident_panels([train, val], weightings, ranges)
    )
    [(_, K, crosses, norms)] = gpu.accumulate_on_device(panels, [11, 5], ranges, (), CPU)
    factors = {"train": weightings[0].factor, "val": weightings[1].factor}
    blocks = finish(K, {"val": crosses[0]}, {"val": norms[0]}, factors, 1.0, Form())
    # Differing weights round the weighted features once more.
    tolerance = 2e-6 if weights is None or dtype == torch.float32 else torch.finfo(dtype).eps
    size = np.abs(exact(train, train, weights)).max()
    for name, expected in [
        ("train", exact(train, train, weights)),
        ("val", exact(val, train, weights)),
        ("val_diagonal", np.diag(exact(val, val, weights))),
    ]:
        np.testing.assert_allclose(blocks[name].numpy() / size, expected / size, atol=tolerance)


@pytest.mark.gpu
@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_gpu_kernels_equal_those_of_the_cpu(dtype, resident):
    train, val = features(5000, 3000, dtype), features(700, 3000, dtype, seed=1)
    expected = gram_blocks(train, {"val": val}, center=True, normalize=True)
    form = {"center": True, "normalize": True, "panel_columns": 1024}
    found = (
        gram_blocks(train.cuda(), {"val": val.cuda()}, **form)
        if resident
        else gram_blocks(train, {"val": val}, device="cuda", **form)
    )
    for name, block in expected.items():
        assert found[name].is_cuda
        np.testing.assert_allclose(found[name].cpu().numpy(), block, atol=2e-5)


@pytest.mark.gpu
def test_gpu_prefixes_and_rectangles():
    train, val = features(300, 200).cuda(), features(70, 200, seed=1).cuda()
    seen = {q: b["train"] for q, b in gram_prefixes(train, None, [50], panel_columns=64)}
    expected = exact(train[:, :50].cpu(), train[:, :50].cpu(), np.full(50, 2.0))
    np.testing.assert_allclose(seen[50].cpu().numpy(), expected, rtol=1e-4, atol=1e-2)
    K = gram(val, train)
    np.testing.assert_allclose(K.cpu().numpy(), exact(val.cpu(), train.cpu(), None), atol=1e-2)
