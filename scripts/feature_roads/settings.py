"""The networks and batches on which roads to per-sample features are compared."""

import argparse
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from pipeline.types import Inputs


@dataclass(frozen=True)
class Setting:
    """A network, a batch of inputs for it, and how many columns a sketch keeps."""

    model: nn.Module
    inputs: Inputs
    size: int


MODELS = {
    "resnet50": (8, 256, 500_000),
    "cifar_resnet20": (128, 2048, 100_000),
    "vit_b16": (4, 128, 500_000),
    "bert": (4, 128, 500_000),
}
"""Batch on a CPU, batch on a GPU, kept parameters."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What chooses a setting on the command line."""
    parser.add_argument("--model", choices=list(MODELS), default="cifar_resnet20")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--dtype", choices=["float32", "tf32", "bfloat16"], default="float32")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--size", type=int, help="kept parameters")
    parser.add_argument("--threads", type=int)
    parser.add_argument(
        "--plain-memory", action="store_true", help="let the C library give freed memory back"
    )


def made(arguments: argparse.Namespace) -> Setting:
    on_cpu, on_gpu, size = MODELS[arguments.model]
    n = arguments.batch or (on_gpu if arguments.device == "cuda" else on_cpu)
    torch.manual_seed(0)
    model = network(arguments.model).eval().to(arguments.device)
    if arguments.model == "bert":
        ids = torch.randint(1000, 30000, (n, 128))
        inputs: Inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        inputs = {name: tensor.to(arguments.device) for name, tensor in inputs.items()}
        return Setting(model, inputs, arguments.size or size)
    side = 32 if arguments.model == "cifar_resnet20" else 224
    images = torch.randn(n, 3, side, side, device=arguments.device)
    if arguments.channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
        model = model.to(memory_format=torch.channels_last)
    return Setting(model, images, arguments.size or size)


def network(name: str) -> nn.Module:
    """The network with random weights and one output."""
    if name == "resnet50":
        from pipeline.models.head import with_head
        from pipeline.models.resnet import ResNetOptions, build

        return with_head(build(ResNetOptions()), "random", 1, 0).module
    if name == "cifar_resnet20":
        from pipeline.models import cifar_resnet
        from pipeline.models.head import with_head

        options = cifar_resnet.CifarResNetOptions()
        return with_head(cifar_resnet.build(options), "random", 1, 0).module
    import transformers

    if name == "vit_b16":
        return transformers.ViTForImageClassification(transformers.ViTConfig(num_labels=1))
    config = transformers.BertConfig(
        num_labels=1, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    )
    return transformers.BertForSequenceClassification(config)


@contextlib.contextmanager
def precision(arguments: argparse.Namespace) -> Iterator[None]:
    """The same number format for everybody; ours sets it by itself, to the same."""
    fast = arguments.dtype != "float32"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = fast
    torch.backends.cudnn.benchmark = True
    with torch.autocast(arguments.device, torch.bfloat16, arguments.dtype == "bfloat16"):
        yield
