"""Is it right: features, Gram and path on the device beside float64 on the CPU."""

import copy
import importlib.util
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.gram import gram
from pipeline.jacobian import FeatureExtractor
from pipeline.jacobian.checks import NonFiniteSamplesError
from pipeline.jacobian.feature_error import feature_error, features_by_precision
from pipeline.models.cifar_resnet import CifarResNet
from pipeline.models.resnet import ResNet
from pipeline.models.squeezenet import SqueezeNet
from pipeline.sketch import make_sketch
from pipeline.solvers.ridge_path import fit_path
from pipeline.solvers.select import accuracy
from pipeline.solvers.targets import class_targets
from pipeline.types import Inputs, move_inputs

SAMPLES = 8
SIZE = 2_000
SKETCHES = ("uniform", "block", "kronecker", "sjlt", "full")
TOLERANCE = {"float32": 1e-5, "tf32": 1e-2, "bfloat16": 3e-1}
"""Largest relative error of the median sample's features. The worst sample is reported beside it:
rounding flips masks of ReLU networks."""
GRAM_TOLERANCE = 1e-5
PATH_TOLERANCE = 1e-6

Row = dict[str, Any]


def rows(device: str, quick: bool) -> list[Row]:
    """One row a comparison; ``ok`` says whether it is within its tolerance."""
    sketches = SKETCHES[:2] if quick else SKETCHES
    found = []
    for name, module, inputs in families():
        for kind in sketches:
            found += feature_rows(name, module, inputs, kind, device)
    found.append(repeated_row(device))
    found.append(nonfinite_row(device))
    found.append(gram_row(device, 300 if quick else 4_000, 5_000 if quick else 100_000))
    found.append(path_row(device, 600 if quick else 4_000))
    return found


def families() -> Iterator[tuple[str, nn.Module, Inputs]]:
    """Small members of every backbone family, random weights, with samples for them."""
    torch.manual_seed(0)
    yield "resnet18", ResNet(18, classes=3).eval(), torch.randn(SAMPLES, 3, 64, 64)
    yield "cifar_resnet20", CifarResNet(20, "A", classes=3).eval(), torch.randn(SAMPLES, 3, 32, 32)
    yield "squeezenet", SqueezeNet(classes=3).eval(), torch.randn(SAMPLES, 3, 64, 64)
    if importlib.util.find_spec("transformers"):
        yield from transformer_families()


def transformer_families() -> Iterator[tuple[str, nn.Module, Inputs]]:
    """ViT, ConvNeXt, BERT and GPT-2 from small configs."""
    import transformers as library

    images = torch.randn(SAMPLES, 3, 32, 32)
    ids = torch.randint(1, 99, (SAMPLES, 12))
    mask = torch.ones_like(ids)
    mask[1::2, 8:] = 0
    texts = {"input_ids": ids, "attention_mask": mask}
    small = {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 2, "num_labels": 3}
    vit = library.ViTConfig(image_size=32, patch_size=8, intermediate_size=64, **small)
    yield "vit", library.ViTForImageClassification(vit).eval(), images
    sizes = {"depths": [1, 1, 1, 1], "hidden_sizes": [16, 16, 32, 32], "num_labels": 3}
    convnext = library.ConvNextConfig(**sizes)
    yield "convnext", library.ConvNextForImageClassification(convnext).eval(), images
    bert = library.BertConfig(vocab_size=100, intermediate_size=64, **small)
    yield "bert", library.BertForSequenceClassification(bert).eval(), texts
    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    gpt2 = library.GPT2Config(
        vocab_size=100, n_embd=32, n_layer=2, n_head=2, num_labels=3, **special
    )
    yield "gpt2", library.GPT2ForSequenceClassification(gpt2).eval(), texts


def feature_rows(
    name: str, module: nn.Module, inputs: Inputs, kind: str, device: str
) -> Iterator[Row]:
    total = sum(parameter.numel() for parameter in module.parameters())
    sketch = make_sketch(kind, module, None if kind == "full" else min(SIZE, total))
    wanted = features_by_precision(module, inputs, sketch, kinds=["float64"])["float64"]
    kinds = ["float32", "bfloat16"] if device == "cpu" else [*TOLERANCE]
    on_device = copy.deepcopy(module).to(device)
    moved = move_inputs(inputs, torch.device(device))
    for precision, phi in features_by_precision(on_device, moved, sketch, kinds=kinds).items():
        error = feature_error(phi, wanted)
        yield {
            "what": f"{name}, {kind}, {precision}",
            "ok": error.median <= TOLERANCE[precision],
            "median": error.median,
            "worst": error.largest,
            "kernel": error.kernel,
            "tolerance": TOLERANCE[precision],
        }


def repeated_row(device: str) -> Row:
    """Two runs of one batch: the largest difference, 0 where they are equal bit for bit."""
    torch.manual_seed(0)
    model = ResNet(18, classes=3).eval().to(device)
    batch = torch.randn(16, 3, 64, 64, device=device)
    sketch = make_sketch("uniform", model, SIZE)
    first, second = (FeatureExtractor(model, sketch)(batch).phi for _ in range(2))
    worst = float((first - second).abs().max() / first.abs().max())
    return {"what": "two runs, resnet18, float32", "ok": worst <= 1e-5, "worst": worst}


def nonfinite_row(device: str) -> Row:
    model = CifarResNet(8, "A", classes=3).eval().to(device)
    batch = torch.randn(5, 3, 32, 32, device=device)
    batch[3, 0, 0, 0] = torch.nan
    try:
        FeatureExtractor(model, make_sketch("uniform", model, SIZE))(batch)
    except NonFiniteSamplesError as error:
        return {"what": "a sample with NaN is named", "ok": error.samples == (3,)}
    return {"what": "a sample with NaN is named", "ok": False}


def gram_row(device: str, n: int, p: int) -> Row:
    phi = (torch.randn(n, p, generator=torch.Generator().manual_seed(0)).relu() * 16).half()
    exact = phi.double() @ phi.double().T
    K = torch.as_tensor(gram(phi.to(device), device=device)).cpu().double()
    error = float((K - exact).norm() / exact.norm())
    return {"what": f"Gram, {n} × {p}, float16", "ok": error <= GRAM_TOLERANCE, "kernel": error}


def path_row(device: str, n: int) -> Row:
    generator = torch.Generator().manual_seed(0)
    decay = torch.arange(1, 2001).float() ** -0.8
    phi = torch.randn(n + n // 4, 2000, generator=generator) * decay
    whole = phi @ phi.T
    labels = (phi @ torch.randn(2000, 10, generator=generator)).argmax(1).numpy()
    targets = class_targets(labels[:n], 10)
    score = accuracy(labels[n:], targets.mean)
    predictions: list[Tensor] = []
    ridges = []
    for on in ("cpu", device):
        K, cross = (part.contiguous().to(on) for part in (whole[:n, :n], whole[n:, :n]))
        path = fit_path(K, targets.matrix.to(on), cross, score, solver="lanczos")
        predictions.append((cross.double() @ path.dual_weights).cpu())
        ridges.append(path.ridge)
    error = float((predictions[1] - predictions[0]).norm() / predictions[0].norm())
    same = abs(ridges[1] / ridges[0] - 1) < PATH_TOLERANCE
    return {"what": f"path, n = {n}", "ok": same and error <= PATH_TOLERANCE, "worst": error}
