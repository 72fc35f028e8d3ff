"""Per-sample Jacobian features φ(x) = S ∇θ f(θ, x) of whole batches.

One forward and one backward pass of the batch bring every layer's input and output gradient; the
rules turn them, layer by layer, into the entries that the sketch keeps.
"""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.jacobian.batch_dependence import refuse_batch_dependence
from pipeline.jacobian.checks import (
    NonFiniteSamplesError,
    refuse_no_batch,
    refuse_no_network,
    refuse_training_mode,
)
from pipeline.jacobian.columns import Columns
from pipeline.jacobian.fallback import fallback_gradients
from pipeline.jacobian.outputs import Output, scalars, warn_of_collapse
from pipeline.jacobian.passes import Passes, eager, frozen
from pipeline.jacobian.plan import make_plan
from pipeline.jacobian.precision import Precision
from pipeline.jacobian.probe import learn, two_samples
from pipeline.types import InputError, Inputs, batch_size, move_inputs, run_model, slice_inputs


@dataclass(frozen=True)
class Features:
    """What one pass over a batch gives."""

    phi: Tensor
    """(n, p) raw derivatives in the sketch's order; (n, k, p) for output "all"."""
    f0: Tensor
    """The network's logits (n, k) at θ₀."""
    captured: Tensor | None
    """Input (n, h) of the captured module."""


class FeatureExtractor:
    """Features of batch after batch; the plan is made here, once.

    ``sketch`` is any of the forms of :mod:`pipeline.jacobian.contract`, None keeps every parameter.
    ``output``: a logit's number, ``"sum"`` (Σ/√k), ``"random_direction"`` (by ``seed``), ``"all"``,
    or a function from logits to (n,) or (n, q). ``capture`` names a module whose input comes back
    too. ``compute_dtype``: ``"float32"``, ``"tf32"``, ``"bfloat16"`` (autocast) or ``"float64"``;
    the model's own when None. The model is moved to ``device``, and otherwise left as it was.

    The first batch is also tried against autograd on two samples (a first batch of one sample, on
    that one, and the next larger batch again); parameters that no rule covers are computed by
    ``torch.func`` and logged once by name.
    """

    def __init__(
        self,
        model: nn.Module,
        sketch: Any = None,
        *,
        output: Output = 0,
        seed: int = 0,
        capture: str | None = None,
        compute_dtype: str | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        refuse_no_network(model)
        if device is not None:
            model.to(device)
        self.model = model
        refuse_training_mode(model)
        parameter = next(iter(model.parameters()), None)
        self.device = torch.device("cpu") if parameter is None else parameter.device
        self.plan = make_plan(model, sketch, self.device)
        self.precision = Precision.of(model, compute_dtype)
        self._output, self._seed = output, seed
        self._passes = Passes(
            model,
            self._scalars,
            self.plan,
            dtype=self.precision.dtype,
            device=self.device,
            capture=None if capture is None else _submodule(model, capture),
        )
        self._tried = 0

    @property
    def fallback(self) -> Mapping[str, str]:
        """Parameters computed by torch.func, and why; known after the first batch."""
        return self._passes.learnt.fallback

    def __call__(self, inputs: Inputs) -> Features:
        """Features of one batch.

        Raises :class:`NonFiniteSamplesError` with the positions of samples that are not finite.
        """
        refuse_training_mode(self.model)
        refuse_no_batch(inputs)
        with self._passes_run():
            inputs = _constants(move_inputs(inputs, self.device, self.precision.input_dtype))
            count = min(batch_size(inputs), 2)
            if count > self._tried:
                self._try(two_samples(inputs))
                self._tried = count
            outcome = self._passes.until_learnt(inputs, self.plan.pieces)
            self._add_fallback(outcome.columns, inputs)
        phi = self._assembled(outcome.columns)
        self._refuse_nonfinite(phi, inputs)
        return Features(phi, outcome.f0, outcome.captured)

    @contextlib.contextmanager
    def _passes_run(self) -> Iterator[None]:
        """Inside, the passes run as they must, whatever the caller's mode."""
        with (
            frozen(self.model),
            torch.inference_mode(False),
            torch.enable_grad(),
            eager(),
            self.precision.active(),
        ):
            yield

    def _try(self, inputs: Inputs) -> None:
        """What the first two samples tell about the network."""
        refuse_batch_dependence(self.model, inputs, self.precision.tolerance, self._scalars)
        learn(self._passes, self.plan.pieces, inputs, self.precision.tolerance)
        if self._output == "sum":
            with torch.no_grad():
                warn_of_collapse(self.model, run_model(self.model, inputs).shape[-1])

    def _scalars(self, logits: Tensor) -> Tensor:
        return scalars(logits, self._output, self._seed)

    def _assembled(self, columns: list[Columns]) -> Tensor:
        """(n, p), or (n, q, p); each scalar's columns are let go as soon as they are copied."""
        if self._output != "all" and len(columns) == 1:
            return columns[0].finished()
        q, last = len(columns), columns.pop().finished()
        phi = last.new_empty(len(last), q, last.shape[1])
        phi[:, -1] = last
        for j in reversed(range(q - 1)):
            phi[:, j] = columns.pop().finished()
        return phi

    def _add_fallback(self, columns: list[Columns], inputs: Inputs) -> None:
        if not self.fallback:
            return
        gradients = fallback_gradients(self.model, list(self.fallback), inputs, self._scalars)
        for name, by_scalar in gradients.items():
            for each, gradient in zip(columns, by_scalar, strict=True):
                for piece in self.plan.pieces[name]:
                    each.add(piece, piece.keep.select(gradient.to(self.precision.dtype)))

    def _refuse_nonfinite(self, phi: Tensor, inputs: Inputs) -> None:
        """Raise :class:`NonFiniteSamplesError` for samples with NaN or infinite features."""
        # One sum tells of any NaN or infinity; it may overflow by itself, hence the second look.
        if bool(torch.isfinite(phi.sum())):
            return
        suspects = torch.nonzero(~torch.isfinite(phi).flatten(1).all(1))[:, 0].tolist()
        # A NaN reaches its neighbour in a buffer that they share: only alone each tells the truth.
        bad = [i for i in suspects if len(suspects) == 1 or not self._is_finite_alone(inputs, i)]
        if suspects:
            raise NonFiniteSamplesError(bad or suspects, len(phi))

    def _is_finite_alone(self, inputs: Inputs, number: int) -> bool:
        alone = slice_inputs(inputs, slice(number, number + 1))
        with self._passes_run():
            outcome = self._passes.until_learnt(alone, self.plan.pieces)
        return all(bool(torch.isfinite(each.finished()).all()) for each in outcome.columns)


def jacobian_features(
    model: nn.Module,
    inputs: Inputs,
    sketch: Any = None,
    output: Output = 0,
    *,
    seed: int = 0,
    compute_dtype: str | None = None,
) -> Tensor:
    """Per-sample features (n, p) of one batch, (n, k, p) for ``output="all"``.

    Column j is ∂f/∂θ[indices[j]] of the sketch; without a sketch, of every parameter in order. For
    many batches make a :class:`FeatureExtractor` once.
    """
    extract = FeatureExtractor(model, sketch, output=output, seed=seed, compute_dtype=compute_dtype)
    return extract(inputs).phi


def _constants(inputs: Inputs) -> Inputs:
    """The batch without a graph, and as tensors that one may be built on."""

    def plain(tensor: Tensor) -> Tensor:
        return tensor.clone() if tensor.is_inference() else tensor.detach()

    if isinstance(inputs, Tensor):
        return plain(inputs)
    return {name: plain(tensor) for name, tensor in inputs.items()}


def _submodule(model: nn.Module, name: str) -> nn.Module:
    modules = dict(model.named_modules())
    if name not in modules:
        known = ", ".join(n for n in modules if n)
        raise InputError(f"capture={name!r} is no module of the network. Known: {known}.")
    return modules[name]
