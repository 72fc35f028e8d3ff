"""From a network's logits to the scalars that are differentiated."""

import logging
from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.types import InputError

logger = logging.getLogger(__name__)

Output = int | Literal["sum", "random_direction", "all"] | Callable[[Tensor], Tensor]
"""A logit's number; Σ logits / √k; a random unit direction; all k; or a function to (n,) or (n, q).
"""

COLLAPSE = 0.1
"""‖Σ v_j‖ / √k under this share of the head rows' mean norm is reported as a collapse."""


def scalars(logits: Float[Tensor, " n *k"], output: Output, seed: int = 0) -> Float[Tensor, "n q"]:
    """What is differentiated: (n, 1), or (n, k) for ``"all"``."""
    if callable(output):
        return _checked(output(logits), len(logits))
    if logits.ndim != 2:
        raise InputError(
            f"the network returns logits of shape {tuple(logits.shape)}, expected (n, k). Pass a "
            "function of the logits as `output`, such as lambda f: f[:, -1].logsumexp(-1)."
        )
    k = logits.shape[1]
    if output == "all":
        return logits
    if output == "sum":
        return logits.sum(1, keepdim=True) / k**0.5
    if output == "random_direction":
        return logits @ direction(k, seed).to(logits).unsqueeze(1)
    if isinstance(output, int) and not isinstance(output, bool) and -k <= output < k:
        return logits[:, [output]]
    raise InputError(
        f"output {output!r} is not known: expected a logit in 0 … {k - 1}, 'sum', "
        "'random_direction', 'all' or a function of the logits."
    )


def direction(k: int, seed: int) -> Float[Tensor, " k"]:
    """A random unit vector over the k logits."""
    vector = torch.randn(k, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return vector / vector.norm()


def _checked(values: object, n: int) -> Tensor:
    if isinstance(values, Tensor) and values.ndim in (1, 2) and len(values) == n:
        return values if values.ndim == 2 else values.unsqueeze(1)
    found = f"shape {tuple(values.shape)}" if isinstance(values, Tensor) else f"{values!r}"
    raise InputError(
        f"the output function returned {found} for {n} samples; expected a tensor (n,) or (n, q)."
    )


def sum_norms(head: nn.Linear) -> tuple[float, float]:
    """‖Σ_j v_j‖ / √k and mean ‖v_j‖ over the rows v_j of the head's weight."""
    weight = head.weight.detach().double()
    return float(weight.sum(0).norm() / len(weight) ** 0.5), float(weight.norm(dim=1).mean())


def warn_of_collapse(model: nn.Module, k: int) -> None:
    """Log ‖Σ v_j‖ of the head where output ``sum`` is asked for, and warn when it is near zero.

    On a trained head the rows nearly cancel, and the kernel of the summed logits with them.
    """
    heads = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module.out_features == k
    ]
    if not heads or k < 2:
        return
    name, head = heads[-1]
    total, mean = sum_norms(head)
    report = logger.warning if total < COLLAPSE * mean else logger.info
    report(
        "output 'sum': rows v_j of head %s have ||sum v_j||/sqrt(k) = %.3g, mean ||v_j|| = %.3g%s",
        name, total, mean,
        ". The summed logits nearly cancel; 'random_direction' does not." if total < COLLAPSE * mean
        else "",
    )  # fmt: skip
