"""An encoder trained without labels, with a fixed projection to classes on top of it.

It reconstructs its images; the decoder is then dropped. (The papers' encoder was a BiGAN's.)
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from pipeline.types import InputError

WIDTHS = (32, 64, 64)
"""Channels of the three convolutions, each of stride 2."""


class Projected(nn.Module):
    """An encoder and a fixed random projection of its code: every parameter is the encoder's."""

    def __init__(self, encoder: nn.Sequential, outputs: int, seed: int) -> None:
        super().__init__()
        self.encoder = encoder
        width = list(encoder.parameters())[-1].numel()
        generator = torch.Generator().manual_seed(seed)
        weight = torch.randn(outputs, width, generator=generator) / width**0.5
        self.register_buffer("projection", weight)

    def forward(self, x: Float[Tensor, " n *image"]) -> Float[Tensor, "n k"]:
        """Logits."""
        return functional.linear(self.encoder(x), self.get_buffer("projection"))


@dataclass(frozen=True)
class Reconstruction:
    """A trained encoder, and how much it keeps of the images."""

    encoder: nn.Sequential
    explained: float
    """1 − mean squared error / variance of the training images."""


def trained_encoder(
    x: Float[Tensor, "n c h w"], code: int, epochs: int, seed: int, batch: int = 64
) -> Reconstruction:
    """Convolutions, a linear code, and a decoder that Adam fits to the images themselves."""
    channels, side = x.shape[1], x.shape[2]
    if side % 8 or x.shape[2] != x.shape[3]:
        raise InputError(f"images must be square with sides divisible by 8, got {x.shape[2:]}.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder, decoder = _encoder(channels, side, code), _decoder(channels, side, code)
    adam = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=1e-3)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=generator).split(batch):
            loss = (decoder(encoder(x[rows])) - x[rows]).square().mean()
            adam.zero_grad()
            loss.backward()
            adam.step()
    with torch.no_grad():
        errors = [(decoder(encoder(p)) - p).square().mean() * len(p) for p in x.split(256)]
    error = float(torch.stack(errors).sum() / len(x))
    return Reconstruction(encoder.eval(), 1 - error / float(x.var()))


def _encoder(channels: int, side: int, code: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in WIDTHS:
        layers += [nn.Conv2d(channels, width, 3, 2, 1), nn.ReLU()]
        channels = width
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * (side // 8) ** 2, code))


def _decoder(channels: int, side: int, code: int) -> nn.Sequential:
    a, b, c = WIDTHS
    steps = [(c, b), (b, a), (a, channels)]
    layers: list[nn.Module] = [nn.Linear(code, c * (side // 8) ** 2), nn.ReLU()]
    layers.append(nn.Unflatten(1, (c, side // 8, side // 8)))
    for left, right in steps:
        layers += [nn.ConvTranspose2d(left, right, 4, 2, 1), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
