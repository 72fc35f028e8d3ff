"""A transformers backbone, its pooled activations, and a linear ``head`` on them.

The forward pass is written so that a sample's logits never depend on its neighbours: positions and
attention follow each sample's own mask, and the mask is always given in full, so that no branch
looks at the batch (which ``torch.func.vmap`` could not follow either).
"""

from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

Pooling = Literal["cls", "mean", "last", "pooler"]


class PooledImage(nn.Module):
    """Logits (n, k) of images: backbone, pooling, linear head."""

    def __init__(self, backbone: nn.Module, pooling: Pooling, width: int, classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.pooling: Pooling = pooling
        self.head = nn.Linear(width, classes)

    def forward(self, pixel_values: Float[Tensor, "n c y x"]) -> Float[Tensor, "n k"]:
        """Logits."""
        return self.head(pooled(self.backbone(pixel_values=pixel_values), self.pooling))


class PooledText(nn.Module):
    """Logits (n, k) of token sequences: backbone, pooling over real tokens, linear head.

    ``causal`` says whether a token sees later ones. ``prepared_mask`` hands the backbone the whole
    (n, 1, t, t) attention mask; ``own_positions`` counts positions from the first real token.
    """

    def __init__(
        self,
        backbone: nn.Module,
        pooling: Pooling,
        width: int,
        classes: int,
        *,
        causal: bool = False,
        prepared_mask: Literal["additive", "boolean"] | None = None,
        own_positions: bool = False,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.pooling: Pooling = pooling
        self.causal = causal
        self.prepared_mask = prepared_mask
        self.own_positions = own_positions
        self.head = nn.Linear(width, classes)

    def forward(
        self,
        input_ids: Int[Tensor, "n t"],
        attention_mask: Tensor | None = None,
        token_type_ids: Int[Tensor, "n t"] | None = None,
    ) -> Float[Tensor, "n k"]:
        """Logits; ``attention_mask`` is 1 at real tokens and 0 at padding, on either side."""
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        real = mask.to(torch.bool)
        arguments: dict[str, Any] = {"attention_mask": mask}
        if self.prepared_mask is not None:
            allowed = visible(real, causal=self.causal)
            additive = self.prepared_mask == "additive"
            arguments["attention_mask"] = (
                added_to_scores(allowed, self.head.weight.dtype) if additive else allowed
            )
        if self.own_positions:
            arguments["position_ids"] = (real.cumsum(dim=1) - 1).clamp(min=0)
        if self.causal:
            arguments["use_cache"] = False
        if token_type_ids is not None:
            arguments["token_type_ids"] = token_type_ids
        output = self.backbone(input_ids=input_ids, **arguments)
        return self.head(pooled(output, self.pooling, real))


def pooled(
    output: Any, pooling: Pooling, real: Bool[Tensor, "n t"] | None = None
) -> Float[Tensor, "n h"]:
    """One vector a sample from a transformers output; ``real`` marks tokens that are no padding.

    ``cls`` is the first position, ``mean`` the average over positions (real ones for text),
    ``last`` the last real token, ``pooler`` what the backbone pools itself.
    """
    if pooling == "pooler":
        return torch.flatten(output.pooler_output, 1)
    hidden = output.last_hidden_state
    if pooling == "mean" and hidden.ndim == 4:
        return hidden.mean(dim=(2, 3))
    if pooling == "mean":
        if real is None:
            return hidden.mean(dim=1)
        weights = real.to(hidden.dtype)[..., None]
        return (hidden * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)
    if pooling == "cls" or real is None:
        return hidden[:, 0 if pooling == "cls" else -1]
    last = (torch.arange(real.shape[1], device=real.device) * real).argmax(dim=1)
    return hidden.gather(1, last[:, None, None].expand(-1, 1, hidden.shape[2]))[:, 0]


def visible(real: Bool[Tensor, "n t"], *, causal: bool) -> Bool[Tensor, "n 1 t t"]:
    """Which position (third axis) attends to which (fourth): real ones, no later ones if causal.

    Every position sees itself, so that padding has something to attend to and stays finite.
    """
    length = real.shape[1]
    square = torch.ones(length, length, dtype=torch.bool, device=real.device)
    seen = real[:, None, None, :] & (square.tril() if causal else square)
    return seen | torch.eye(length, dtype=torch.bool, device=real.device)


def added_to_scores(
    allowed: Bool[Tensor, "n 1 t t"], dtype: torch.dtype
) -> Float[Tensor, "n 1 t t"]:
    """0 where attention is allowed and the most negative number elsewhere."""
    zero = torch.zeros((), dtype=dtype, device=allowed.device)
    return torch.where(allowed, zero, torch.finfo(dtype).min)
