"""The plan tried on two samples, against plain autograd, before it is used.

What the rules computed is compared, parameter by parameter, with one backward pass per sample. A
parameter that does not agree (its samples lie along the second axis; or its module runs code that
torch functions do not show) is tried in the other layout, and else goes through the fallback.
"""

import logging

import torch
from torch import Tensor, nn

from pipeline.jacobian.fallback import Scalars, gradients_of, requiring_grad
from pipeline.jacobian.passes import Outcome, Passes, Pieces
from pipeline.jacobian.plan import Piece
from pipeline.types import InputError, Inputs, run_model

logger = logging.getLogger(__name__)

FLOOR = 1e-3
"""Gradients this far under the others' (the bias of attention keys: zero but for rounding) are not
compared to more digits than the others."""

FOLDED_TOLERANCE = 0.05
"""Folding rounds differently, and a ReLU's mask that flips moves a gradient (3.8e-3 was seen on a
random ResNet-50): the rules are checked before, here only gross differences count."""

Values = dict[str, list[Tensor]]


def two_samples(inputs: Inputs) -> Inputs:
    """The first two samples of a batch; a single one twice."""
    if isinstance(inputs, Tensor):
        return torch.cat([inputs, inputs])[:2] if len(inputs) < 2 else inputs[:2]
    tensors = {name: two_samples(tensor) for name, tensor in inputs.items()}
    return {name: tensor for name, tensor in tensors.items() if isinstance(tensor, Tensor)}


class Recording:
    """What the rules computed, kept apart by piece."""

    def __init__(self) -> None:
        self._values: dict[Piece, Tensor] = {}

    def put(self, piece: Piece, values: Tensor) -> None:
        """Values of one use."""
        found = values.double()
        self._values[piece] = self._values[piece] + found if piece in self._values else found

    def by_name(self, pieces: Pieces) -> Values:
        """The sums, as :func:`reference` lists them; zero where nothing was used."""
        zero = torch.zeros((), dtype=torch.float64)
        return {n: [self._values.get(part, zero) for part in parts] for n, parts in pieces.items()}


def reference(
    model: nn.Module, pieces: dict[str, list[Piece]], inputs: Inputs, scalars: Scalars
) -> Values:
    """The same values from one backward pass per sample, of the first scalar."""
    parameters = dict(model.named_parameters())
    chosen = [parameters[name] for name in pieces]
    with requiring_grad(list(parameters.values())):
        outputs = scalars(run_model(model, inputs))
        if not outputs.requires_grad:
            raise InputError(
                "the output has no derivative by any parameter of the network: it is not "
                "differentiable (under torch.no_grad(), detached, constant?)."
            )
        found = []
        for i in range(2):
            gradients = _autograd(outputs[i, 0], chosen)
            found.append([
                [part.keep.select(gradient.unsqueeze(0)).double() for part in parts]
                for gradient, parts in zip(gradients, pieces.values(), strict=True)
            ])  # fmt: skip
    return {
        name: [torch.cat([found[i][j][part] for i in range(2)]) for part in range(len(parts))]
        for j, (name, parts) in enumerate(pieces.items())
    }


def _autograd(value: Tensor, parameters: list[nn.Parameter]) -> list[Tensor]:
    try:
        return gradients_of(value, parameters)
    except RuntimeError as error:
        raise InputError(f"autograd cannot differentiate this network: {error}") from error


def disagreeing(values: Values, wanted: Values, tolerance: float) -> list[str]:
    """Parameters whose values differ from the wanted ones by more than rounding."""
    squares = sum(float(part.square().sum()) for parts in wanted.values() for part in parts)
    count = sum(part.numel() for parts in wanted.values() for part in parts)
    typical = (squares / max(count, 1)) ** 0.5
    wrong = []
    for name, parts in wanted.items():
        for ours, theirs in zip(values[name], parts, strict=True):
            error = float((ours.to(theirs.device) - theirs).norm())
            scale = float(theirs.norm()) + FLOOR * typical * theirs.numel() ** 0.5
            # Written so that NaN is no agreement; non-finite features are reported elsewhere.
            if not error <= tolerance * scale and bool(torch.isfinite(theirs).all()):
                wrong.append(name)
                break
    return wrong


def learn(passes: Passes, pieces: Pieces, inputs: Inputs, tolerance: float) -> None:
    """Repeat passes on two samples until the rules agree with autograd; then fold what can be."""
    wanted = reference(passes.model, pieces, inputs, passes.scalars)
    finder = _agreed(passes, pieces, inputs, wanted, tolerance).finder
    pairs = {} if finder is None else finder.pairs()
    if not pairs:
        return
    passes.learnt.set_pairs(pairs)
    values, _ = _recorded(passes, pieces, inputs)
    covered = {name: wanted[name] for name in values}
    if passes.learnt.pairs and disagreeing(values, covered, max(tolerance, FOLDED_TOLERANCE)):
        logger.info("BatchNorm is not folded into convolutions: the gradients would differ")
        passes.learnt.set_pairs({})


def _agreed(
    passes: Passes, pieces: Pieces, inputs: Inputs, wanted: Values, tolerance: float
) -> Outcome:
    while True:
        values, outcome = _recorded(passes, pieces, inputs)
        wrong = disagreeing(values, {name: wanted[name] for name in values}, tolerance)
        if not wrong:
            return outcome
        passes.learnt.change_layout(dict.fromkeys(wrong, "its values differ from autograd's"))


def _recorded(passes: Passes, pieces: Pieces, inputs: Inputs) -> tuple[Values, Outcome]:
    """What a pass that had nothing to learn found."""
    while True:
        passes.learnt.choices.clear()
        covered = passes.learnt.covered(pieces)
        recording = Recording()
        outcome = passes.attempt(inputs, covered, recording.put, find=not passes.learnt.pairs)
        if outcome is not None:
            return recording.by_name(covered), outcome
