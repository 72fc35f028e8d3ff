"""The kernel of all parameters of a ResNet-18 on 60,000 images of CIFAR's size."""

from typing import Any

import torch

from gpu.measure import stage
from pipeline.gram import exact_kernel
from pipeline.models.resnet import ResNet

PUBLISHED = "43 minutes on four A100 in float32 (empirical-ntks)"


def rows(device: str, quick: bool) -> list[dict[str, Any]]:
    """Time and peak memory; 16-bit features, sums in float32."""
    n, panel, batch = (48, 2**21, 16) if quick else (60_000, 500_000, 1_000)
    torch.manual_seed(0)
    model = ResNet(18, classes=10).eval().to(device)
    images = torch.randn(n, 3, 32, 32, device=device)
    found: list[dict[str, Any]] = []
    with stage(found, "all parameters of a ResNet-18", device, n=n, published=PUBLISHED):
        K = exact_kernel(
            model,
            images,
            panel_columns=panel,
            batch=batch,
            dtype="float16",
            compute_dtype="bfloat16",
        )
    found[0]["ok"] = bool(torch.isfinite(K).all())
    return found
