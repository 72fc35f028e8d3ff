"""Per-sample Jacobian features φ(x) = S ∇θ f(θ, x) of whole batches.

One forward and one backward pass of the batch bring every layer's input and output gradient; the
rules turn them, layer by layer, into the entries that the sketch keeps.
"""

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.jacobian import conv, rules  # noqa: F401  (registers the rules)
from pipeline.jacobian.call import OverwrittenError
from pipeline.jacobian.checks import refuse_batch_dependence, refuse_training_mode
from pipeline.jacobian.fallback import fallback_gradients, run_model
from pipeline.jacobian.interception import UseInterceptor
from pipeline.jacobian.modules import module_uses
from pipeline.jacobian.outputs import Output, scalars, warn_of_collapse
from pipeline.jacobian.plan import Piece, make_plan
from pipeline.jacobian.precision import Precision
from pipeline.jacobian.probe import disagreeing, recording, reference, two_samples
from pipeline.types import InputError, Inputs, batch_size, move_inputs

logger = logging.getLogger(__name__)


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

    The first batch is also tried against autograd on two samples; parameters that no rule covers
    are computed by ``torch.func`` and logged once by name.
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
        if device is not None:
            model.to(device)
        self.model = model
        refuse_training_mode(model)
        parameter = next(iter(model.parameters()), None)
        self.device = torch.device("cpu") if parameter is None else parameter.device
        self.plan = make_plan(model, sketch, self.device)
        self.precision = Precision.of(model, compute_dtype)
        self.fallback: dict[str, str] = {}
        """Parameters computed by torch.func, and why."""
        self._output, self._seed = output, seed
        self._capture = None if capture is None else _submodule(model, capture)
        self._second: set[str] = set()
        self._clones: set[int] = set()
        self._choices: dict[int, bool] = {}
        self._tried = False

    def __call__(self, inputs: Inputs) -> Features:
        """Features of one batch. Raises :class:`InputError` naming samples that are not finite."""
        refuse_training_mode(self.model)
        inputs = move_inputs(inputs, self.device, self.precision.input_dtype)
        with _frozen(self.model), torch.enable_grad(), self.precision.active():
            if not self._tried:
                self._try(two_samples(inputs))
                self._tried = True
            buffers, f0, captured = self._run(inputs)
            self._add_fallback(buffers, inputs)
        phi = self._assembled(buffers)
        refuse_nonfinite(phi)
        return Features(phi, f0, captured)

    def _scalars(self, logits: Tensor) -> Tensor:
        return scalars(logits, self._output, self._seed)

    def _covered(self) -> dict[str, list[Piece]]:
        return {n: pieces for n, pieces in self.plan.pieces.items() if n not in self.fallback}

    def _assembled(self, buffers: list[Tensor]) -> Tensor:
        finished = [self.plan.finished(buffer) for buffer in buffers]
        vector = self._output != "all" and len(finished) == 1
        return finished[0] if vector else torch.stack(finished, 1)

    # --- the hot loop -----------------------------------------------------------------------

    def _run(self, inputs: Inputs) -> tuple[list[Tensor], Tensor, Tensor | None]:
        """Buffers of every scalar, logits, captured input; again when the plan had to change."""
        while True:
            result = self._attempt(inputs, self._covered())
            if result is not None:
                return result

    def _attempt(
        self, inputs: Inputs, pieces: dict[str, list[Piece]], scalar_count: int | None = None
    ) -> tuple[list[Tensor], Tensor, Tensor | None] | None:
        """One forward and backward pass; None if something was learnt and it must run again."""
        try:
            interceptor, values, f0, captured = self._forward(inputs, pieces)
            if not interceptor.declined:
                buffers = self._backward(interceptor, values[:, :scalar_count])
                if not interceptor.failed:
                    return buffers, f0, captured
        except OverwrittenError as error:
            self._clones.add(error.use)
            return None
        self._send_to_fallback(interceptor.declined)
        self._change_layout(interceptor.failed)
        return None

    def _forward(
        self, inputs: Inputs, pieces: dict[str, list[Piece]]
    ) -> tuple[UseInterceptor, Tensor, Tensor, Tensor | None]:
        captured: list[Tensor] = []
        interceptor = UseInterceptor(
            self.model,
            pieces,
            samples=batch_size(inputs),
            out=torch.empty(0, device=self.device),
            second=frozenset(self._second),
            clones=frozenset(self._clones),
            choices=self._choices,
        )
        with _capturing(self._capture, captured), module_uses(self.model, interceptor), interceptor:
            logits = run_model(self.model, inputs)
        values = self._scalars(logits)
        f0 = logits.detach() if logits.ndim == 2 else values.detach()
        return interceptor, values, f0.to(self.precision.dtype), captured[0] if captured else None

    def _backward(self, interceptor: UseInterceptor, values: Tensor) -> list[Tensor]:
        buffers = []
        n, q = values.shape
        for j in range(q):
            interceptor.out = torch.zeros(
                n, self.plan.columns, device=self.device, dtype=self.precision.dtype
            )
            interceptor.keep_saved = j < q - 1
            if values.requires_grad:
                torch.autograd.grad(
                    values[:, j].sum(),
                    [interceptor.anchor],
                    retain_graph=interceptor.keep_saved,
                    allow_unused=True,
                )
            buffers.append(interceptor.out)
        return buffers

    def _add_fallback(self, buffers: list[Tensor], inputs: Inputs) -> None:
        if not self.fallback:
            return
        gradients = fallback_gradients(self.model, list(self.fallback), inputs, self._scalars)
        for name, by_scalar in gradients.items():
            for buffer, gradient in zip(buffers, by_scalar, strict=True):
                for piece in self.plan.pieces[name]:
                    piece.add(buffer, piece.keep.select(gradient.to(buffer.dtype)))

    # --- the first batch --------------------------------------------------------------------

    def _try(self, inputs: Inputs) -> None:
        """Find what is batch-dependent, what no rule covers, and which layout each use has."""
        refuse_batch_dependence(self.model, inputs, self.precision.tolerance)
        pieces = self._covered()
        wanted = reference(self.model, pieces, inputs, self._scalars)
        wrong = True
        while wrong:
            self._choices.clear()
            recorded, values = recording(self._covered())
            if self._attempt(inputs, recorded, 1) is None:
                continue
            covered = {name: wanted[name] for name in self._covered()}
            found = disagreeing(values, covered, self.precision.tolerance)
            wrong = bool(found)
            self._change_layout(dict.fromkeys(found, "its values differ from autograd's"))
        if self._output == "sum":
            with torch.no_grad():
                warn_of_collapse(self.model, run_model(self.model, inputs).shape[-1])

    def _change_layout(self, reasons: dict[str, str]) -> None:
        """Try samples along the second axis; after that, the fallback."""
        again = {name: reason for name, reason in reasons.items() if name in self._second}
        self._second.update(reasons)
        self._second.difference_update(again)
        self._send_to_fallback(again)

    def _send_to_fallback(self, reasons: dict[str, str]) -> None:
        new = {name: reason for name, reason in reasons.items() if name not in self.fallback}
        if new:
            listed = ", ".join(f"{name} ({reason})" for name, reason in new.items())
            logger.info("per-sample gradients by torch.func for: %s", listed)
        self.fallback.update(new)


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


def refuse_nonfinite(phi: Float[Tensor, "n *columns"]) -> None:
    """Raise :class:`InputError` naming the samples with NaN or infinite features."""
    # One sum tells of any NaN or infinity; it may also overflow by itself, hence the second look.
    if bool(torch.isfinite(phi.sum())):
        return
    bad = torch.nonzero(~torch.isfinite(phi).flatten(1).all(1))[:, 0].tolist()
    if bad:
        raise InputError(
            f"the features of sample {', '.join(map(str, bad[:8]))} of this batch of {len(phi)} "
            "hold NaN or infinity. Look at these inputs; if they are sound, compute in float32."
        )


@contextlib.contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """Inside, no parameter requires a gradient."""
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        for parameter, _ in flags:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


@contextlib.contextmanager
def _capturing(module: nn.Module | None, into: list[Tensor]) -> Iterator[None]:
    """Inside, the module's input is kept."""
    if module is None:
        yield
        return
    handle = module.register_forward_pre_hook(lambda _, args: into.append(args[0].detach().clone()))
    try:
        yield
    finally:
        handle.remove()


def _submodule(model: nn.Module, name: str) -> nn.Module:
    modules = dict(model.named_modules())
    if name not in modules:
        known = ", ".join(n for n in modules if n)
        raise InputError(f"capture={name!r} is no module of the network. Known: {known}.")
    return modules[name]
