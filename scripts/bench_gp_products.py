"""Fisher products three ways on networks of the papers' shapes: speed, and error over the step.

    python scripts/bench_gp_products.py [--batch 64] [--repeats 3] [--epochs 0 3]
                                         [--clock wall|cpu] [--out FILE] [--quick]

AlexNet-, PreResNet- and WideResNet-shaped networks for 32×32 images (random, float32), categorical
outputs. Each product F v: one backward pass through a finite difference of the divergence, jvp →
output Hessian → vjp, and double backward through the divergence. Errors are ‖F_ε v − F v‖ / ‖F v‖
over ε, before and after epochs of training on random labels. The last line is JSON.
``--clock cpu`` counts the process's own seconds, for a machine that does other work, too.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.jacobian import FisherOperator
from pipeline.jacobian.finite_difference import FiniteDifferenceFisher
from pipeline.jacobian.likelihoods import Categorical

CLASSES = 10


class PreBlock(nn.Module):
    """BatchNorm, ReLU, convolution, twice, and a shortcut."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(inputs), nn.ReLU(), nn.Conv2d(inputs, width, 3, stride, 1, bias=False),
            nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, width, 3, 1, 1, bias=False),
        )  # fmt: skip
        same = stride == 1 and inputs == width
        self.shortcut = nn.Identity() if same else nn.Conv2d(inputs, width, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + self.shortcut(x)


def pre_resnet(depth: int, widen: int = 1) -> nn.Sequential:
    """Stages of 16, 32 and 64 channels, times ``widen``."""
    layers: list[nn.Module] = [nn.Conv2d(3, 16, 3, 1, 1, bias=False)]
    inputs = 16
    for stage, base in enumerate((16, 32, 64)):
        for block in range((depth - 2) // 6):
            stride = 2 if stage > 0 and block == 0 else 1
            layers.append(PreBlock(inputs, base * widen, stride))
            inputs = base * widen
    head = [nn.BatchNorm2d(inputs), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, *head, nn.Linear(inputs, CLASSES))


def alexnet() -> nn.Sequential:
    """Five convolutions, three pools, one linear layer, as on CIFAR."""
    convolutions = [(3, 64, 2), (64, 192, 1), (192, 384, 1), (384, 256, 1), (256, 256, 1)]
    layers: list[nn.Module] = []
    for number, (left, right, stride) in enumerate(convolutions):
        layers += [nn.Conv2d(left, right, 3, stride, 1), nn.ReLU()]
        if number in (0, 1, 4):
            layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(256 * 4, CLASSES))


NETWORKS: dict[str, Callable[[], nn.Sequential]] = {
    "AlexNet": alexnet,
    "PreResNet-20": lambda: pre_resnet(20),
    "WideResNet-14-4": lambda: pre_resnet(14, 4),
}


CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--epochs", type=int, nargs="+", default=[0, 3])
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--quick", action="store_true", help="8 images, 1 repeat, 1 epoch")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.batch, arguments.repeats, arguments.epochs = 8, 1, [0, 1]
    rows = [row for name in NETWORKS for row in measured(name, arguments)]
    facts = {"bench": "gp_products", "threads": torch.get_num_threads(), "torch": torch.__version__}
    line = json.dumps({**facts, "clock": arguments.clock, "batch": arguments.batch, "rows": rows})
    if arguments.out:
        arguments.out.write_text(line + "\n")
    print(line)


def measured(name: str, arguments: argparse.Namespace) -> list[dict[str, object]]:
    """One row an epoch: seconds of each product and errors over ε."""
    torch.manual_seed(0)
    model = NETWORKS[name]()
    x, y = torch.randn(arguments.batch, 3, 32, 32), torch.randint(CLASSES, (arguments.batch,))
    rows, done = [], 0
    for epoch in arguments.epochs:
        trained(model, x, y, epoch - done)
        done = epoch
        rows.append({"network": name, "epoch": epoch, **products(model.eval(), x, arguments)})
        print(rows[-1], flush=True)
    return rows


def products(model: nn.Module, x: Tensor, arguments: argparse.Namespace) -> dict[str, object]:
    clock = CLOCKS[arguments.clock]
    exact = FisherOperator(model, x, Categorical())
    finite = FiniteDifferenceFisher(model, x, Categorical())
    v = exact.matmul(torch.randn(exact.shape[0], 1))
    v /= v.norm()
    ways: dict[str, Callable[[], Tensor]] = {
        "finite_difference": lambda: finite.matmul(v),
        "jvp_vjp": lambda: exact.matmul(v),
        "double_backward": lambda: double_backward(model, x, v),
    }
    wanted = exact.matmul(v).double()
    seconds, errors = {}, {}
    for way, product in ways.items():
        product()
        spent = []
        for _ in range(arguments.repeats):
            start = clock()
            found = product()
            spent.append(clock() - start)
        seconds[way] = statistics.median(spent)
        errors[way] = float((found.double() - wanted).norm() / wanted.norm())
    scan = finite.scan
    assert scan is not None, "no step was given"
    return {
        "parameters": exact.shape[0],
        "seconds": seconds,
        "relative_error": errors,
        "step": scan.best[0],
        "error_over_step": dict(zip(map(str, scan.steps), scan.errors, strict=True)),
    }


def double_backward(model: nn.Module, x: Tensor, v: Tensor) -> Tensor:
    """The Hessian of KL(p_θ ‖ p_θ′) at θ′ = θ, times v."""
    parameters = list(model.parameters())
    logits = model(x)
    q = logits.detach().softmax(1)
    divergence = functional.kl_div(logits.log_softmax(1), q, reduction="sum")
    gradient = torch.autograd.grad(divergence, parameters, create_graph=True)
    flat = torch.cat([g.flatten() for g in gradient])
    found = torch.autograd.grad(flat @ v[:, 0], parameters)
    return torch.cat([g.flatten() for g in found])[:, None]


def trained(model: nn.Module, x: Tensor, y: Tensor, epochs: int) -> None:
    sgd = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    model.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(16):
            loss = functional.cross_entropy(model(x[rows]), y[rows])
            sgd.zero_grad()
            loss.backward()
            sgd.step()


if __name__ == "__main__":
    main()
