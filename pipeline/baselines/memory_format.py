"""The order of an image batch's numbers in memory that a network computes fastest in.

Convolutions read the channels of a pixel together; bfloat16 training is faster where they lie
together, on a CPU as on the matrix units of a GPU.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.utils import convert_conv2d_weight_memory_format

from pipeline.types import run_model

Feed = Callable[[Tensor], Tensor]
"""Puts a batch (b, c, h, w) where a network is, in the memory format of its weights."""


def place(module: nn.Module, some: Sequence[Tensor], device: str) -> Feed:
    """Move ``module`` to ``device``; the way to feed it. It is left in evaluation mode.

    ``some`` are images (c, h, w) that it takes. A network that views its activations as rows,
    ``x.view(len(x), -1)``, refuses channels that lie together: it keeps the usual format.
    """
    convert_conv2d_weight_memory_format(module, torch.channels_last).to(device).eval()
    feed = partial(Tensor.to, device=device, memory_format=torch.channels_last)
    try:
        with torch.inference_mode():
            run_model(module, feed(torch.stack(list(some))))
    except RuntimeError:
        convert_conv2d_weight_memory_format(module, torch.contiguous_format)
        return partial(Tensor.to, device=device)
    return feed
